"""Arrays that are computed shard by shard, as resumable work."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from cogview.data.ranks import Ranks
from cogview.errors import CogViewError
from cogview.files import regular_file
from cogview.resumable import ResumableWork


@dataclass(frozen=True, kw_only=True)
class ShardedArray:
    """Array in shards, which are dealt out in turn to the ranks.

    Args:
        work: the resumable work that stores the shards.
        name: name of their folder in it.
        num_rows: number of rows of the array.
        rows_per_shard: rows per shard; the last may have fewer.
    """

    work: ResumableWork
    name: str
    num_rows: int
    rows_per_shard: int

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.rows_per_shard)

    def rows(self, shard: int) -> range:
        """Return the numbers of a shard's rows."""
        first = shard * self.rows_per_shard
        return range(first, min(first + self.rows_per_shard, self.num_rows))

    def missing(self, ranks: Ranks | None = None) -> list[int]:
        """Return the missing shards of a rank, or of all."""
        return [
            shard
            for shard in range(self.num_shards)
            if (ranks is None or ranks.takes(shard)) and not self.work.is_done(self._file(shard))
        ]

    def fill(
        self,
        make: Callable[[range], Shaped[np.ndarray, "_ ..."]],
        ranks: Ranks | None = None,
        *,
        progress: Callable[[int, int], None] = lambda done, num: None,
        estimated: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Compute the missing shards of a rank, or of all.

        Args:
            make: function from row numbers to rows.
            ranks: the rank; None for all shards.
            progress: called with (rows done, rows in all).
            estimated: called once after the first shard, with the estimated seconds that are left.
        """
        missing = self.missing(ranks)
        num_all, num_done, start = sum(len(self.rows(shard)) for shard in missing), 0, time.monotonic()
        for shard in missing:
            rows, data = make(self.rows(shard)), io.BytesIO()
            assert len(rows) == len(self.rows(shard))
            np.save(data, rows, allow_pickle=False)
            self.work.write(self._file(shard), data.getvalue())
            num_done += len(rows)
            if shard == missing[0]:
                estimated((time.monotonic() - start) * (num_all - num_done) / num_done)
            progress(num_done, num_all)

    def read(self, shard: int) -> Shaped[np.ndarray, "_ ..."]:
        """Return an existing shard.

        Raises:
            CogViewError: its file is damaged.
        """
        path = self.work.folder / self._file(shard)
        try:
            rows = np.load(regular_file(path), allow_pickle=False)
            if len(rows) != len(self.rows(shard)):
                raise ValueError(f"{len(rows)} rows, wanted {len(self.rows(shard))}")
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise CogViewError(
                f"{path} is damaged ({error}): delete it and give the same command again"
            ) from error
        return np.asarray(rows)

    def read_all(self) -> Shaped[np.ndarray, "_ ..."]:
        """Return all rows, when no shard is missing."""
        return np.concatenate([self.read(shard) for shard in range(self.num_shards)])

    def await_all(self, waiting: Callable[[int], None], seconds_between: float = 1.0) -> None:
        """Wait until other processes have computed the missing shards; `waiting` is called with their number."""
        while missing := self.missing():
            waiting(len(missing))
            time.sleep(seconds_between)

    def _file(self, shard: int) -> str:
        return f"{self.name}/{shard:06d}.npy"
