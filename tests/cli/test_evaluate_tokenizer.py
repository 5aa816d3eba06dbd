"""`cogview evaluate tokenizer`: figures for people and programs, a grid to look at, one line for what is wrong."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cogview.cli.main import main
from cogview.evaluation import efficientnet
from cogview.runs import evaluate_tokenizer
from tiny import tiny_image_tokenizer


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Write four pictures, two of them held out, and a file that is none; beside them an image tokenizer."""
    tiny_image_tokenizer().save_pretrained(tmp_path / "tokenizer")
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(5):
        pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16)).save(folder / f"{number}.png")
        split = "held-out" if number < 3 else "train"
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "colours", "split": split}) + "\n")
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def call(*words: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(["evaluate", "tokenizer", *map(str, words), "--device", "cpu"])


@pytest.mark.slow
def test_figures_and_a_grid_come_of_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(efficientnet.EfficientNetLite0().network.state_dict(), tmp_path / "weights.safetensors")
    words = [pictures, "--image-tokenizer", tmp_path / "tokenizer", "--size-pixels", 16]
    words += ["--backbone", tmp_path / "weights.safetensors", "--grid", tmp_path / "new" / "grid.png"]
    assert call(*words, "--json") == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["num_pictures"], result["num_problems"], result["num_codes"]) == (4, 1, 32)
    assert result["problems"][0]["where"] == "1.png"
    assert result["backbone"]["name"] == "efficientnet_lite0"
    assert result["figures"]["frechet_distance_efficientnet_lite0"] >= 0
    assert result["figures"]["bits_per_pixel"] == 5 / 16
    assert "measuring" in said.err
    assert "4 pictures are too few for 1,280 features" in said.err
    with Image.open(tmp_path / "new" / "grid.png") as grid:
        assert grid.size == (4 * 16, 2 * 16)
    assert call(*words) == 0
    table = capsys.readouterr().out
    for name, value in result["figures"].items():
        assert any(line.split() == [name, f"{value:,.4f}"] for line in table.splitlines())
    assert "1 pictures left out:\n  1.png: " in table


def test_without_a_network_that_sees_the_rest_is_measured(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_tokenizer, "find_weights", lambda: None)
    monkeypatch.chdir(tmp_path)
    words = ["pictures", "--image-tokenizer", "tokenizer", "--size-pixels", 16, "--split", "held-out"]
    assert call(*words, "--max-pictures", 1, "--json") == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["num_pictures"], result["backbone"]) == (1, None)
    assert not any("distance" in name for name in result["figures"])
    (warning,) = (line for line in said.err.splitlines() if line.startswith("cogview: warning: "))
    assert "pip install '.[eval]'" in warning
    assert (tmp_path / "out" / "reconstructions.png").is_file()
    # Where no grid can be written, what was measured is told all the same.
    assert call(*words, "--max-pictures", 1, "--json", "--grid", "tokenizer/config.json/grid.png") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == result | {"grid": None}
    assert "grid.png cannot be written (" in said.err


def test_what_is_wrong_is_one_line_and_writes_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_tokenizer, "find_weights", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    tokenizer = ["--image-tokenizer", "tokenizer", "--size-pixels", 16]
    for exit_code, said, words in (
        (1, "does not exist", ["absent", *tokenizer]),
        (1, "holds no pictures", ["empty", *tokenizer]),
        (1, 'no pictures of split "other"', ["pictures", *tokenizer, "--split", "other"]),
        (1, "absent", ["pictures", "--image-tokenizer", "absent"]),
        (1, "not the weights of EfficientNet-Lite0", ["pictures", *tokenizer, "--backbone", "other.pth"]),
        (2, "--size-pixels must be a multiple of 4", ["pictures", *tokenizer[:2], "--size-pixels", 18]),
        (2, "--max-pictures must be 1 or more", ["pictures", *tokenizer, "--max-pictures", 0]),
        (2, "--batch-size must be 1 or more", ["pictures", *tokenizer, "--batch-size", 0]),
        (2, "empty is a folder", ["pictures", *tokenizer, "--grid", "empty"]),
    ):
        assert call(*words) == exit_code
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
    assert not (tmp_path / "out").exists()
