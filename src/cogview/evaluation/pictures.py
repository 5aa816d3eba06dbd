"""Batches of a data set's pictures, for evaluation."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cogview.data.decoding import decode_square, map_in_chunks
from cogview.data.pairs import Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError, UsageError


class PictureBatches:
    """Iterable of batches of pictures as squares of one size, uint8 [b y x c].

    Captions are not needed. `num_pictures` and `problems` are of the last iteration.

    Args:
        source: a folder of pictures or of WebDataset tars or both, or one tar.
        size_pixels: side of the squares.
        split: only pictures that name this split or none; None for all.
        max_pictures: largest number of pictures; None for all.
        batch_size: largest number of pictures in a batch.
        num_workers: worker processes that decode; 0 for this process.
        progress: called with (pictures done, pictures in all).

    Raises:
        CogViewError: the source is missing, or has no pictures.
        UsageError: `max_pictures` is less than 1.
    """

    def __init__(
        self,
        source: Path,
        size_pixels: int,
        *,
        split: str | None = None,
        max_pictures: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if max_pictures is not None and max_pictures < 1:
            raise UsageError(f"max_pictures must be 1 or more, got {max_pictures}")
        self._source, self._pairs = source, open_pairs(source, split, captions="optional")
        self._decode = partial(decode_square, size_pixels=size_pixels)
        self._max_pictures, self._progress = max_pictures, progress
        self._batch_size, self._num_workers = batch_size, num_workers
        self.num_pictures = 0
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "_ y x c"]]:
        """Yield batches of pictures in the order of the data set.

        Raises:
            CogViewError: none of the pictures can be read.
        """
        self.num_pictures, self.problems = 0, []
        num_wanted = self._max_pictures or len(self._pairs)
        num_all = min(num_wanted, len(self._pairs))
        for chunk in map_in_chunks(self._decode, self._pairs, self._num_workers, self._batch_size):
            squares: list[np.ndarray] = []
            for _, square in chunk:
                if isinstance(square, Problem):
                    self.problems.append(square)
                elif self.num_pictures < num_wanted:
                    self.num_pictures += 1
                    squares.append(square)
            if squares:
                yield np.stack(squares)
            if self._progress is not None:
                num_lost = sum(not problem.is_passed_over for problem in self.problems)
                num_done = self.num_pictures + (0 if self._max_pictures else num_lost)
                self._progress(num_done, max(num_done, num_all))
            if self.num_pictures == num_wanted:
                break
        if not self.num_pictures:
            raise CogViewError(
                f"{self._source} has no pictures that can be read; the first of {len(self.problems):,} problems: "
                f"{min(self.problems, key=lambda problem: problem.is_passed_over)}. "
                f"See `cogview data check {self._source}`."
            )
