"""`cogview generate` shows what it draws while it draws, and what is finished when it is stopped stays."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.generation.contact_sheet import is_contact_sheet
from cogview.generation.picture_decoder import PictureDecoder
from cogview.generation.previews import GREY, PreviewOptions
from cogview.runs import drawing_display
from tiny import tiny_pipeline_folder

STOPPED_AFTER_TWO_PICTURES = """
import os, signal, sys
from cogview.cli.main import main
from cogview.generation.picture_events import PictureDone
from cogview.runs import drawing_run

really = drawing_run.picture_events

def stream(task, asked, previews=None):
    num_done = 0
    for event in really(task, asked, previews):
        yield event
        num_done += isinstance(event, PictureDone)
        if num_done == 2:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts tests may ignore it
drawing_run.picture_events = stream
sys.exit(main())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(model: Path, *more: str) -> list[str]:
    return [
        "generate",
        "a red cat",
        "一只猫",
        "--num-candidates",
        "3",
        "--model",
        str(model),
        "--device",
        "cpu",
        *more,
    ]


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.slow
def test_each_picture_has_a_bar_on_a_terminal(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_display, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(words(model)) == 0
    shown = terminal.getvalue()
    for text in ("1. a red cat", "2. 一只猫"):
        for seed in range(3):
            assert f"{text}, seed {seed}:" in shown
    assert "16/16" in shown  # codes of a picture
    assert "6/6" in shown
    assert "pictures/s" in shown or "s/ pictures" in shown


@pytest.mark.slow
def test_passes_are_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(model, "--json")) == 0
    said = capsys.readouterr()
    work = json.loads(said.out)["drawing"]
    assert (work["pictures"], work["codes"]) == (6, 96)
    assert 1 <= work["passes"] <= 96
    assert 16 / work["passes"] <= work["codes_per_pass"] <= 16
    told = re.search(r"(\d+) passes, ([\d.]+) codes of a picture in each", said.err)
    assert told is not None
    assert int(told[1]) == work["passes"]
    assert float(told[2]) == pytest.approx(work["codes_per_pass"], abs=0.06)


@pytest.mark.slow
def test_a_sheet_grows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets: list[np.ndarray] = []
    really = drawing_display.PreviewSheet.write

    def write(self: drawing_display.PreviewSheet) -> None:
        is_new = self._is_new
        really(self)
        if is_new:
            assert not list(tmp_path.glob(".*"))  # whole, and nothing beside it
            with Image.open("growing.png") as sheet:
                sheets.append(np.asarray(sheet))

    monkeypatch.setattr(drawing_display.PreviewSheet, "write", write)
    monkeypatch.setattr(drawing_display, "_MAX_SHARE", 1e9)
    monkeypatch.setattr(
        PreviewOptions, "__post_init__", lambda self: self.__dict__.update(per_second=1e9, max_share=1)
    )
    assert main(words(model, "--preview", "growing.png", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(sheets) > 2
    assert len({each.shape for each in sheets}) <= 2  # of one text, of two
    both = [each for each in sheets if each.shape == sheets[-1].shape]
    nums_grey = [int((each == GREY).all(axis=2).sum()) for each in both]
    assert nums_grey == sorted(nums_grey, reverse=True)
    assert nums_grey[0] > nums_grey[-1]
    assert is_contact_sheet(Path("growing.png"))
    last = both[-1]
    for picture in result["pictures"]:  # all of them are on it
        with Image.open(picture["path"]) as image:
            wanted = np.asarray(image)
        column = 8 + result["pictures"].index(picture) % 3 * 24
        rows = [
            row
            for row in range(len(last) - 15)
            if (last[row : row + 16, column : column + 16] == wanted).all()
        ]
        assert rows, picture["path"]
    before = {path: path.read_bytes() for path in Path("out/001").iterdir()}
    assert main(words(model, "--out", "plain")) == 0
    assert {path.name: path.read_bytes() for path in Path("plain/001").iterdir()} == {
        path.name: data for path, data in before.items()
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("sheet.jpg", ".png"),
        ("absent/sheet.png", "folder absent"),
        ("mine.png", "mine.png"),
    ],
)
def test_a_preview_takes_no_other_files_place(
    model: Path, tmp_path: Path, name: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save("mine.png")
    mine = Path("mine.png").read_bytes()
    assert main(words(model, "--preview", name)) == 2
    assert problem in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    assert Path("mine.png").read_bytes() == mine


def test_a_preview_that_cannot_be_written_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing_display, "save_sheet", failing)
    assert main(words(model, "--preview", "growing.png")) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "--preview growing.png" in told
    assert "No space left on device" in told


def test_pictures_of_one_colour_are_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PictureDecoder, "_decode_one", lambda *_: Image.new("RGB", (16, 16), "white"))
    told: list[str] = []
    monkeypatch.setattr(warnings, "warn", lambda message, **_: told.append(message))
    assert main(words(model)) == 0
    assert len(told) == 1
    assert told[0].startswith("all pictures of 'a red cat' are of one colour")
    assert told[0].endswith("; there are 2 such texts")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.slow
def test_finished_pictures_stay_when_it_is_stopped_and_the_same_command_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = words(model, "--preview", "growing.png")
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED_AFTER_TWO_PICTURES, *request],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        timeout=280,
    )
    assert ended.returncode == 130, ended.stderr
    done = sorted(path.name for path in Path("out/001").glob("*.png"))
    assert len(done) == 2
    told = ended.stderr.splitlines()[-1]
    assert told.startswith("cogview: Stopped. 2 pictures ")
    assert all(name in told for name in done)
    with Image.open("growing.png") as sheet:
        sheet.load()
    assert not list(tmp_path.rglob(".*"))  # nothing half-written
    kept = {name: Path("out/001", name).read_bytes() for name in done}
    assert main(request) == 0
    assert "out/001: 2 of 6 pictures" in capsys.readouterr().err
    assert main(words(model, "--out", "whole")) == 0
    whole = {path.name: path.read_bytes() for path in Path("whole/001").iterdir()}
    assert {path.name: path.read_bytes() for path in Path("out/001").iterdir()} == whole
    assert kept.items() <= whole.items()
