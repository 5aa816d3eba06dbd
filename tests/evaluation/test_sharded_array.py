"""Arrays in shards: what is there is not made again, and several processes share the rest."""

from pathlib import Path

import numpy as np
import pytest

from cogview.data.ranks import Ranks
from cogview.errors import CogViewError
from cogview.evaluation.sharded_array import ShardedArray
from cogview.resumable import ResumableWork


def work_in(folder: Path) -> ResumableWork:
    return ResumableWork(folder, {"seed": 0})


def halves(rows: range) -> np.ndarray:
    return np.stack([np.array(rows), np.array(rows) + 0.5], 1)


def test_shards_are_kept_and_dealt_out(tmp_path: Path) -> None:
    array = ShardedArray(work=work_in(tmp_path), name="codes", num_rows=10, rows_per_shard=4)
    assert [list(array.rows(shard)) for shard in range(array.num_shards)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    first, second = Ranks(rank=0, num_ranks=2), Ranks(rank=1, num_ranks=2)
    assert (array.missing(first), array.missing(second), array.missing()) == ([0, 2], [1], [0, 1, 2])
    array.fill(halves, first)
    assert (array.missing(first), array.missing()) == ([], [1])
    told: list[int] = []

    def other_process(missing: int) -> None:
        told.append(missing)
        array.fill(halves, second)

    array.await_all(other_process, seconds_between=0.0)
    assert told == [1]
    assert np.array_equal(array.read_all(), np.arange(20).reshape(10, 2) / 2)


def test_a_damaged_shard_is_one_line(tmp_path: Path) -> None:
    array = ShardedArray(work=work_in(tmp_path), name="codes", num_rows=4, rows_per_shard=4)
    array.fill(halves)
    path = tmp_path / "codes" / "000000.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(CogViewError, match=r"000000\.npy is damaged \(3 rows, wanted 4\): delete it"):
        array.read(0)
    path.write_bytes(b"nothing")
    with pytest.raises(CogViewError, match=r"000000\.npy is damaged"):
        array.read(0)


def test_a_shard_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    array = ShardedArray(work=work_in(tmp_path), name="codes", num_rows=4, rows_per_shard=4)
    (tmp_path / "codes").touch()
    with pytest.raises(CogViewError, match=r"000000\.npy cannot be written .*the same command goes on"):
        array.fill(halves)


def test_what_is_missing_is_made_and_told(tmp_path: Path) -> None:
    array = ShardedArray(work=work_in(tmp_path), name="codes", num_rows=10, rows_per_shard=4)
    array.fill(halves, Ranks(rank=1, num_ranks=2))
    asked: list[range] = []
    told: list[tuple[int, int]] = []
    left: list[float] = []

    def make(rows: range) -> np.ndarray:
        asked.append(rows)
        return halves(rows)

    array.fill(make, progress=lambda *done: told.append(done), estimated=left.append)
    assert (asked, told, len(left)) == ([range(4), range(8, 10)], [(4, 6), (6, 6)], 1)
    array.fill(make)
    assert len(asked) == 2
