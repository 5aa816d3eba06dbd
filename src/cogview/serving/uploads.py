"""Decoding of uploaded pictures, within limits and in separate threads."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageChops
from starlette.datastructures import UploadFile

from cogview.image.formats import FORMATS
from cogview.image.picture_reading import UnusableImage, read_image
from cogview.serving.http import ApiError
from cogview.serving.messages import Pixels

_DECODERS = ThreadPoolExecutor(2, "decoder")
"""Few threads, since decoding takes up to ten bytes a pixel."""

Result = TypeVar("Result")
Given = ParamSpec("Given")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Uploaded picture.

    Args:
        pixels: RGB, upright; for a mask its alpha or lightness as L.
        data: the original file.
    """

    pixels: Pixels
    data: bytes


async def read_form_image(value: object, name: str, max_pixels: int, *, is_mask: bool = False) -> Upload:
    """Decode a picture of a form.

    Raises:
        ApiError: the picture is not accepted.
    """
    if not isinstance(value, UploadFile):
        raise ApiError(400, f"{name} must be a file", param=name, code="invalid_image")
    mask: Literal["transparent"] | None = "transparent" if is_mask else None
    return await run_in_decoder(decode_image, await value.read(), name, max_pixels, mask)


async def run_in_decoder(decode: Callable[Given, Result], *args: Given.args, **named: Given.kwargs) -> Result:
    """Call a function in a decoder thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_DECODERS, partial(decode, *args, **named))


def shrink(pixels: Pixels, side_pixels: int) -> Pixels:
    """Reduce a picture by the largest integer factor that leaves its shorter side `side_pixels`."""
    factor = min(pixels.size) // side_pixels
    return pixels if factor < 2 else Pixels.of(pixels.image().reduce(factor))


def from_base64(text: str, name: str) -> bytes:
    """Decode base64 or a base64 data url.

    Raises:
        ApiError: it is not valid base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{name} is not valid base64", param=name, code="invalid_image") from error


def decode_image(
    data: bytes, name: str, max_pixels: int, mask: Literal["transparent", "opaque"] | None = None
) -> Upload:
    """Decode a picture file, after checking its size.

    Args:
        data: the file.
        name: of the field, for errors.
        max_pixels: largest allowed number of pixels.
        mask: part of a mask's alpha channel to inpaint; None if it is not a mask.

    Raises:
        ApiError: the picture is not accepted.
    """
    try:
        if mask is not None:
            return Upload(pixels=Pixels.of(_as_mask(data, max_pixels, mask)), data=data)
        return Upload(pixels=Pixels.of(read_image(BytesIO(data), max_pixels)), data=data)
    except UnusableImage as error:
        message = str(error).removeprefix("the picture: ")
        raise ApiError(400, f"{name}: {message}", param=name, code="invalid_image") from error


def _as_mask(data: bytes, max_pixels: int, inpainted: Literal["transparent", "opaque"]) -> Image.Image:
    """Return a mask that is white where to inpaint, by its alpha channel or else its lightness.

    Raises:
        UnusableImage: the picture cannot be read.
    """
    lightness = read_image(BytesIO(data), max_pixels).convert("L")  # checks the size first
    with Image.open(BytesIO(data), formats=FORMATS) as opened:
        if opened.has_transparency_data:
            alpha = opened.convert("RGBA").getchannel("A")
            if np.asarray(alpha).min() < 255:
                return ImageChops.invert(alpha) if inpainted == "transparent" else alpha
    return lightness
