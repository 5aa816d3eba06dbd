"""Pictures decoded by worker processes, in order, with a bound on what waits; what cannot be decoded is told."""

import io
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cogview.data.pairs import CaptionedImage, Problem
from cogview.errors import CogViewError, UsageError
from cogview.image.pixels import read_image, resize_and_crop

MAX_FILE_BYTES = 256 * 2**20
CHUNKS_AHEAD = 2  # for each worker

Item = TypeVar("Item")
Result = TypeVar("Result")


class _NamedBytes(io.BytesIO):
    """A file in memory whose name, rather than its address, stands in messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __repr__(self) -> str:
        return repr(self.name)


def decode_image(image: CaptionedImage) -> tuple[Image.Image, bytes] | Problem:
    """Return a picture as upright RGB with the bytes of its file, or what is wrong with it."""
    try:
        if isinstance(image.source, Path) and image.source.stat().st_size > MAX_FILE_BYTES:
            return Problem(where=image.name, reason=f"more than {MAX_FILE_BYTES:,} bytes")
        data = image.source.read_bytes() if isinstance(image.source, Path) else image.source
    except OSError as error:
        return Problem(where=image.name, reason=f"cannot be read ({error.strerror or error})")
    except ValueError as error:  # a name that no file can have
        return Problem(where=image.name, reason=f"cannot be read ({error})")
    try:
        return read_image(_NamedBytes(data, image.name)), data
    except CogViewError as error:
        return Problem(where=image.name, reason=str(error).removeprefix(f"{image.name}: "))


def decode_square(image: CaptionedImage | Problem, size_pixels: int) -> UInt8[np.ndarray, "y x c"] | Problem:
    """Return a picture as a square of pixels, or what is wrong with it; a problem stays one.

    Args:
        image: the picture.
        size_pixels: side of the square.
    """
    if isinstance(image, Problem):
        return image
    decoded = decode_image(image)
    if isinstance(decoded, Problem):
        return decoded
    return np.asarray(resize_and_crop(decoded[0], size_pixels))


def map_in_chunks(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int, chunk_size: int
) -> Iterator[list[tuple[Item, Result]]]:
    """Yield items with their results, chunk by chunk, in order.

    Args:
        function: what to do with each; it can be pickled.
        items: read no further ahead than the workers need, so that they may be many and large.
        num_workers: processes; 0 does the work in this one. A script that asks for some needs the guard
            `if __name__ == "__main__":`, since they are spawned.
        chunk_size: items at a time.

    Raises:
        CogViewError: a worker was killed.
        UsageError: a negative number of processes, or chunks of nothing.
    """
    if num_workers < 0:
        raise UsageError(f"num_workers must be 0 or more, got {num_workers}")
    if chunk_size < 1:
        raise UsageError(f"batch_size must be 1 or more, got {chunk_size}")
    chunks = _chunks(items, chunk_size)
    if num_workers == 0:
        yield from ([(item, function(item)) for item in chunk] for chunk in chunks)
        return
    pending: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    # Spawned, not forked: a fork copies torch's threads' locks.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent
    )
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(_apply, function, chunk)))
            if len(pending) > CHUNKS_AHEAD * num_workers:
                yield _zip(*pending.popleft())
        while pending:
            yield _zip(*pending.popleft())
    except BrokenProcessPool as error:
        raise CogViewError(
            "A worker process that decodes pictures was killed, perhaps for want of memory: use fewer workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    """Ignore interrupts, in a worker process: what is to be done about them is the parent's to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunks(items: Iterable[Item], chunk_size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, chunk_size)):
        yield chunk


def _apply(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _zip(chunk: list[Item], future: Future[list[Result]]) -> list[tuple[Item, Result]]:
    return list(zip(chunk, future.result(), strict=True))
