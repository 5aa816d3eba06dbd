"""Data sets that are not as one expects, on the command line."""

import json
import os
import warnings
from pathlib import Path

import pytest
from command import cogview
from PIL import Image

from cogview.cli.main import main

pytestmark = pytest.mark.slow


def test_an_image_tokenizer_is_trained_and_measured_without_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 36), (80 * number, 90, 200)).save(tmp_path / "bare" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    short = ("--training.num-steps", "2", "--training.batch-size", "2")
    assert main(["train", "image-tokenizer", "tiny", "--data", "bare", "--out", "run", *short]) == 0
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a backbone that may not be installed
        assert main(["evaluate", "tokenizer", "bare", "--image-tokenizer", "run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_pictures"], result["num_problems"]) == (3, 0)
    assert main(["tokenize", "bare", "--image-tokenizer", "run", "--out", "tokens"]) == 1
    assert "with captions (0.png: has no caption" in capsys.readouterr().err


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system has no such names")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("a")
    done = cogview("data", "check", tmp_path, "--json", cwd=tmp_path, PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"][0]["where"] == os.fsdecode(b"caf\xe9.png")
