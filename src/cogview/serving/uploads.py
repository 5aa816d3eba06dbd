"""Pictures that clients send: read within their limits, in threads of their own."""

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
from cogview.serving.messages import Pixels
from cogview.serving.wire import WireError

_DECODERS = ThreadPoolExecutor(2, "decoder")
"""Few: a picture that is decoded takes up to ten bytes a pixel."""

Result = TypeVar("Result")
Given = ParamSpec("Given")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture that was uploaded.

    Args:
        pixels: RGB, set upright; a mask has its alpha, or else its lightness, as L.
        data: as it came.
    """

    pixels: Pixels
    data: bytes


async def uploaded(value: object, name: str, max_pixels: int, *, is_mask: bool = False) -> Upload:
    """Return a picture of a form.

    Raises:
        WireError: it is no picture that is taken.
    """
    if not isinstance(value, UploadFile):
        raise WireError(400, f"{name} must be a file", param=name, code="invalid_image")
    mask: Literal["transparent"] | None = "transparent" if is_mask else None
    return await in_decoder(decoded, await value.read(), name, max_pixels, mask)


async def in_decoder(decode: Callable[Given, Result], *args: Given.args, **named: Given.kwargs) -> Result:
    """Return what a function that decodes gives, run in one of the few threads for that."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_DECODERS, partial(decode, *args, **named))


def reduced(pixels: Pixels, side_pixels: int) -> Pixels:
    """Return a picture with its shorter side a whole number of times smaller, but no smaller than so many pixels."""
    factor = min(pixels.size) // side_pixels
    return pixels if factor < 2 else Pixels.of(pixels.image().reduce(factor))


def from_base64(text: str, name: str) -> bytes:
    """Return bytes that came as base64, perhaps as a data url.

    Raises:
        WireError: it is none.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(400, f"{name} is no base64", param=name, code="invalid_image") from error


def decoded(
    data: bytes, name: str, max_pixels: int, mask: Literal["transparent", "opaque"] | None = None
) -> Upload:
    """Return a picture of its file; how large it is is looked at before it is decoded.

    Args:
        data: the file.
        name: of the field, for errors.
        max_pixels: that it may have.
        mask: what of a mask is drawn anew, if it is one and has transparency.

    Raises:
        WireError: it is no picture that is taken.
    """
    try:
        if mask is not None:
            return Upload(pixels=Pixels.of(_as_mask(data, max_pixels, mask)), data=data)
        return Upload(pixels=Pixels.of(read_image(BytesIO(data), max_pixels)), data=data)
    except UnusableImage as error:
        message = str(error).removeprefix("the picture: ")
        raise WireError(400, f"{name}: {message}", param=name, code="invalid_image") from error


def _as_mask(data: bytes, max_pixels: int, drawn: Literal["transparent", "opaque"]) -> Image.Image:
    """Return what is to be drawn anew as white: what is transparent, or opaque, or else what is light.

    Raises:
        UnusableImage: it is no picture that can be read.
    """
    lightness = read_image(BytesIO(data), max_pixels).convert("L")  # which looks at the size first
    with Image.open(BytesIO(data), formats=FORMATS) as opened:
        if opened.has_transparency_data:
            alpha = opened.convert("RGBA").getchannel("A")
            if np.asarray(alpha).min() < 255:
                return ImageChops.invert(alpha) if drawn == "transparent" else alpha
    return lightness
