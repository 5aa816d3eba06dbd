"""Real pictures of clothing: Fashion-MNIST as a folder of captioned pictures.

Debian's package `dataset-fashion-mnist` (MIT) has 70,000 grey product pictures of 28 x 28 pixels in ten classes, as
four gzipped IDX files. They are negated, from bright on black back to the white ground of the photographs.

Paper: 3.4; its ten million pictures are not available.
"""

import gzip
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.files import regular_file
from cogview.world.captioned_folder import CaptionedPicture, check_empty_folder, write_captioned_folder
from cogview.world.config import ClothingDataConfig

PACKAGE = "dataset-fashion-mnist"
FILES_IN_PACKAGE = Path("usr/share/datasets/fashion-mnist")
FETCH_TIMEOUT_SECONDS = 300
NATIVE_PIXELS = 28
PADDED_PIXELS = 32
HELD_OUT_SPLIT = "held-out"

# Each class in English, in Chinese with its measure word, in the order of the collection's labels.
CLASSES: tuple[tuple[str, str, str], ...] = (
    ("a T-shirt", "一件", "T恤"),
    ("trousers", "一条", "裤子"),
    ("a pullover", "一件", "套头衫"),
    ("a dress", "一条", "连衣裙"),
    ("a coat", "一件", "外套"),
    ("a sandal", "一只", "凉鞋"),
    ("a shirt", "一件", "衬衫"),
    ("a sneaker", "一只", "运动鞋"),
    ("a bag", "一个", "包"),
    ("an ankle boot", "一只", "短靴"),
)

CREDITS = """The pictures in this folder are made from Fashion-MNIST, (c) 2017 Zalando SE, https://tech.zalando.com,
under the MIT licence: https://github.com/zalandoresearch/fashion-mnist. Changes: negated, padded and enlarged.
"""


def class_texts(label: int) -> list[str]:
    """Return the captions of a class in both languages."""
    english, measure, chinese = CLASSES[label]
    return [english, f"a photo of {english}", chinese, f"{measure}{chinese}", f"{measure}{chinese}的照片"]


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read a gzipped IDX file of bytes.

    Format, big-endian: two zero bytes, 8 for bytes, the number of dimensions, each dimension, the data.

    Raises:
        CogViewError: the file is missing, damaged or of another type.
    """
    try:
        data = gzip.decompress(regular_file(path).read_bytes())
        zero, kind, num_dimensions = struct.unpack_from(">HBB", data)
        if (zero, kind) != (0, 8):
            raise ValueError("not an IDX file of bytes")
        shape = struct.unpack_from(f">{num_dimensions}I", data, 4)
        return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CogViewError(
            f"{path} cannot be read ({reason}): give the folder of {PACKAGE}'s .gz files with --data.source, or "
            "--data.fetch to have the package fetched with apt-get"
        ) from error


def build_clothing_data(
    config: ClothingDataConfig, out: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Build the folder of pictures of clothing.

    Args:
        config: of the data set.
        out: the folder to make; it must not exist, or be empty.
        progress: called with (pictures done, pictures in all) from time to time.

    Returns:
        The number of pictures of each split.

    Raises:
        UsageError: a number is out of range or `out` is not empty.
        CogViewError: the package's files are missing or cannot be fetched, or the disk refuses.
    """
    if config.size_pixels < NATIVE_PIXELS:
        raise UsageError(f"size_pixels is {config.size_pixels}; wanted at least {NATIVE_PIXELS}")
    check_empty_folder(out)
    sizes = {"train": config.num_train, HELD_OUT_SPLIT: config.num_held_out}
    with _package_files(config) as source:
        parts = {
            "train": _read_part(source, "train", config.num_train, "num_train"),
            HELD_OUT_SPLIT: _read_part(source, "t10k", config.num_held_out, "num_held_out"),
        }
    write_captioned_folder(
        out,
        (
            CaptionedPicture(
                image=enlarged(picture, config.size_pixels),
                texts=class_texts(int(label)),
                split=split,
                facts={"class": int(label)},
            )
            for split, (pictures, labels) in parts.items()
            for picture, label in zip(pictures, labels, strict=True)
        ),
        total=sum(sizes.values()),
        description={
            "format": "cogview-clothing-data",
            "version": 1,
            "config": {**sizes, "size_pixels": config.size_pixels},
            "packages": [{"name": PACKAGE, "licence": "MIT", "author": "Zalando SE"}],
        },
        credits=CREDITS,
        progress=progress,
    )
    return {split: number for split, number in sizes.items() if number}


def enlarged(picture: UInt8[np.ndarray, "28 28"], size_pixels: int) -> Image.Image:
    """Negate, pad and resize a picture.

    Args:
        picture: bright on black, as in the collection.
        size_pixels: side of the result.
    """
    margin = (PADDED_PIXELS - NATIVE_PIXELS) // 2
    padded = np.pad(255 - picture, margin, constant_values=255)
    return Image.fromarray(padded).resize((size_pixels, size_pixels), Image.Resampling.BICUBIC).convert("RGB")


def _read_part(
    source: Path, name: str, number: int, field: str
) -> tuple[UInt8[np.ndarray, "n 28 28"], UInt8[np.ndarray, "n"]]:
    """Return the first pictures of a part of the collection, with their classes."""
    pictures = read_idx(source / f"{name}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{name}-labels-idx1-ubyte.gz")
    side = (NATIVE_PIXELS, NATIVE_PIXELS)
    if pictures.shape[1:] != side or labels.shape != pictures.shape[:1] or labels.max() >= len(CLASSES):
        raise CogViewError(
            f"{source} does not contain Fashion-MNIST ({name}: {pictures.shape}, labels {labels.shape}); "
            f"give the folder of {PACKAGE}'s files with --data.source"
        )
    if not 0 <= number <= len(labels):
        raise UsageError(f"{field} is {number}; the collection has {len(labels)} for it")
    return pictures[:number], labels[:number]


@contextmanager
def _package_files(config: ClothingDataConfig) -> Iterator[Path]:
    """Yield the folder of the package's files: the user's, or a temporary one with the fetched package."""
    if not config.fetch:
        if not config.source.is_dir():
            raise CogViewError(
                f"{config.source} is not a folder: install Debian's {PACKAGE}, give the folder of its .gz files with "
                "--data.source, or --data.fetch to have the package fetched with apt-get"
            )
        yield config.source
        return
    with tempfile.TemporaryDirectory() as temporary:
        _run(["apt-get", "download", PACKAGE], temporary)
        (package,) = Path(temporary).glob(f"{PACKAGE}_*.deb")
        _run(["dpkg-deb", "-x", str(package), "files"], temporary)
        yield Path(temporary) / "files" / FILES_IN_PACKAGE


def _run(command: list[str], folder: str) -> None:
    """Run a command in a folder.

    Raises:
        CogViewError: it is not installed, or fails.
    """
    if shutil.which(command[0]) is None:
        raise CogViewError(
            f"{command[0]} is not installed here: fetch {PACKAGE} on a Debian machine, unpack it with `dpkg -x`, and "
            "give the folder of its .gz files with --data.source"
        )
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_SECONDS, check=False
        )
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        reason, failed = f"no end within {FETCH_TIMEOUT_SECONDS} s", True
    if failed:
        raise CogViewError(
            f"`{' '.join(command[:2])}` failed ({reason}): check the network and `apt-get update`, or give the folder "
            "of the package's .gz files with --data.source"
        )
