"""What is no checkpoint, or is given in the wrong place, is told in one line that says what it is."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled

from cogview.cli.main import main
from cogview.models.config import why_not_downloaded
from rudalle import HEADS, checkpoint
from tiny import tiny_image_tokenizer


def pipeline(path: Path, kind: str) -> None:
    """Write what names a pipeline of diffusers with one part."""
    (path / "part").mkdir(parents=True)
    (path / "model_index.json").write_text("{}")
    (path / "part" / "config.json").write_text(json.dumps({"_class_name": kind}))


def cut(path: Path) -> None:
    """Write the first half of a checkpoint."""
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def transformer(path: Path) -> str:
    """Write a transformer of ruDALL-E's layout; return its path."""
    torch.save(checkpoint(), path)
    return str(path)


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (cut, 1, "the file is cut"),
        (lambda path: path.write_bytes(b""), 1, "it is empty"),
        (lambda path: path.write_bytes(b"\x89PNG"), 1, "no file of PyTorch"),
        (lambda path: path.mkdir(), 1, "no checkpoint that is known"),
        (lambda path: pipeline(path, "VQModel"), 1, "give its part source/part"),
        (lambda path: pipeline(path, "AutoencoderKL"), 1, "it has no VQModel"),
        (lambda path: tiny_image_tokenizer().save_pretrained(path), 2, "needs no conversion"),
    ],
)
def test_sources_that_are_no_checkpoints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: object,
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("source"))  # type: ignore[operator]
    assert main(["convert", "source", "out"]) == code
    [complaint] = capsys.readouterr().err.splitlines()
    assert said in complaint
    assert not Path("out").exists()


def test_a_transformer_in_the_place_of_an_image_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = transformer(tmp_path / "model.bin")
    words = ["convert", source, str(tmp_path / "out"), "--num-heads", str(HEADS), "--image-tokenizer", source]
    assert main(words) == 2
    assert f"--image-tokenizer {source} is a transformer" in capsys.readouterr().err


def test_a_checkpoint_in_the_place_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = transformer(tmp_path / "model.bin")
    for words in (
        ["generate", "a cat", "--model", source],
        ["tokenize", str(tmp_path), "--image-tokenizer", source, "--out", str(tmp_path / "out")],
    ):
        assert main(words) == 1
        assert "cogview convert" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_not_an_unknown_id() -> None:
    # As the HTTP libraries name it: httpx, and httpx2 of the hub's later versions.
    unreached = type("ConnectError", (type("TransportError", (Exception,), {}),), {})("Name not known")
    for error in (unreached, OfflineModeIsEnabled("offline")):
        assert "cannot be reached" in why_not_downloaded(error)
    assert "(404)" in why_not_downloaded(RuntimeError("404"))
