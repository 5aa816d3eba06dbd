"""The pictures of a data set as one array on disk: decoded once, read at random while the tokenizer trains."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from cogview.data.decoding import decode_square
from cogview.data.image_folder import METADATA
from cogview.data.pairs import CaptionedImage, PairSource, Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError
from cogview.files import scratch_folder

# Pictures that a fingerprint looks at.
FINGERPRINT_PICTURES = 1000

# Pictures that the threads decode before the next are begun; bounds what lies in memory.
CHUNK_PICTURES = 256


class ImageArray:
    """Square pictures, uint8 [n y x c], in a memory-mapped file.

    Args:
        pixels: the array.
    """

    def __init__(self, pixels: UInt8[np.ndarray, "n y x c"]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "y x c"]:
        """Return one picture."""
        picture: np.ndarray = self.pixels[index]
        return picture

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this array from others, by its shape and some of its pictures."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        step = max(1, len(self) // FINGERPRINT_PICTURES)
        for picture in self.pixels[::step]:
            digest.update(picture.tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def from_folder(
        cls,
        source: Path | str,
        size_pixels: int,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        cache_folder: Path | None = None,
    ) -> "ImageArray":
        """Open the pictures of a data set, resized and cropped to squares.

        The first call decodes them into a cache; later calls find them there, unless a file has changed since.
        What cannot be read is left out, with one warning for all of it.

        Args:
            source: an image folder, a folder of WebDataset tars, or one tar.
            size_pixels: side of the squares; 128 takes 49 KB a picture.
            split: only pictures that name this split or none; None takes all.
            progress: called with the pictures done and their number while decoding.
            cache_folder: where the array is kept; `cache` in the data set's folder if not given.

        Raises:
            CogViewError: there is no such data set, none of its pictures can be read, or the cache cannot be written.
        """
        source = Path(source)
        pairs = open_pairs(source, split)
        folder = cache_folder or (source.parent if source.is_file() else source) / "cache"
        path = folder / f"pixels-{size_pixels}-{split or 'all'}-{signature(source)}.npy"
        if not path.is_file():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                problems = decode_into(path, pairs, size_pixels, progress)
            except OSError as error:
                raise CogViewError(
                    f"{path}: cannot be written ({error}); free some space or copy the data"
                ) from error
            if problems:
                warnings.warn(
                    f"{source}: {len(problems):,} pictures left out, first {problems[0]}.", stacklevel=2
                )
        try:
            return cls(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise CogViewError(f"{path}: damaged ({error}); delete it, and it will be made again") from error


def splits_of(source: Path) -> frozenset[str]:
    """Return the splits that the pictures of a data set name.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.

    Raises:
        CogViewError: there is no such data set.
    """
    return frozenset(
        entry.split
        for entry in open_pairs(source)
        if isinstance(entry, CaptionedImage) and entry.split is not None
    )


def signature(source: Path) -> str:
    """Return 12 hexadecimal digits that change when a picture of a data set, or its split, comes, goes or changes."""
    told: list[list[str | None]] = []
    if source.is_file():
        files = [source]
    elif (source / METADATA).is_file() or not any(source.glob("*.tar")):
        entries = [entry for entry in open_pairs(source) if isinstance(entry, CaptionedImage)]
        files = [entry.source for entry in entries if isinstance(entry.source, Path)]
        files.append(source / METADATA)
        # Without metadata, splits stand in a .json beside each picture.
        if any(splits := [entry.split for entry in entries]) and not (source / METADATA).is_file():
            told.append(splits)
    else:
        files = sorted(source.glob("*.tar"))
    described = []
    for file in files:
        status = file.stat() if file.is_file() else None
        described.append([file.name, status and status.st_size, status and status.st_mtime_ns])
    return hashlib.sha256(json.dumps(described + told).encode()).hexdigest()[:12]


def decode_into(
    path: Path, pairs: PairSource, size_pixels: int, progress: Callable[[int, int], None] | None
) -> list[Problem]:
    """Decode pictures into one .npy file, whole or not at all; what a kill left half decoded beside it is removed.

    Returns:
        What was left out.

    Raises:
        CogViewError: nothing could be read.
    """
    problems: list[Problem] = []
    num_decoded = 0
    # Written like any file: a mapped one on a full disk would end the process with a signal.
    with scratch_folder(path.parent, "pixels") as scratch, (scratch / "all.npy").open("wb") as file:
        _write_header(file, len(pairs), size_pixels)
        for num_done, picture in enumerate(squares(pairs, size_pixels), start=1):
            if isinstance(picture, Problem):
                problems.append(picture)
            else:
                file.write(picture.tobytes())
                num_decoded += 1
            if progress is not None:
                progress(num_done, len(pairs))
        if not num_decoded:
            raise CogViewError(
                f"no picture of {path.parent.parent} can be read, first {problems[0]}; see `cogview data check`"
                if problems
                else f"{path.parent.parent} holds no pictures of that split; name another"
            )
        file.seek(0)
        _write_header(file, num_decoded, size_pixels)
        file.close()
        (scratch / "all.npy").replace(path)
    return problems


def _write_header(file: BinaryIO, num_pictures: int, size_pixels: int) -> None:
    """Write the header of an array of squares, which numpy makes equally long for any number of them."""
    shape = (num_pictures, size_pixels, size_pixels, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def squares(pairs: PairSource, size_pixels: int) -> Iterator[UInt8[np.ndarray, "y x c"] | Problem]:
    """Yield the pictures in order as squares of pixels, decoded by threads: Pillow lets them run side by side."""
    decode = partial(decode_square, size_pixels=size_pixels)
    remaining = iter(pairs)
    with ThreadPoolExecutor() as threads:
        while chunk := list(islice(remaining, CHUNK_PICTURES)):
            yield from threads.map(decode, chunk)
