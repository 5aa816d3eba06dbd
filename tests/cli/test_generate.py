"""`cogview generate`: pictures with their history, paths on stdout, nothing overwritten, nothing half-written."""

import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from command import cogview
from PIL import Image

import cogview as package
from cogview.cli.main import main
from cogview.text.word_replacing import replace_words
from tiny import tiny_pipeline_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def generate(model: Path, *words: str) -> int:
    return main(["generate", *words, "--model", str(model), "--device", "cpu"])


@pytest.mark.slow
def test_pictures_and_a_contact_sheet_are_written_and_their_paths_printed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, "a red cat", "一只猫", "--num-candidates", "2", "--seed", "7") == 0
    printed = capsys.readouterr().out
    assert files(tmp_path) == [
        "out/001/01-a-red-cat-seed7.png",
        "out/001/01-a-red-cat-seed8.png",
        "out/001/02-一只猫-seed7.png",
        "out/001/02-一只猫-seed8.png",
        "out/001/contact-sheet.png",
    ]
    assert all(name in printed for name in files(tmp_path))
    assert "2. 一只猫" in printed


@pytest.mark.slow
def test_a_picture_tells_how_it_was_made_and_can_be_made_again(model: Path, tmp_path: Path) -> None:
    assert generate(model, "一只猫", "--seed", "3", "--num-candidates", "1", "--top-k", "5") == 0
    with Image.open(tmp_path / "out/001/01-一只猫-seed3.png") as picture:
        assert picture.text["Description"] == "一只猫"
        assert picture.text["Software"] == f"cogview {package.__version__}"
        facts = json.loads(picture.text["cogview"])
        pixels = np.asarray(picture)
    assert facts == {
        "text": "一只猫",
        "seed": 3,
        "temperature": 1.0,
        "top_k": 5,
        "top_p": 0.8,
        "guidance": 1.0,
        "sampler": "gumbel",
        "balance_words": False,
        "model": str(model),
        "size_pixels": 16,
        "device": "cpu",
        "dtype": "float32",
    }
    pipeline = package.load(*(facts.pop(name) for name in ("model", "device", "dtype")))
    again = pipeline.generate(**facts, num_candidates=1)[0]
    assert np.array_equal(np.asarray(again.image), pixels)


def test_a_text_that_is_not_unicode_is_drawn(model: Path, tmp_path: Path) -> None:
    assert generate(model, os.fsdecode(b"caf\xe9"), "--num-candidates", "1") == 0
    with Image.open(tmp_path / "out" / "001" / "01-caf-seed0.png") as picture:
        assert picture.text["Description"] == "caf?"


def test_a_text_does_not_steer_the_terminal(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(model, "a \x1b[31mred\x07 cat", "--num-candidates", "1") == 0
    said = capsys.readouterr()
    assert r"1. a \x1b[31mred\x07 cat" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


@pytest.mark.slow
def test_another_call_takes_another_folder(model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert generate(model, "a cat", "--num-candidates", "1", "--out", "pictures") == 0
    first, second = (tmp_path / "pictures" / number / "01-a-cat-seed0.png" for number in ("001", "002"))
    assert first.read_bytes() == second.read_bytes()
    (tmp_path / "pictures" / "041").mkdir()
    assert generate(model, "a cat", "--num-candidates", "1", "--out", "pictures") == 0
    assert (tmp_path / "pictures" / "042" / "01-a-cat-seed0.png").exists()


@pytest.mark.slow
def test_json_on_stdout_names_everything(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, "a cat", "--num-candidates", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    named = [picture["path"] for picture in result["pictures"]] + result["contact_sheets"]
    assert sorted(named) == files(tmp_path)
    assert [picture["seed"] for picture in result["pictures"]] == [0, 1]


@pytest.mark.filterwarnings("ignore:.* texts have more than")  # the tiny model spells these words in bytes
@pytest.mark.slow
def test_balanced_words_are_told_in_the_picture_and_in_what_is_printed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ("a doctor", "a cat", "--num-candidates", "2", "--seed", "3", "--balance-words")
    drawn = [replace_words("a doctor", seed) for seed in (3, 4)]
    assert generate(model, *request) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in drawn)
    assert generate(model, *request, "--json") == 0
    pictures = json.loads(capsys.readouterr().out)["pictures"]
    assert [picture["text"] for picture in pictures] == ["a doctor", "a doctor", "a cat", "a cat"]
    assert [picture.get("drawn_text") for picture in pictures] == [*drawn, None, None]
    with Image.open(tmp_path / "out" / "001" / "01-a-doctor-seed3.png") as picture:
        assert picture.text["Description"] == "a doctor"
        facts = json.loads(picture.text["cogview"])
    assert (facts["balance_words"], facts["drawn_text"]) == (True, drawn[0])


@pytest.mark.slow
def test_many_texts_are_saved_as_they_come_with_a_sheet_for_every_sixteen(
    model: Path, tmp_path: Path
) -> None:
    texts = [f"a cat {number}" for number in range(18)]
    assert generate(model, *texts, "--num-candidates", "1") == 0
    names = files(tmp_path)
    assert [name for name in names if "contact-sheet" in name] == [
        "out/001/contact-sheet-1.png",
        "out/001/contact-sheet-2.png",
    ]
    assert len(names) == 20


@pytest.mark.slow
def test_texts_of_any_kind_make_file_names(model: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the last is too long for the model
        assert generate(model, "../../etc/passwd", "💥", "x" * 300, "--num-candidates", "1") == 0
    assert files(tmp_path) == [
        "out/001/01-etc-passwd-seed0.png",
        "out/001/02-text-seed0.png",
        f"out/001/03-{'x' * 40}-seed0.png",
        "out/001/contact-sheet.png",
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a cat", "--num-candidates", "0"], "--num-candidates"),
        (["a cat", "--temperature", "-1"], "temperature"),
        (["a cat", "--top-k", "0"], "--top-k"),
        (["a cat", "--top-p", "2"], "--top-p"),
        (["a cat", "--guidance", "-1"], "guidance"),
        (["a cat", "--seed", "-1"], "seed"),
        (["a cat", "--keep", "1"], "ranking"),
        (["a cat", "--upscaler", "anything"], "add --upscale 2"),
        (["a cat", " "], "text 2 of 2 is empty"),
        (["a cat", "--device", "abacus"], "device abacus"),
    ],
)
@pytest.mark.slow
def test_an_impossible_request_is_one_line_and_writes_nothing(
    model: Path, tmp_path: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words, "--model", str(model)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cogview: error: ")
    assert named in error
    assert error.count("\n") == 1
    assert files(tmp_path) == []
    assert not any(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--mask", "loer"], "mask loer"),
        (["--mask", "black.png"], "the mask has no white"),
        (["--mask", "lower", "--rank-by", "fit"], "no given code comes after"),
        (["--mask", "lower", "--adapter-strength", "0.5"], "there is no adapter"),
        ([], "an image needs a mask"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_drawn_anew_leaves_no_folder(
    model: Path, tmp_path: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("given.png", "black.png"):
        Image.new("RGB", (16, 16)).save(name)
    assert generate(model, "a cat", "--image", "given.png", *words) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_model_and_a_file_as_folder_are_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a cat", "--model", "./absent"]) == 1
    assert "model folder absent" in capsys.readouterr().err
    (tmp_path / "file").write_text("precious")
    assert generate(model, "a cat", "--out", "file") == 1
    assert "made in file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_failure_while_writing_leaves_whole_files_only(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    really, written = os.fsync, []

    def disk_that_fills_up(descriptor: int) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(descriptor)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", disk_that_fills_up)
    assert generate(model, "a cat") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    lost = re.search(
        r"(01-a-cat-seed\d\.png) cannot be written \(No space left on device\): make room", error
    )
    names = sorted(path.name for path in (tmp_path / "out" / "001").iterdir())
    assert lost is not None
    assert lost[1] not in names
    assert (len(names), names[-1]) == (3, "unfinished.jsonl")
    for name in names[:2]:
        with Image.open(tmp_path / "out" / "001" / name) as picture:
            picture.load()


@pytest.mark.slow
def test_as_a_process_it_keeps_results_and_progress_apart(model: Path, tmp_path: Path) -> None:
    long = "a red cat above a dog and " * 5
    done = cogview(
        "generate", long, "--model", model, "--num-candidates", 1, cwd=tmp_path, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 3
    warned = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith("cogview: warning: 1 of 1 texts")
    assert "drawing: 100%" in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a cat", "--seed", "rand"], "seed"),
        (["a cat", "--seed", "1.5"], "seed"),
        (["a cat", "--promts", "x"], "--promts"),
        (["--prompts", "absent"], "absent cannot be read"),
        ([], "there is no text to draw"),
    ],
)
def test_a_mistyped_flag_is_one_line(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
