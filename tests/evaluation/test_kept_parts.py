"""Work in parts: it goes on where it was, for the same request only, and several processes share it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cogview.data.ranks import Ranks
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.kept_parts import KeptParts, begin_or_go_on


def test_parts_are_kept_and_dealt_out(tmp_path: Path) -> None:
    parts = KeptParts(folder=tmp_path / "codes", num_items=10, items_per_part=4)
    assert [list(parts.items(part)) for part in range(parts.num_parts)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    first, second = Ranks(rank=0, num_ranks=2), Ranks(rank=1, num_ranks=2)
    assert (parts.lacking(first), parts.lacking(second), parts.lacking()) == ([0, 2], [1], [0, 1, 2])
    rows = np.arange(20).reshape(10, 2)
    for part in (2, 0):
        parts.write(part, rows[list(parts.items(part))])
    assert (parts.lacking(first), parts.lacking()) == ([], [1])
    told: list[int] = []

    def other_process(lacking: int) -> None:
        told.append(lacking)
        parts.write(1, rows[4:8])

    parts.await_all(other_process, seconds_between=0.0)
    assert told == [1]
    assert np.array_equal(parts.read_all(), rows)


def test_a_damaged_part_is_one_line(tmp_path: Path) -> None:
    parts = KeptParts(folder=tmp_path, num_items=4, items_per_part=4)
    parts.write(0, np.zeros((4, 2)))
    path = tmp_path / "000000.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(CogViewError, match=r"000000\.npy is damaged \(3 rows, wanted 4\)"):
        parts.read(0)
    path.write_bytes(b"nothing")
    with pytest.raises(CogViewError, match=r"000000\.npy is damaged"):
        parts.read(0)


def test_work_goes_on_for_the_same_request_only(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    request = {"seed": 0, "top_k": None, "captions": "abc"}
    begin_or_go_on(out, request)
    begin_or_go_on(out, request)
    with pytest.raises(UsageError, match="seed was 0, now 1; num was None, now 2"):
        begin_or_go_on(out, request | {"seed": 1, "num": 2})
    (out / "request.json").write_text("[")
    with pytest.raises(CogViewError, match="is damaged"):
        begin_or_go_on(out, request)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        begin_or_go_on(tmp_path / "other", request)
    with pytest.raises(UsageError, match="is a file"):
        begin_or_go_on(tmp_path / "other" / "letter.txt", request)


def test_processes_that_begin_at_once_do_not_take_each_others_work_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        begin_or_go_on(folder, {"seed": 0})
        (folder / "codes").mkdir()
        return folder.iterdir()

    monkeypatch.setattr(Path, "iterdir", after_another)
    begin_or_go_on(tmp_path, {"seed": 0})
    assert (tmp_path / "codes").is_dir()


def test_a_part_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "codes").touch()
    parts = KeptParts(folder=tmp_path / "codes", num_items=4, items_per_part=4)
    with pytest.raises(CogViewError, match=r"000000\.npy cannot be written"):
        parts.write(0, np.zeros((4, 2)))
