"""`cogview evaluate attention`: figures and scores of a picture that is drawn or given, one line for what is wrong."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cogview
from cogview.cli.main import main
from cogview.evaluation.attention import attention_maps
from cogview.generation.pictures import codes_of
from tiny import tiny_pipeline_folder

pytestmark = pytest.mark.slow

TEXT = "a red cat above a dog"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("model"))


def call(*words: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(["evaluate", "attention", *map(str, words), "--device", "cpu"])


def test_the_picture_is_the_one_that_is_drawn_and_the_scores_are_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert call(TEXT, "--model", folder, "--out", out, "--seed", 3, "--row", 1, "--column", 0, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == {
        *("picture.png", "token.png", "text.png", "scores.json", "scores.txt")
    }
    pipe = cogview.load(folder, "cpu")
    [drawn] = pipe.generate(TEXT, 1, seed=3)
    with Image.open(out / "picture.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(drawn.image))
        assert json.loads(picture.info["cogview"])["seed"] == 3
    pieces = pipe.text_tokenizer.encode(TEXT)
    maps = attention_maps(pipe.transformer, pipe.template, pieces, drawn.codes)
    assert result["scores"][3]["largest_score"] == maps.largest_scores[1, 1].item()
    assert result["scores"][0]["text_share"] == maps.text_share[0, 0].item()
    assert result["pieces"] == pipe.text_tokenizer.words(TEXT)
    assert (result["row"], result["column"], result["seed"]) == (1, 0, 3)
    written = json.loads((out / "scores.json").read_text("utf-8"))
    assert written == {name: value for name, value in result.items() if name != "files"}
    table = (out / "scores.txt").read_text("utf-8").splitlines()
    assert table[0] == TEXT
    assert f"piece 0: {result['pieces'][0]}" in table
    assert sum("%" in line for line in table) == 4


def test_a_given_picture_is_looked_into_and_files_are_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(given)
    for layers in ((), ("--layers", 1)):
        words = [TEXT, "--model", folder, "--out", tmp_path / "out", "--picture", given, *layers]
        assert call(*words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("pieces: 0 ")
    assert said[1].startswith("largest scores by head: from ")
    assert str(tmp_path / "out" / "text.png") in said
    pipe = cogview.load(folder, "cpu")
    [codes] = codes_of(pipe.model, given, pipe.template)
    maps = attention_maps(pipe.transformer, pipe.template, pipe.text_tokenizer.encode(TEXT), codes, [])
    written = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert written["scores"][2]["largest_score"] == maps.largest_scores[1, 0].item()
    assert (written["row"], written["column"]) == (2, 2)
    assert "seed" not in written
    with Image.open(tmp_path / "out" / "token.png") as figure:
        one_layer = figure.height
    assert call(*words[:-2]) == 0
    with Image.open(tmp_path / "out" / "token.png") as figure:
        assert figure.height > one_layer


def test_what_is_wrong_is_one_line_and_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no picture")
    for exit_code, said, words in (
        (2, "the text is empty", [" "]),
        (2, "row 4, column 2 lies outside the picture's 4 x 4 codes", [TEXT, "--row", 4]),
        (2, "row 2, column -1 lies outside", [TEXT, "--column", -1]),
        (2, "no layer 2: give some from 0 to 1", [TEXT, "--layers", 0, 2]),
        (2, "text.txt is a file", [TEXT, "--out", "text.txt"]),
        (2, "seed must not be negative", [TEXT, "--seed", -1]),
        (1, "text.txt: not a picture", [TEXT, "--picture", "text.txt"]),
        (1, "absent.png: no such file", [TEXT, "--picture", "absent.png"]),
        (2, "absent", [TEXT, "--adapter", "absent"]),
    ):
        assert call(*words, "--model", folder) == exit_code, words
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
