"""Work in shards: it goes on where it was, for the same settings only, and the last of many processes finishes it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cogview.errors import CogViewError, UsageError
from cogview.resumable import ResumableWork


def test_work_goes_on_for_the_same_request_only(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    request = {"seed": 0, "top_k": None, "captions": "abc"}
    ResumableWork(out, request)
    ResumableWork(out, request)
    with pytest.raises(UsageError, match=r"seed was 0, now 1; num was None, now 2\. Give the same"):
        ResumableWork(out, request | {"seed": 1, "num": 2})
    (out / "request.json").write_text("[")
    with pytest.raises(CogViewError, match="is damaged"):
        ResumableWork(out, request)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        ResumableWork(tmp_path / "other", request)
    with pytest.raises(UsageError, match="is a file"):
        ResumableWork(tmp_path / "other" / "letter.txt", request)


def test_processes_that_begin_at_once_do_not_take_each_others_work_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        ResumableWork(folder, {"seed": 0})
        (folder / "codes").mkdir()
        return folder.iterdir()

    monkeypatch.setattr(Path, "iterdir", after_another)
    ResumableWork(tmp_path, {"seed": 0})
    assert (tmp_path / "codes").is_dir()


@pytest.mark.parametrize("has_links", [True, False])
def test_of_processes_that_begin_at_once_the_settings_of_one_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    link = os.link

    def after_another(own: Path, path: Path) -> None:
        monkeypatch.setattr(os, "link", link if has_links else refused)
        ResumableWork(tmp_path, {"seed": 1})
        os.link(own, path)

    def refused(own: Path, path: Path) -> None:
        raise PermissionError("as where files have one name each")

    monkeypatch.setattr(os, "link", after_another)
    if has_links:
        with pytest.raises(UsageError, match="seed was 1, now 0"):
            ResumableWork(tmp_path, {"seed": 0})
    else:
        ResumableWork(tmp_path, {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["request.json"]


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({"version": 2, "seed": 1}, ": version was 1, now 2. "),
        ({"seed": 1, "data": {"name": "b", "size": 2}}, ": seed was 0, now 1; size was 1, now 2. "),
        ({"data": {"name": "a", "size": 1, "hash": "y"}, "time": 1}, ": other data. "),
        ({"data": {"name": "b", "size": 1}}, None),
    ],
)
def test_what_differs_is_told(tmp_path: Path, differing: dict[str, Any], told: str | None) -> None:
    settings = {"version": 1, "seed": 0, "data": {"name": "a", "size": 1}}
    said_of = {"data.name": None, "data.hash": "other data", "time": "other data"}
    ResumableWork(tmp_path, settings, said_of=said_of)
    if told is None:
        ResumableWork(tmp_path, settings | differing, said_of=said_of)
        return
    with pytest.raises(UsageError) as refusal:
        ResumableWork(tmp_path, settings | differing, said_of=said_of)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert json.loads((tmp_path / "request.json").read_text()) == settings


def test_the_last_process_finishes_and_who_comes_later_begins_anew(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "out.unfinished"
    first, second = (ResumableWork(folder, {"seed": 0}, becomes=out) for _ in range(2))
    first.write("shards/0", b"a")
    assert second.is_done("shards/0")
    assert not first.is_left_alone()
    first.close()
    assert second.is_left_alone()
    second.finish(folder / "shards")
    second.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "0").read_bytes() == b"a"
    third = ResumableWork(folder, {"seed": 1}, becomes=tmp_path / "other")
    assert not third.is_done("shards/0")
    third.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "out.unfinished"
    work = ResumableWork(folder, {"seed": 0}, becomes=out)
    work.write("shards/0", b"a")
    out.mkdir()
    (out / "letter.txt").touch()
    assert work.is_left_alone()
    with pytest.raises(CogViewError, match="was filled meanwhile"):
        work.finish(folder / "shards")
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
    assert work.is_done("shards/0")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for becomes in (None, tmp_path / "out"):
        with pytest.raises(CogViewError, match=r"cannot be written .*give another with --out"):
            ResumableWork(tmp_path / "file" / "work", {"seed": 0}, becomes=becomes)
