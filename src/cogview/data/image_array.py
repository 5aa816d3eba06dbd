"""The pictures of a data set as one array on disk: decoded once, read at random while the tokenizer trains."""

import glob
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from cogview.data.content import digest_of_pixels, pixels_digest
from cogview.data.decoding import decode_square, in_chunks, read_bytes
from cogview.data.pairs import CaptionedImage, Entry, PairSource, Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError
from cogview.files import atomic_write_json, read_bounded
from cogview.folders import temporary_folder
from cogview.plain_json import parse_json

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

        The first call decodes them into a cache; later calls read the files, and find them there if every byte is the
        same. Captions are not needed. What cannot be read is left out, with one warning for all of it at each call.

        Args:
            source: a folder of pictures or of WebDataset tars or both, or one tar.
            size_pixels: side of the squares; 128 takes 49 KB a picture.
            split: only pictures that name this split or none; None takes all.
            progress: called with the pictures done and their number while decoding.
            cache_folder: where the array is kept; `cache` in the data set's folder if not given.

        Raises:
            CogViewError: there is no such data set, none of its pictures can be read, or the cache cannot be written.
        """
        source = Path(source)
        pairs = open_pairs(source, split, captions="optional")
        folder = cache_folder or (source.parent if source.is_file() else source) / "cache"
        name = f"pixels-{size_pixels}-{split or 'all'}"
        path = _kept(folder, name, pairs)
        if path is None:
            try:
                path = decode_into(folder, name, pairs, size_pixels, progress, str(source))
            except OSError as error:
                raise CogViewError(
                    f"{folder / name}: cannot be written ({error}); free some space or copy the data"
                ) from error
        if told := _left_out(path):
            warnings.warn(f"{source}: {told}.", stacklevel=2)
        try:
            return cls(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise CogViewError(f"{path}: damaged ({error}); delete it, and it will be made again") from error


class JoinedArrays:
    """Several arrays of pictures of one size as one, one after the other.

    Args:
        arrays: one or more.
    """

    def __init__(self, arrays: Sequence[ImageArray]) -> None:
        self.arrays = list(arrays)
        self._ends = np.cumsum([len(each) for each in self.arrays])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "y x c"]:
        """Return one picture."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.arrays[number][index - int(self._ends[number])]

    @property
    def fingerprint(self) -> str:
        """Those of the arrays."""
        return "-".join(each.fingerprint for each in self.arrays)


def splits_of(source: Path) -> frozenset[str]:
    """Return the splits that the pictures of a data set name.

    Args:
        source: a folder of pictures or of WebDataset tars or both, or one tar.

    Raises:
        CogViewError: there is no such data set.
    """
    return frozenset(
        entry.split
        for entry in open_pairs(source, captions="optional")
        if isinstance(entry, CaptionedImage) and entry.split is not None
    )


def _kept(folder: Path, name: str, pairs: PairSource) -> Path | None:
    """Return the cache of the very same pictures, None if there is none; the pictures are read for it."""
    if not any(folder.glob(f"{glob.escape(name)}-*.npy")):
        return None
    path = folder / f"{name}-{digest_of_pixels(pairs)}.npy"
    return path if path.is_file() else None


def decode_into(
    folder: Path,
    name: str,
    pairs: PairSource,
    size_pixels: int,
    progress: Callable[[int, int], None] | None,
    source: str,
) -> Path:
    """Decode pictures into one .npy file, whole or not at all; what a kill left half decoded beside it is removed.

    What was left out is told in a small file beside it.

    Args:
        folder: where to.
        name: of the file, but for the digest of the pictures.
        pairs: the pictures.
        size_pixels: side of the squares.
        progress: called with the pictures done and their number.
        source: what messages call the data set.

    Returns:
        The file.

    Raises:
        CogViewError: nothing could be read.
    """
    problems: list[Problem] = []
    num_decoded = num_done = 0
    digest = hashlib.sha256()
    num_all = len(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    # Written like any file: a mapped one on a full disk would end the process with a signal.
    with temporary_folder(folder / "pixels") as temporary, (temporary / "all.npy").open("wb") as file:
        _write_header(file, num_all, size_pixels)
        for of_entry, picture in squares(pairs, size_pixels):
            digest.update(of_entry)
            if isinstance(picture, Problem):
                if not picture.is_passed_over:
                    problems.append(picture)
            else:
                file.write(picture.tobytes())
                num_decoded += 1
            num_done += not (isinstance(picture, Problem) and picture.is_passed_over)
            if progress is not None:
                progress(num_done, max(num_done, num_all))
        if not num_decoded:
            raise CogViewError(
                f"no picture of {source} can be read, first {problems[0]}; see `cogview data check`"
                if problems
                else f"{source} holds no pictures of that split; name another"
            )
        file.seek(0)
        _write_header(file, num_decoded, size_pixels)
        file.close()
        path = folder / f"{name}-{digest.hexdigest()[:16]}.npy"
        if problems:
            told = f"{len(problems):,} pictures left out, first {problems[0]}"
            atomic_write_json(_told_beside(path), {"left_out": told})
        else:
            _told_beside(path).unlink(missing_ok=True)
        (temporary / "all.npy").replace(path)
    return path


def _told_beside(path: Path) -> Path:
    return path.with_suffix(".left-out")  # a .json could be taken for a caption


def _left_out(path: Path) -> str:
    """Return what was left out of a cache, "" if nothing was, or if an earlier version made it, which did not say."""
    try:
        told = parse_json(read_bounded(_told_beside(path)))["left_out"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return told if isinstance(told, str) else ""


def _write_header(file: BinaryIO, num_pictures: int, size_pixels: int) -> None:
    """Write the header of an array of squares, which numpy makes equally long for any number of them."""
    shape = (num_pictures, size_pixels, size_pixels, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def squares(
    pairs: PairSource, size_pixels: int
) -> Iterator[tuple[bytes, UInt8[np.ndarray, "y x c"] | Problem]]:
    """Yield the pictures in order as squares of pixels, decoded by threads: Pillow lets them run side by side.

    With each comes its digest.
    """

    def decode(entry: Entry) -> tuple[bytes, UInt8[np.ndarray, "y x c"] | Problem]:
        data = read_bytes(entry)
        return pixels_digest(entry, data), decode_square(entry, size_pixels, data)

    with ThreadPoolExecutor() as threads:
        for chunk in in_chunks(pairs, CHUNK_PICTURES):
            yield from threads.map(decode, chunk)
