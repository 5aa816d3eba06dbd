"""Reading and decoding of pictures."""

import io
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from cogview.data.pairs import CaptionedImage, Entry, Problem
from cogview.errors import UsageError
from cogview.image.picture_reading import ReadImage, UnusableImage, read_image_and_changes, resize_and_crop
from cogview.workers import map_in_order

MAX_FILE_BYTES = 256 * 2**20
# Pictures of tars are held in memory, and those of compressed tars take far more of it than on disk.
MAX_CHUNK_BYTES = 512 * 2**20

Result = TypeVar("Result")


class _NamedBytes(io.BytesIO):
    """File in memory with a name for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __repr__(self) -> str:
        return repr(self.name)


def read_bytes(image: Entry) -> bytes | Problem:
    """Return the bytes of a picture's file, or a problem; pass problems on."""
    if isinstance(image, Problem):
        return image
    if not isinstance(image.source, Path):
        return image.source
    try:
        status = image.source.stat()
        # Reading a pipe may block forever; a device may have no end.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return Problem(where=image.name, kind="unreadable", reason="a pipe or a device, no file")
        if status.st_size > MAX_FILE_BYTES:
            return Problem(where=image.name, kind="too large", reason=f"more than {MAX_FILE_BYTES:,} bytes")
        return image.source.read_bytes()
    except OSError as error:
        return Problem(
            where=image.name,
            kind="missing" if isinstance(error, FileNotFoundError) else "unreadable",
            reason=f"cannot be read ({error.strerror or error})",
        )
    except ValueError as error:  # an impossible file name
        return Problem(where=image.name, kind="unreadable", reason=f"cannot be read ({error})")


def decode_image(image: Entry, data: bytes | Problem | None = None) -> ReadImage | Problem:
    """Return a picture as upright RGB, or a problem; pass problems on.

    Args:
        image: the picture.
        data: the result of `read_bytes`, if there is one already.
    """
    if isinstance(image, Problem):
        return image
    data = read_bytes(image) if data is None else data
    if isinstance(data, Problem):
        return data
    try:
        return read_image_and_changes(_NamedBytes(data, image.name), orientation=image.orientation)
    except UnusableImage as error:
        reason = str(error).removeprefix(f"{image.name}: ")
        return Problem(where=image.name, kind=error.fault, reason=reason)


def decode_square(
    image: Entry, size_pixels: int, data: bytes | Problem | None = None
) -> UInt8[np.ndarray, "y x c"] | Problem:
    """Return a picture resized and cropped to a square, or a problem; pass problems on.

    Args:
        image: the picture.
        size_pixels: side of the square.
        data: the result of `read_bytes`, if there is one already.
    """
    decoded = decode_image(image, data)
    return decoded if isinstance(decoded, Problem) else np.asarray(resize_and_crop(decoded.rgb, size_pixels))


def map_in_chunks(
    function: Callable[[Entry], Result], items: Iterable[Entry], num_workers: int, chunk_size: int
) -> Iterator[list[tuple[Entry, Result]]]:
    """Yield items with their results, chunk by chunk, in order.

    Args:
        function: picklable function of an item.
        items: read lazily.
        num_workers: as of `map_in_order`.
        chunk_size: items per chunk.

    Raises:
        CogViewError: a worker was killed.
        UsageError: `num_workers` is negative or `chunk_size` is not positive.
    """
    if chunk_size < 1:
        raise UsageError(f"batch_size must be 1 or more, got {chunk_size}")
    chunks = in_chunks(items, chunk_size)
    for chunk, results in map_in_order(partial(_apply, function), chunks, num_workers, num_bytes_held):
        yield list(zip(chunk, results, strict=True))


def num_bytes_held(entries: Iterable[Entry]) -> int:
    """Return the bytes of pictures that entries hold in memory; pictures in files count 0."""
    return sum(
        len(entry.source)
        for entry in entries
        if isinstance(entry, CaptionedImage) and isinstance(entry.source, bytes)
    )


def in_chunks(entries: Iterable[Entry], chunk_size: int) -> Iterator[list[Entry]]:
    """Yield lists of `chunk_size` entries, shorter where they exceed `MAX_CHUNK_BYTES`."""
    chunk: list[Entry] = []
    held = 0
    for entry in entries:
        chunk.append(entry)
        held += num_bytes_held([entry])
        if len(chunk) == chunk_size or held > MAX_CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _apply(function: Callable[[Entry], Result], chunk: list[Entry]) -> list[Result]:
    return [function(item) for item in chunk]
