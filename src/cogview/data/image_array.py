"""Memory-mapped array of a data set's pictures, decoded once, for training the image tokenizer."""

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

# At most about so many pictures enter a fingerprint.
FINGERPRINT_PICTURES = 1000

# Pictures decoded at a time, to bound memory.
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
        """16 hexadecimal digits of the array's shape and some of its pictures."""
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

        The first call decodes them into a cache, which later calls use if every byte of the files is the same.
        Captions are not needed. Unreadable pictures are left out, with one warning per call.

        Args:
            source: a folder of pictures or of WebDataset tars or both, or one tar.
            size_pixels: side of the squares; 128 takes 49 KB per picture.
            split: only pictures that name this split or none; None for all.
            progress: called with (pictures done, pictures in all) while decoding.
            cache_folder: folder of the cache; `cache` in the data set's folder by default.

        Raises:
            CogViewError: the data set is missing, none of its pictures can be read, or the cache cannot be written.
        """
        source = Path(source)
        pairs = open_pairs(source, split, captions="optional")
        folder = cache_folder or (source.parent if source.is_file() else source) / "cache"
        name = f"pixels-{size_pixels}-{split or 'all'}"
        path = _cached(folder, name, pairs)
        if path is None:
            try:
                path = decode_into(folder, name, pairs, size_pixels, progress, str(source))
            except OSError as error:
                raise CogViewError(
                    f"{folder / name}: cannot be written ({error}); free some space or copy the data"
                ) from error
        if warning := _left_out(path):
            warnings.warn(f"{source}: {warning}.", stacklevel=2)
        try:
            return cls(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise CogViewError(f"{path}: damaged ({error}); delete it to create it again") from error


class JoinedArrays:
    """Concatenation of arrays of pictures of one size.

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
        """Fingerprints of the arrays, joined by hyphens."""
        return "-".join(each.fingerprint for each in self.arrays)


def splits_of(source: Path) -> frozenset[str]:
    """Return the splits that the pictures of a data set name.

    Args:
        source: a folder of pictures or of WebDataset tars or both, or one tar.

    Raises:
        CogViewError: the data set is missing.
    """
    return frozenset(
        entry.split
        for entry in open_pairs(source, captions="optional")
        if isinstance(entry, CaptionedImage) and entry.split is not None
    )


def _cached(folder: Path, name: str, pairs: PairSource) -> Path | None:
    """Return the cache of exactly these pictures, or None; reads the pictures if there is a candidate."""
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
    """Decode pictures into one .npy file, whole or not at all, and return its path.

    A small file beside it says which pictures were left out.

    Args:
        folder: folder of the file.
        name: file name up to the digest of the pictures.
        pairs: the pictures.
        size_pixels: side of the squares.
        progress: called with (pictures done, pictures in all).
        source: name of the data set in messages.

    Raises:
        CogViewError: no picture can be read.
    """
    problems: list[Problem] = []
    num_decoded = num_done = 0
    digest = hashlib.sha256()
    num_all = len(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    # Not memory-mapped: on a full disk that would kill the process with a signal.
    with temporary_folder(folder / "pixels") as temporary, (temporary / "all.npy").open("wb") as file:
        _write_header(file, num_all, size_pixels)
        for picture_digest, picture in squares(pairs, size_pixels):
            digest.update(picture_digest)
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
            warning = f"{len(problems):,} pictures left out, first {problems[0]}"
            atomic_write_json(_warning_file(path), {"left_out": warning})
        else:
            _warning_file(path).unlink(missing_ok=True)
        (temporary / "all.npy").replace(path)
    return path


def _warning_file(path: Path) -> Path:
    return path.with_suffix(".left-out")  # a .json could be taken for a caption


def _left_out(path: Path) -> str:
    """Return the warning about pictures left out of a cache, "" if there is none."""
    try:
        warning = parse_json(read_bounded(_warning_file(path)))["left_out"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return warning if isinstance(warning, str) else ""


def _write_header(file: BinaryIO, num_pictures: int, size_pixels: int) -> None:
    """Write the header of an array of squares; numpy pads it, so that it can be overwritten with the final number."""
    shape = (num_pictures, size_pixels, size_pixels, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def squares(
    pairs: PairSource, size_pixels: int
) -> Iterator[tuple[bytes, UInt8[np.ndarray, "y x c"] | Problem]]:
    """Yield each picture's digest and its square of pixels, in order; decoded by threads, as Pillow frees the GIL."""

    def decode(entry: Entry) -> tuple[bytes, UInt8[np.ndarray, "y x c"] | Problem]:
        data = read_bytes(entry)
        return pixels_digest(entry, data), decode_square(entry, size_pixels, data)

    with ThreadPoolExecutor() as threads:
        for chunk in in_chunks(pairs, CHUNK_PICTURES):
            yield from threads.map(decode, chunk)
