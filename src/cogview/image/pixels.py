"""Pictures at the edges: files to RGB, RGB to arrays in [-1, 1], and back."""

import threading
import warnings
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import Tensor

from cogview.errors import CogViewError

# About a 12,000 x 8,000 photograph; a small file can claim far more and fill the memory.
MAX_PIXELS = 100_000_000

# Pillow knows more, and for some (EPS) it starts other programs, whatever the file's name.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

Fault: TypeAlias = Literal[
    "missing", "empty", "no picture", "truncated", "damaged", "too large", "unknown range"
]
"""Why a picture cannot be used."""

Change: TypeAlias = Literal["animated", "CMYK", "16-bit", "32-bit", "palette", "alpha"]
"""What a picture was that 8-bit RGB is not."""

CHANGES: dict[Change, str] = {
    "animated": "only the first frame was taken",
    "CMYK": "inks were turned into RGB",
    "16-bit": "scaled to 8 bits",
    "32-bit": "32-bit numbers were scaled to 8 bits",
    "palette": "colours were looked up in its palette",
    "alpha": "laid on white",
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


def read_image(source: Path | str | BufferedReader | BytesIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright RGB, transparency laid on white; of an animation the first frame.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        UnusableImage: there is no such file, it is not a picture, it is damaged or too large.
    """
    return read_image_and_changes(source, max_pixels).rgb


def read_image_and_changes(
    source: Path | str | BufferedReader | BytesIO, max_pixels: int = MAX_PIXELS
) -> ReadImage:
    """Read a picture as `read_image` does, and say in what its file differs from 8-bit RGB.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        UnusableImage: there is no such file, it is not a picture, it is damaged or too large.
    """
    name = str(source) if isinstance(source, Path | str) else getattr(source, "name", "the picture")
    try:
        with _open(source) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                message = f"{width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller"
                raise UnusableImage(message, "too large")
            changes = _changes(opened)
            upright = ImageOps.exif_transpose(opened)
            if opened.mode == "CMYK" and opened.format == "JPEG" and "adobe" not in opened.info:
                # Adobe's programs store inks inverted and say that they did; Pillow thinks that all others do too.
                upright = ImageChops.invert(upright)
            elif opened.mode == "I" and opened.format in ("PNG", "PPM"):
                upright = Image.fromarray(np.asarray(upright).astype(np.uint16))
            return ReadImage(rgb=as_rgb(upright), changes=changes)
    except UnusableImage as error:
        raise UnusableImage(f"{name}: {error}", error.fault) from error
    except Image.DecompressionBombError as error:
        message = f"{name}: more than the {max_pixels:,} pixels allowed; make it smaller"
        raise UnusableImage(message, "too large") from error
    except FileNotFoundError as error:
        raise UnusableImage(f"{name}: no such file; check the path", "missing") from error
    # Pillow's decoders raise nearly anything on damaged bytes: SyntaxError, struct.error, ValueError, ...
    except Exception as error:
        message = (
            f"{name}: not a picture that can be read ({type(error).__name__}: {error}); remove or replace it"
        )
        raise UnusableImage(message, _fault(error, source)) from error


def _open(source: Path | str | BufferedReader | BytesIO) -> Image.Image:
    """Read the header of a picture, without Pillow's warning of many pixels: the bound here is ours."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
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


def _fault(error: Exception, source: Path | str | BufferedReader | BytesIO) -> Fault:
    """Return why Pillow could not read a file."""
    if isinstance(error, UnidentifiedImageError):
        return "empty" if _is_empty(source) else "no picture"
    return "truncated" if isinstance(error, EOFError) or "truncated" in str(error).lower() else "damaged"


def _is_empty(source: Path | str | BufferedReader | BytesIO) -> bool:
    if isinstance(source, Path | str):
        return Path(source).stat().st_size == 0
    source.seek(0)
    return not source.read(1)


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


def image_to_array(image: Image.Image) -> Float32[np.ndarray, "c y x"]:
    """Return an RGB picture's pixels in [-1, 1]."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return np.ascontiguousarray((pixels / 127.5 - 1.0).transpose(2, 0, 1))


def as_float(images: UInt8[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Return uint8 pixels in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def tensor_to_images(images: Float[Tensor, "b c y x"]) -> list[Image.Image]:
    """Return pictures of tensors in [-1, 1]; what lies outside is clipped."""
    scaled = ((images.detach().float() + 1.0) * 127.5).round().clamp(0, 255)
    pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
