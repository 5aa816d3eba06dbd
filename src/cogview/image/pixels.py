"""Pictures at the edges: files to RGB, RGB to arrays in [-1, 1], and back."""

import threading
import warnings
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from cogview.errors import CogViewError

# About a 12,000 x 8,000 photograph; a small file can claim far more and fill the memory.
MAX_PIXELS = 100_000_000

# Pillow knows more, and for some (EPS) it starts other programs, whatever the file's name.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Filters of warnings belong to the whole process, and pictures are read by several threads.
_filters = threading.Lock()


def read_image(source: Path | str | BufferedReader | BytesIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright RGB, transparency laid on white.

    Args:
        source: a path, or a file opened for reading bytes.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        CogViewError: there is no such file, it is not a picture, it is damaged or too large.
    """
    name = str(source) if isinstance(source, Path | str) else getattr(source, "name", "the picture")
    try:
        with _open(source) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise CogViewError(
                    f"{name}: {width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller"
                )
            return as_rgb(ImageOps.exif_transpose(opened))
    except CogViewError:
        raise
    except Image.DecompressionBombError as error:
        raise CogViewError(f"{name}: more than the {max_pixels:,} pixels allowed; make it smaller") from error
    except FileNotFoundError as error:
        raise CogViewError(f"{name}: no such file; check the path") from error
    # Pillow's decoders raise nearly anything on damaged bytes: SyntaxError, struct.error, ValueError, ...
    except Exception as error:
        raise CogViewError(
            f"{name}: not a picture that can be read ({type(error).__name__}: {error}); remove or replace it"
        ) from error


def _open(source: Path | str | BufferedReader | BytesIO) -> Image.Image:
    """Read the header of a picture, without Pillow's warning of many pixels: the bound here is ours."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source, formats=FORMATS)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; transparent parts become white, 16-bit grey is scaled to 8."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


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
