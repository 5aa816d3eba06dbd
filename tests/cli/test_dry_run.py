"""`--dry-run` of every verb that trains: what two steps take is told, and nothing is left behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.planning import MFU
from tiny import tiny_pipeline_folder

NUM_STEPS = 7
VERBS = {
    "image-tokenizer": ["--data", "pictures"],
    "vqgan": ["--data", "pictures"],
    "decoder": ["--data", "pictures", "--image-tokenizer", "tiny-model", "--size-pixels", "16"],
    "text-to-image": ["--data", "tokens-16"],
    "style": ["--data", "tokens-16", "--base", "tiny-model"],
    "captioning": ["--data", "tokens-16", "--base", "tiny-model"],
    "super-resolution": ["--data", "tokens-32", "--low", "tokens-16", "--base", "tiny-model"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model, pictures, and their tokens at two sizes."""
    home = tmp_path_factory.mktemp("home")
    model, random = tiny_pipeline_folder(home), np.random.default_rng(0)
    (home / "pictures").mkdir()
    for number in range(8):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "pictures" / f"{number}.png")
        (home / "pictures" / f"{number}.txt").write_text("a red cat")
    for size in (16, 32):
        words = ["tokenize", home / "pictures", "--image-tokenizer", model, "--text-tokenizer", model]
        words += ["--size-pixels", size, "--out", home / f"tokens-{size}", "--device", "cpu"]
        assert main([str(word) for word in words]) == 0
    return home


def files(folder: Path) -> dict[Path, bytes]:
    """Return all files but the decoded pictures, which verbs that read pictures keep beside these."""
    found = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {path: path.read_bytes() for path in found}


def dry_run(verb: str, *more: str) -> int:
    words = ["train", verb, "tiny", *VERBS[verb], "--out", "run", "--dry-run", "--training.device", "cpu"]
    return main([*words, "--training.num-steps", str(NUM_STEPS), *more])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.slow
def test_two_steps_are_told_and_no_file_is_left(
    verb: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    before = files(home)
    assert dry_run(verb, "--json") == 0
    assert files(home) == before
    assert not Path("run").exists()
    result = json.loads(capsys.readouterr().out)
    taken = result["dry_run"]
    assert taken["device"] == "cpu"
    assert 0 < taken["bytes_before"] <= taken["peak_bytes"]
    assert taken["step_seconds"] > 0
    assert taken["hours"] == pytest.approx(NUM_STEPS * taken["step_seconds"] / 3600)
    assert (result["planned"] is not None) == (verb == "text-to-image")


@pytest.mark.slow
def test_the_plan_stands_beside_what_was_measured(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert dry_run("text-to-image", "--training.batch-size", "8", "--json") == 0
    planned = json.loads(capsys.readouterr().out)["planned"]
    assert main(["plan", "tiny", "--data", "tokens-16", "--training.batch-size", "8", "--json"]) == 0
    assert planned["bytes"] == json.loads(capsys.readouterr().out)["training"]["bytes"]
    assert planned["mfu"] == MFU
    assert dry_run("text-to-image") == 0
    report = capsys.readouterr().out
    assert "nothing was written" in report
    assert f"the run: {NUM_STEPS} steps" in report
    assert "by training; " in report  # what is foretold


@pytest.mark.slow
def test_a_run_that_is_there_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home)
    (tmp_path / "config.json").write_text("{}")
    assert dry_run("text-to-image", "--out", str(tmp_path)) == 0
    assert files(tmp_path) == {tmp_path / "config.json": b"{}"}


def test_a_request_that_is_impossible_is_refused_as_in_a_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert dry_run("image-tokenizer", "--training.activation-checkpointing") == 2
    assert "--training.activation-checkpointing is for transformers" in capsys.readouterr().err
