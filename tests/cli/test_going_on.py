"""Drawing that is stopped or killed leaves whole pictures, and the same command goes on to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.generation.picture_events import PictureDone, PictureEvent
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.runs import drawing_run
from cogview.runs.picture_folder import JOURNAL
from tiny import tiny_pipeline_folder

pytestmark = pytest.mark.slow

TEXTS = ("a red cat", "一只猫", "two dogs", "a dog", "一个苹果")
KILLED_AFTER_THE_THIRD_PICTURE = """
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
        if num_done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

drawing_run.picture_events = stream
sys.exit(main())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[tuple[int, int]]]:
    """Return what stops the drawing after some pictures, and tells which are drawn."""
    really = drawing_run.picture_events

    def stop(num_pictures: int) -> list[tuple[int, int]]:
        drawn: list[tuple[int, int]] = []

        def stream(
            task: PictureTask, asked: Iterable[Prompt], previews: None = None
        ) -> Iterator[PictureEvent]:
            for event in really(task, asked, previews):
                if isinstance(event, PictureDone):
                    if len(drawn) == num_pictures:
                        raise KeyboardInterrupt
                    drawn.append((event.text_index, event.picture.seed))
                yield event

        monkeypatch.setattr(drawing_run, "picture_events", stream)
        return drawn

    return stop


def words(model: Path, *more: str) -> list[str]:
    return ["generate", *TEXTS, "--model", str(model), "--device", "cpu", *more]


def without_work(printed: str) -> dict[str, object]:
    """Return a result without what the drawing took, which is another each time."""
    return {name: value for name, value in json.loads(printed).items() if name != "drawing"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("candidates", ["1", "3"])
def test_the_same_command_goes_on_to_the_same_bytes(
    model: Path,
    tmp_path: Path,
    candidates: str,
    stopped_at: Callable[[int], list[tuple[int, int]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = words(model, "--num-candidates", candidates)
    drawn = stopped_at(99)
    assert main([*request, "--out", "whole", "--json"]) == 0
    every = sorted(drawn)
    assert len(every) == len(TEXTS) * int(candidates)
    wanted = without_work(capsys.readouterr().out.replace("whole/", "out/").replace('"whole', '"out'))
    before = stopped_at(2)
    assert main([*request, "--json"]) == 130
    stopped = capsys.readouterr()
    early = {name: data for name, data in contents(tmp_path / "out/001").items() if name != JOURNAL}
    told = stopped.err.splitlines()[-1]
    assert told.startswith("cogview: Stopped. 2 pictures are done and in out/001: ")
    assert all(name in told for name in early)
    assert told.endswith("The same command draws the rest.")
    assert stopped.out == ""
    assert len(early) == 2
    (tmp_path / "out/001/.01-a-red-cat-seed0.png.a1b2c3d4").touch()  # of a process that was killed
    drawn = stopped_at(99)
    assert main([*request, "--json"]) == 0
    assert sorted(drawn + before) == every
    done = capsys.readouterr()
    assert f"going on in out/001: {len(early)} of {len(TEXTS) * int(candidates)} pictures" in done.err
    assert without_work(done.out) == wanted
    assert contents(tmp_path / "out/001") == contents(tmp_path / "whole/001")
    assert not (tmp_path / "out/002").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_that_is_killed_leaves_whole_pictures(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = words(model, "--num-candidates", "3")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_THE_THIRD_PICTURE, *request],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        timeout=280,
    )
    assert ended.returncode == -signal.SIGKILL
    pictures = sorted((tmp_path / "out/001").glob("0*.png"))
    assert len(pictures) == 3
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
    assert main([*request, "--json"]) == 0
    printed = capsys.readouterr()
    assert "going on in out/001: 3 of 15" in printed.err
    assert len(json.loads(printed.out)["pictures"]) == 15
    assert not (tmp_path / "out/001" / JOURNAL).exists()


def test_a_picture_that_was_removed_is_drawn_again(
    model: Path, tmp_path: Path, stopped_at: Callable[[int], list[tuple[int, int]]]
) -> None:
    before = stopped_at(3)
    assert main(words(model, "--num-candidates", "2")) == 130
    lost = next((tmp_path / "out/001").glob("0*.png"))
    data = lost.read_bytes()
    lost.unlink()
    drawn = stopped_at(99)
    assert main(words(model, "--num-candidates", "2")) == 0
    assert len(drawn) == 10 - len(before) + 1
    assert lost.read_bytes() == data


def test_another_request_or_other_weights_take_another_folder(
    model: Path, tmp_path: Path, stopped_at: Callable[[int], list[tuple[int, int]]]
) -> None:
    stopped_at(1)
    assert main(words(model, "--num-candidates", "2")) == 130
    stopped_at(99)
    other = tiny_pipeline_folder(tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-2] ^= 1  # one bit
    for number, request in enumerate(
        [
            words(model, "--num-candidates", "2", "--seed", "1"),
            words(model, "--num-candidates", "2", "--sheet-scale", "2"),
            [word for word in words(model, "--num-candidates", "2") if word != "a dog"],
        ],
        start=2,
    ):
        assert main(request) == 0
        assert (tmp_path / f"out/{number:03d}").is_dir()
    here = model / "model.safetensors"
    before = here.read_bytes()
    try:
        here.write_bytes(weights)
        assert main(words(model, "--num-candidates", "2")) == 0
        assert (tmp_path / "out/005").is_dir()
    finally:
        here.write_bytes(before)
    assert (tmp_path / "out/001" / JOURNAL).exists()


def test_a_random_seed_is_told_and_kept(
    model: Path,
    tmp_path: Path,
    stopped_at: Callable[[int], list[tuple[int, int]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = words(model, "--num-candidates", "2", "--seed", "random", "--json")
    stopped_at(2)
    assert main(request) == 130
    told = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("cogview: seed "))
    stopped_at(99)
    assert main(request) == 0
    done = capsys.readouterr()
    assert told in done.err
    result = json.loads(done.out)
    assert result["seed"] == int(told.split()[-1])
    assert {each["seed"] for each in result["pictures"]} == {result["seed"], result["seed"] + 1}
    again = words(model, "--num-candidates", "2", "--seed", str(result["seed"]), "--json")
    assert main(again) == 0
    pairs = zip(result["pictures"], json.loads(capsys.readouterr().out)["pictures"], strict=True)
    for one, other in pairs:
        with Image.open(one["path"]) as first, Image.open(other["path"]) as second:
            assert first.tobytes() == second.tobytes()
