"""Pictures at the edges: files to upright RGB. PyTorch is not needed."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from cogview.errors import CogViewError
from cogview.image.extras import JPEG, PNG, without_extras
from cogview.image.formats import AVIF, FORMATS, HEAD_BYTES, format_of, not_read
from cogview.image.orientation import orientation_of, set_upright

# About a 12,000 x 8,000 photograph; a small file can claim far more and fill the memory.
MAX_PIXELS = 100_000_000

Source: TypeAlias = Path | str | BufferedReader | BytesIO

Fault: TypeAlias = Literal[
    "missing", "empty", "no picture", "truncated", "damaged", "too large", "unknown range"
]
"""Why a picture cannot be used."""

Change: TypeAlias = Literal["animated", "CMYK", "16-bit", "32-bit", "palette", "alpha", "turned"]
"""What a picture was that upright 8-bit RGB is not."""

CHANGES: dict[Change, str] = {
    "animated": "only the first frame was taken",
    "CMYK": "inks were turned into RGB",
    "16-bit": "scaled to 8 bits",
    "32-bit": "32-bit numbers were scaled to 8 bits",
    "palette": "colours were looked up in its palette",
    "alpha": "laid on white",
    "turned": "set upright as the .json beside it tells, since the file itself says nothing",
}
"""What is done about each."""

# Filters of warnings belong to the whole process, and pictures are read by several threads.
_filters = threading.Lock()


class UnusableImage(CogViewError):
    """A file is no picture that can be used.

    Args:
        message: one line.
        fault: the kind of reason.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImage:
    """A picture, and what was done to have it.

    Args:
        rgb: the picture, upright, transparency laid on white.
        changes: in what its file was more than 8-bit RGB.
    """

    rgb: Image.Image
    changes: tuple[Change, ...]


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright RGB, transparency laid on white; of an animation the first frame.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        UnusableImage: there is no such file, it is not a picture, it is damaged or too large.
    """
    return read_image_and_changes(source, max_pixels).rgb


def read_image_and_changes(
    source: Source, max_pixels: int = MAX_PIXELS, orientation: int | None = None
) -> ReadImage:
    """Read a picture as `read_image` does, and say in what its file differs from 8-bit RGB.

    The pixels decide whether it is whole: texts, profiles and EXIF may be anything.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.
        orientation: EXIF orientation that is known from elsewhere; one that the file itself tells goes before it.

    Raises:
        UnusableImage: there is no such file, it is not a picture, it is damaged or too large.
    """
    name = str(source) if isinstance(source, Path | str) else getattr(source, "name", "the picture")
    try:
        try:
            return _read(source, max_pixels, orientation)
        except (UnusableImage, Image.DecompressionBombError, FileNotFoundError, IsADirectoryError):
            raise
        # Pillow's decoders raise nearly anything on damaged bytes: SyntaxError, struct.error, ValueError, ...
        except Exception as error:
            return _read_bare(source, max_pixels, orientation, error)
    except UnusableImage as error:
        raise UnusableImage(f"{name}: {error}", error.fault) from error
    except Image.DecompressionBombError as error:
        message = f"{name}: more than the {max_pixels:,} pixels allowed; make it smaller"
        raise UnusableImage(message, "too large") from error
    except FileNotFoundError as error:
        raise UnusableImage(f"{name}: no such file; check the path", "missing") from error
    except IsADirectoryError as error:
        raise UnusableImage(f"{name}: a folder; name the pictures in it", "no picture") from error
    except Exception as error:
        found = format_of(_head(source)) if isinstance(error, UnidentifiedImageError) else None
        if found not in (None, *FORMATS) and not (found == AVIF and AVIF in Image.OPEN):
            raise UnusableImage(f"{name}: {not_read(str(found))}", "no picture") from error
        # Of what it cannot identify Pillow tells the source alone: a path, or the address of a file in memory.
        why = (
            "of no known format"
            if isinstance(error, UnidentifiedImageError)
            else f"{type(error).__name__}: {error}"
        )
        message = f"{name}: not a picture that can be read ({why}); remove or replace it"
        raise UnusableImage(message, _fault(error, source)) from error


def _read(source: Source, max_pixels: int, orientation: int | None) -> ReadImage:
    """Read a picture, or raise whatever Pillow raises."""
    with _open(source) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            message = f"{width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller"
            raise UnusableImage(message, "too large")
        changes = _changes(opened)
        upright, is_turned = _upright(opened, orientation)
        if opened.mode == "CMYK" and opened.format == "JPEG" and "adobe" not in opened.info:
            # Adobe's programs store inks inverted and say that they did; Pillow thinks that all others do too.
            upright = ImageChops.invert(upright)
        elif opened.mode == "I" and opened.format in ("PNG", "PPM"):
            upright = Image.fromarray(np.asarray(upright).astype(np.uint16))
        return ReadImage(rgb=as_rgb(upright), changes=(*changes, "turned") if is_turned else changes)


def _read_bare(source: Source, max_pixels: int, orientation: int | None, error: Exception) -> ReadImage:
    """Read a PNG or JPEG without texts and profiles, or raise the error that they, or its pixels, were the cause of."""
    if _head(source).startswith((PNG, JPEG)):
        for bare in without_extras(_all_of(source)):
            try:
                return _read(BytesIO(bare), max_pixels, orientation)
            except UnusableImage:
                raise
            except Exception:  # then they were not the cause
                continue
    raise error


def _upright(opened: Image.Image, told: int | None) -> tuple[Image.Image, bool]:
    """Load a picture and set it upright; return also whether that was done as told, not as its file says."""
    is_tiff = opened.format == "TIFF"
    if not is_tiff:
        opened.load()
    with _quiet():
        own = orientation_of(opened)
    if is_tiff:
        opened.load()  # which turns it
        upright = opened
    else:
        upright = set_upright(opened, own)
    if own is not None or told in (None, 1):
        return upright, False
    return set_upright(upright, told), True


def _head(source: Source) -> bytes:
    """Return the first bytes of a picture's file.

    Raises:
        UnusableImage: it is no file.
    """
    if isinstance(source, Path | str):
        if Path(source).exists() and not (Path(source).is_file() or Path(source).is_dir()):
            raise UnusableImage("a pipe or a device, no file", "no picture")
        with Path(source).open("rb") as file:
            return file.read(HEAD_BYTES)
    source.seek(0)
    return source.read(HEAD_BYTES)


def _all_of(source: Source) -> bytes:
    if isinstance(source, Path | str):
        return Path(source).read_bytes()
    source.seek(0)
    return source.read()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself: of many pixels, where the bound is ours, and of EXIF that is none."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(source: Source) -> Image.Image:
    """Read the header of a picture."""
    with _quiet():
        if format_of(_head(source)) == AVIF:
            Image.init()
            if AVIF in Image.OPEN:  # not before version 11.3 of Pillow
                return Image.open(source, formats=(AVIF,))
        return Image.open(source, formats=FORMATS)


def _changes(opened: Image.Image) -> tuple[Change, ...]:
    """Return in what a picture whose header has been read differs from 8-bit RGB."""
    # Pillow makes 8 bits of 16 by itself, and tells in the raw mode; "BGR;16" of BMP is 5 and 6 bits of each colour.
    raw_modes = " ".join(str(tile[3]) for tile in getattr(opened, "tile", ()))
    is_wide = opened.mode.startswith("I;16") or (";16" in raw_modes and opened.format in ("PNG", "TIFF"))
    is_wide |= opened.mode == "I" and opened.format in ("PNG", "PPM")
    found: dict[Change, bool] = {
        # The further pictures of a camera's JPEG (MPO) are previews and views of the same moment.
        "animated": getattr(opened, "is_animated", False) and opened.format != "MPO",
        "CMYK": opened.mode == "CMYK",
        "16-bit": is_wide,
        "32-bit": opened.mode in ("I", "F") and not is_wide,
        "palette": opened.mode in ("P", "PA"),
        "alpha": opened.has_transparency_data,
    }
    return tuple(change for change, is_so in found.items() if is_so)


def _fault(error: Exception, source: Source) -> Fault:
    """Return why Pillow could not read a file."""
    if isinstance(error, UnidentifiedImageError):
        return "empty" if _is_empty(source) else "no picture"
    return "truncated" if isinstance(error, EOFError) or "truncated" in str(error).lower() else "damaged"


def _is_empty(source: Source) -> bool:
    return not _head(source)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; transparent parts become white, wider numbers are scaled to 8 bits.

    Raises:
        UnusableImage: it consists of 32-bit numbers that may mean anything.
    """
    if image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.uint16)
        pixels = (grey >> 8).astype(np.uint8)
        if "transparency" in image.info:  # the one grey that is transparent
            pixels[grey == image.info["transparency"]] = 255
        return Image.fromarray(pixels).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_scaled_to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def _scaled_to_8_bits(numbers: Shaped[np.ndarray, "y x"]) -> Shaped[np.ndarray, "y x"]:
    """Return grey in 0..255 of 32-bit numbers, whose largest tells what is white: 1 if they are floats, 255 or 65,535.

    Raises:
        UnusableImage: a number is negative, larger than 65,535 or none.
    """
    largest = numbers.max()
    if not (numbers.min() >= 0 and largest <= 65_535):  # so that NaN is refused too
        raise UnusableImage(
            f"32-bit numbers from {numbers.min()} to {largest}, and no telling what is white; store it in 8 or 16 bits",
            "unknown range",
        )
    white = 1 if numbers.dtype.kind == "f" and largest <= 1 else 255 if largest <= 255 else 65_535
    return (numbers.astype(np.float64) * (255 / white)).round().astype(np.uint8)


def resize_and_crop(image: Image.Image, size_pixels: int) -> Image.Image:
    """Scale the short side to `size_pixels` and cut the middle square out.

    Args:
        image: an RGB picture.
        size_pixels: side of the square.
    """
    return ImageOps.fit(image, (size_pixels, size_pixels), Image.Resampling.LANCZOS)


def enlarged(picture: Image.Image, scale: int) -> Image.Image:
    """Return a picture so many times as large, by bicubic resampling."""
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
