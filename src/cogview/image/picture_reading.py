"""Reading of picture files as upright RGB. Does not import PyTorch."""

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
from cogview.image.formats import AVIF, FORMATS, HEAD_BYTES, format_of, unsupported_format
from cogview.image.orientation import orientation_of, set_upright
from cogview.image.stripped_files import JPEG, PNG, stripped_versions

# About 12,000 x 8,000; a small file can declare far more and fill the memory.
MAX_PIXELS = 100_000_000

Source: TypeAlias = Path | str | BufferedReader | BytesIO

Fault: TypeAlias = Literal[
    "missing", "empty", "no picture", "truncated", "damaged", "too large", "unknown range"
]
"""Reasons why a picture cannot be used."""

Change: TypeAlias = Literal["animated", "CMYK", "16-bit", "32-bit", "palette", "alpha", "turned"]
"""Differences of a file from upright 8-bit RGB."""

CHANGES: dict[Change, str] = {
    "animated": "only the first frame was taken",
    "CMYK": "inks were turned into RGB",
    "16-bit": "scaled to 8 bits",
    "32-bit": "32-bit numbers were scaled to 8 bits",
    "palette": "colours were looked up in its palette",
    "alpha": "laid on white",
    "turned": "set upright by the .json beside it, since the file itself has no orientation",
}
"""Conversion of each."""

# Warning filters are global, and several threads read pictures.
_filters = threading.Lock()


class UnusableImage(CogViewError):
    """A file is not a usable picture.

    Args:
        message: one line.
        fault: kind of reason.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImage:
    """Picture with its conversions.

    Args:
        rgb: the upright picture, on white where it was transparent.
        changes: differences of its file from 8-bit RGB.
    """

    rgb: Image.Image
    changes: tuple[Change, ...]


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright RGB, on white where it is transparent; of an animation the first frame.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        UnusableImage: the file is missing, not a picture, damaged or too large.
    """
    return read_image_and_changes(source, max_pixels).rgb


def read_image_and_changes(
    source: Source, max_pixels: int = MAX_PIXELS, orientation: int | None = None
) -> ReadImage:
    """Read a picture like `read_image`, and report the differences of its file from 8-bit RGB.

    Damaged texts, profiles and EXIF are ignored.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.
        orientation: EXIF orientation from elsewhere, if the file has none.

    Raises:
        UnusableImage: the file is missing, not a picture, damaged or too large.
    """
    name = str(source) if isinstance(source, Path | str) else getattr(source, "name", "the picture")
    try:
        try:
            return _read(source, max_pixels, orientation)
        except (UnusableImage, Image.DecompressionBombError, FileNotFoundError, IsADirectoryError):
            raise
        # Pillow's decoders raise nearly anything on damaged bytes: SyntaxError, struct.error, ValueError, ...
        except Exception as error:
            return _read_stripped(source, max_pixels, orientation, error)
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
        file_format = format_of(_head(source)) if isinstance(error, UnidentifiedImageError) else None
        if file_format not in (None, *FORMATS) and not (file_format == AVIF and AVIF in Image.OPEN):
            raise UnusableImage(f"{name}: {unsupported_format(str(file_format))}", "no picture") from error
        # Pillow's own message of an unidentified file has only its path or address in memory.
        why = (
            "of no known format"
            if isinstance(error, UnidentifiedImageError)
            else f"{type(error).__name__}: {error}"
        )
        message = f"{name}: not a picture that can be read ({why}); remove or replace it"
        raise UnusableImage(message, _fault(error, source)) from error


def _read(source: Source, max_pixels: int, orientation: int | None) -> ReadImage:
    """Read a picture without converting Pillow's errors."""
    with _open(source) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            message = f"{width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller"
            raise UnusableImage(message, "too large")
        changes = _changes(opened)
        upright, is_turned = _upright(opened, orientation)
        if opened.mode == "CMYK" and opened.format == "JPEG" and "adobe" not in opened.info:
            # Adobe's programs store inverted inks with a marker; Pillow inverts those without it, too.
            upright = ImageChops.invert(upright)
        elif opened.mode == "I" and opened.format in ("PNG", "PPM"):
            upright = Image.fromarray(np.asarray(upright).astype(np.uint16))
        return ReadImage(rgb=as_rgb(upright), changes=(*changes, "turned") if is_turned else changes)


def _read_stripped(source: Source, max_pixels: int, orientation: int | None, error: Exception) -> ReadImage:
    """Retry a PNG or JPEG without texts and profiles; raise the original error if that fails, too."""
    if _head(source).startswith((PNG, JPEG)):
        for stripped in stripped_versions(_read_bytes(source)):
            try:
                return _read(BytesIO(stripped), max_pixels, orientation)
            except UnusableImage:
                raise
            except Exception:
                continue
    raise error


def _upright(opened: Image.Image, external: int | None) -> tuple[Image.Image, bool]:
    """Load a picture and set it upright; return also whether by the external orientation, not by its file's."""
    is_tiff = opened.format == "TIFF"
    if not is_tiff:
        opened.load()
    with _quiet():
        own = orientation_of(opened)
    if is_tiff:
        opened.load()  # rotates it
        upright = opened
    else:
        upright = set_upright(opened, own)
    if own is not None or external in (None, 1):
        return upright, False
    return set_upright(upright, external), True


def _head(source: Source) -> bytes:
    """Read the first bytes of a file.

    Raises:
        UnusableImage: it is not a file.
    """
    if isinstance(source, Path | str):
        if Path(source).exists() and not (Path(source).is_file() or Path(source).is_dir()):
            raise UnusableImage("a pipe or a device, no file", "no picture")
        with Path(source).open("rb") as file:
            return file.read(HEAD_BYTES)
    source.seek(0)
    return source.read(HEAD_BYTES)


def _read_bytes(source: Source) -> bytes:
    if isinstance(source, Path | str):
        return Path(source).read_bytes()
    source.seek(0)
    return source.read()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Pillow's warnings of many pixels, for which we have a limit, and of invalid EXIF."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(source: Source) -> Image.Image:
    """Read the header of a picture."""
    with _quiet():
        if format_of(_head(source)) == AVIF:
            Image.init()
            if AVIF in Image.OPEN:  # from Pillow 11.3 on
                return Image.open(source, formats=(AVIF,))
        return Image.open(source, formats=FORMATS)


def _changes(opened: Image.Image) -> tuple[Change, ...]:
    """Return the differences of an opened picture from 8-bit RGB."""
    # Pillow reduces 16 bits to 8, visible in the raw mode; "BGR;16" of BMP has 5 or 6 bits per colour.
    raw_modes = " ".join(str(tile[3]) for tile in getattr(opened, "tile", ()))
    is_wide = opened.mode.startswith("I;16") or (";16" in raw_modes and opened.format in ("PNG", "TIFF"))
    is_wide |= opened.mode == "I" and opened.format in ("PNG", "PPM")
    flags: dict[Change, bool] = {
        # Further pictures of a camera's JPEG (MPO) are previews.
        "animated": getattr(opened, "is_animated", False) and opened.format != "MPO",
        "CMYK": opened.mode == "CMYK",
        "16-bit": is_wide,
        "32-bit": opened.mode in ("I", "F") and not is_wide,
        "palette": opened.mode in ("P", "PA"),
        "alpha": opened.has_transparency_data,
    }
    return tuple(change for change, is_so in flags.items() if is_so)


def _fault(error: Exception, source: Source) -> Fault:
    """Classify Pillow's error."""
    if isinstance(error, UnidentifiedImageError):
        return "empty" if _is_empty(source) else "no picture"
    return "truncated" if isinstance(error, EOFError) or "truncated" in str(error).lower() else "damaged"


def _is_empty(source: Source) -> bool:
    return not _head(source)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; transparent parts become white, wider numbers are scaled to 8 bits.

    Raises:
        UnusableImage: the range of its 32-bit numbers is unknown.
    """
    if image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.uint16)
        pixels = (grey >> 8).astype(np.uint8)
        if "transparency" in image.info:  # a single transparent grey
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
    """Scale 32-bit numbers to 0..255; white is 1 (floats only), 255 or 65,535, by the largest number.

    Raises:
        UnusableImage: a number is negative, larger than 65,535 or NaN.
    """
    largest = numbers.max()
    if not (numbers.min() >= 0 and largest <= 65_535):  # also true for NaN
        raise UnusableImage(
            f"32-bit numbers from {numbers.min()} to {largest} of unknown range; store it in 8 or 16 bits",
            "unknown range",
        )
    white = 1 if numbers.dtype.kind == "f" and largest <= 1 else 255 if largest <= 255 else 65_535
    return (numbers.astype(np.float64) * (255 / white)).round().astype(np.uint8)


def resize_and_crop(image: Image.Image, size_pixels: int) -> Image.Image:
    """Scale the short side to `size_pixels` and crop the middle square.

    Args:
        image: an RGB picture.
        size_pixels: side of the square.
    """
    return ImageOps.fit(image, (size_pixels, size_pixels), Image.Resampling.LANCZOS)


def enlarged(picture: Image.Image, scale: int) -> Image.Image:
    """Enlarge a picture by a factor, by bicubic resampling."""
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
