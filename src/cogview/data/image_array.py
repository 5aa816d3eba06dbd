"""The pictures of an image folder as one array on disk: decoded once, read at random while the tokenizer trains."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cogview.errors import CogViewError
from cogview.image.pixels import read_image, resize_and_crop

# Pictures decoded at once by the threads before the next ones are begun; bounds what lies in memory.
CHUNK_PICTURES = 256


class ImageArray:
    """Square pictures, uint8 [n y x c], in a memory-mapped file.

    Args:
        pixels: the array.
    """

    def __init__(self, pixels: UInt8[np.ndarray, "n y x c"]):
        self.pixels = pixels

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "y x c"]:
        """Return one picture."""
        picture: np.ndarray = self.pixels[index]
        return picture

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        size_pixels: int,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> "ImageArray":
        """Open the pictures of an image folder, resized and cropped to squares.

        The first call decodes them into FOLDER/cache; later calls find them there, unless `metadata.jsonl` has changed.

        Args:
            folder: holds `metadata.jsonl` and the files that its lines name.
            size_pixels: side of the squares; 128 takes 49 KB a picture.
            split: only lines whose field `split` says so; None takes all.
            progress: called with the pictures done and their number while decoding.

        Raises:
            CogViewError: there is no such folder, a line or a picture cannot be read, or nothing is left.
        """
        folder = Path(folder)
        names = picture_names(folder, split)
        key = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]
        path = folder / "cache" / f"pixels-{size_pixels}-{split or 'all'}-{key}.npy"
        if not path.is_file():
            decode_into(path, [folder / name for name in names], size_pixels, progress)
        return cls(np.load(path, mmap_mode="r"))


def picture_names(folder: Path, split: str | None) -> list[str]:
    """Return the file names of the pictures in `metadata.jsonl`, in its order."""
    path = folder / "metadata.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CogViewError(
            f"{path}: cannot be read ({error}); give an image folder with metadata.jsonl"
        ) from error
    names = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if split is None or entry.get("split") == split:
                names.append(str(entry["file_name"]))
        except (ValueError, KeyError, AttributeError) as error:
            raise CogViewError(
                f'{path}: line {number} is not a JSON object with a "file_name"; mend it'
            ) from error
    if not names:
        raise CogViewError(
            f"{path}: no pictures" + (f' with split "{split}"' if split else "") + "; add some"
        )
    return names


def decode_into(
    path: Path, files: list[Path], size_pixels: int, progress: Callable[[int, int], None] | None
) -> None:
    """Decode pictures into one .npy file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        shape = (len(files), size_pixels, size_pixels, 3)
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        done = 0
        with ThreadPoolExecutor() as threads:
            remaining = iter(files)
            while chunk := list(islice(remaining, CHUNK_PICTURES)):
                squares: Iterable[np.ndarray] = threads.map(lambda file: square(file, size_pixels), chunk)
                for picture in squares:
                    pixels[done] = picture
                    done += 1
                if progress is not None:
                    progress(done, len(files))
        pixels.flush()
        del pixels
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def square(file: Path, size_pixels: int) -> UInt8[np.ndarray, "y x c"]:
    """Return a picture file as a square of pixels."""
    return np.asarray(resize_and_crop(read_image(file), size_pixels))
