"""`cogview words`: the list for people and for programs, in no time, and what is said where there is none."""

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from command import MAIN

from cogview.cli.main import main
from cogview.models.config import BUNDLED_FOLDER
from cogview.text.known_words import KnownWords


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of what is read of a model: no weights are."""
    for name in ("config.json", "text.model"):
        shutil.copy(BUNDLED_FOLDER / name, tmp_path / name)
    return tmp_path


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


@pytest.mark.slow
def test_the_list_fits_a_terminal_and_needs_no_torch(tmp_path: Path) -> None:
    code = f"{MAIN.replace('sys.exit(main())', 'main()')}\nprint('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "words"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(BUNDLED_FOLDER.parents[1]), "PYTHONUTF8": "1"},
        check=True,
    )
    assert done.stderr == "False\n"
    lines = done.stdout.splitlines()
    assert lines[0] == "80 things:"
    assert max(map(columns, lines)) <= 80
    assert min(columns(line) for line in lines[1:10]) > 55
    for told in (
        "cat 猫",
        "colours, of grounds only:",
        "two 两",
        "to the left of",
        "--adapter style-openmoji",
    ):
        assert told in done.stdout


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["things"]) == 80
    assert found["things"][0] == {"english": ["cat", "kitten"], "chinese": ["猫"]}
    assert found["words"] == []
    assert main(["words", "--json", "--all"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["words"][0] == "a"
    assert len(found["words"]) == found["num_words"]


def test_words_of_another_world_are_listed_by_how_often_they_were_met(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    KnownWords.of_counts({f"word{number}": 1 + number for number in range(300)}).save(folder)
    assert main(["words", "--model", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "none, or hardly any, of the things" in lines[0]
    assert lines[1] == "200 of its 300 words, the most frequent first:"
    assert lines[2].startswith("  word299, word298,")
    assert lines[-1] == "--all lists all of its 300 words."
    assert main(["words", "--model", str(folder), "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("word0")


@pytest.mark.parametrize("lost", ["words.json", "text.model"])
def test_a_model_that_does_not_say_what_it_learnt_is_one_line(
    folder: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    KnownWords.of_counts({"a": 1}).save(folder)
    (folder / lost).unlink()
    assert main(["words", "--model", str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"it has no {lost}" in told


def test_no_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words", "--model", str(tmp_path / "absent")]) == 1
    assert "There is no model folder" in capsys.readouterr().err
