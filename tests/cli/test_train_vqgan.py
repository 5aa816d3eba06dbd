"""`cogview train vqgan`: a run, its perceptual losses, and what is said when one cannot be had."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cogview
from cogview.cli.main import main
from cogview.evaluation.efficientnet import find_weights
from cogview.runs import perception

pytestmark = pytest.mark.slow

TINY = ["train", "vqgan", "tiny", "--training.num-steps", "4", "--training.log-every-steps", "1"]
PERCEPTUAL = ["--vqgan.perceptual-weight", "1"]


class FakeLPIPS(nn.Module):
    """Stands for `lpips.LPIPS`, whose weights have to be fetched: a distance that wants [-1, 1] and gives [b 1 1 1]."""

    def __init__(self, net: str, verbose: bool):
        super().__init__()
        assert net == "vgg"
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, one, other):
        assert -1 <= other.min() < other.max() <= 1, "originals come second, and nobody scales them"
        return self.scale * (one - other).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("noise")
    return folder


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_gives_a_tokenizer_that_others_can_use(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*TINY, "--data", str(pictures), "--out", str(run)]) == 0
    tokenizer = cogview.load_image_tokenizer(run)
    codes = tokenizer.encode(torch.rand(1, 3, 32, 32) * 2 - 1)
    assert codes.shape == (1, 4, 4)
    assert tokenizer.decode(codes).shape == (1, 3, 32, 32)
    assert list((run / "samples").glob("*.png"))
    words = ["tokenize", pictures, "--image-tokenizer", run, "--out", tmp_path / "tokens"]
    assert main([str(word) for word in words]) == 0


@pytest.mark.skipif(find_weights() is None, reason="needs the weights of the extra eval")
def test_the_offline_backbone_sees_the_pictures(pictures: Path, tmp_path: Path) -> None:
    words = [*TINY, *PERCEPTUAL, "--training.batch-size", "2", "--data", str(pictures)]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert all(line["perceptual"] > 0 for line in metrics(tmp_path / "run"))


def test_lpips_is_taken_if_it_is_installed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=FakeLPIPS))
    words = [*TINY, *PERCEPTUAL, "--perception", "lpips", "--data", str(pictures)]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert all(line["perceptual"] > 0 for line in metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--perception", "lpips"], "--perception lpips"),
        (["--perception", "lpips", "--backbone", "x.pth"], "--backbone"),
        (["--backbone", "absent.pth"], "absent.pth"),
    ],
)
def test_a_backbone_that_cannot_be_had_is_said_in_one_line(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    complaint: str,
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert main([*TINY, *PERCEPTUAL, *flags, "--data", str(pictures), "--out", str(tmp_path / "run")]) in (
        1,
        2,
    )
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in last
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_with_another_perceptual_loss(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perception, "open_efficientnet", lambda backbone: FakeLPIPS("vgg", False))
    words = [*TINY, *PERCEPTUAL, "--data", str(pictures), "--out", str(tmp_path / "run")]
    for name in ("one.pth", "other.pth"):
        (tmp_path / name).write_text(name)
    assert main([*words, "--backbone", str(tmp_path / "one.pth")]) == 0
    assert main([*words, "--backbone", str(tmp_path / "one.pth"), "--resume"]) == 0
    assert main([*words, "--backbone", str(tmp_path / "other.pth"), "--resume"]) == 2
    assert "perception was efficientnet" in capsys.readouterr().err
