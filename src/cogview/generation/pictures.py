"""Pictures that users give: their codes, and what is told of those that the image tokenizer hardly keeps."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.model import LoadedModel
from cogview.image.picture_reading import as_rgb, read_image, resize_and_crop
from cogview.image.pixels import image_to_array
from cogview.sequence.template import Codes, PairTemplate

Picture: TypeAlias = Image.Image | str | Path | Tensor
"""A picture, the path of one, or its codes, whole numbers [r s]."""


def as_image(picture: Image.Image | str | Path) -> Image.Image:
    """Return a picture as RGB, read if it is a path.

    Raises:
        UnusableImage: the file is no picture that can be read.
    """
    return as_rgb(picture) if isinstance(picture, Image.Image) else read_image(picture)


def codes_of(
    model: LoadedModel,
    images: Picture | Sequence[Picture],
    template: PairTemplate,
    strict: bool = False,
    way_out: str = "leave strict out",
    below_pixels: int | None = None,
) -> list[Codes]:
    """Return the codes of pictures that are given as such, as paths, or as codes already.

    A picture of which the image tokenizer keeps less than of its own held-out ones is warned of.

    Args:
        model: whose image tokenizer reads them.
        images: one or more.
        template: of the sequences that the codes go into.
        strict: refuse such a picture instead.
        way_out: how to have it taken all the same, for that error.
        below_pixels: of the shorter side; pictures that are to be enlarged to so many are refused if they have them
            already.

    Raises:
        UsageError: there is none, something is no picture, or one is refused.
        UnusableImage: a file is no picture that can be read.
    """
    given = [images] if isinstance(images, Image.Image | str | Path | Tensor) else list(images)
    if not given:
        raise UsageError("there is no picture; give at least one")
    # One by one: convolutions round differently in batches of another size, and few pictures are held at a time.
    found: list[Codes] = []
    for number, each in enumerate(given, start=1):
        codes, told = _codes_of(model, each, number, template, below_pixels)
        if told:
            if strict:
                raise UsageError(f"{told}; give a picture of the model's world, or {way_out}")
            warnings.warn(f"{told}: what is made of it means little", stacklevel=1)
        found.append(codes)
    return found


def _codes_of(
    model: LoadedModel, picture: Picture, number: int, template: PairTemplate, below_pixels: int | None
) -> tuple[Codes, str]:
    """Return the codes of a picture, and what is to be told if the image tokenizer keeps little of it."""
    if isinstance(picture, Tensor):
        if picture.ndim != 2 or picture.is_floating_point():
            raise UsageError(
                f"picture {number} is a tensor, but not codes, whole numbers [r s]: got {picture.dtype} of "
                f"{list(picture.shape)}"
            )
        return picture.cpu().numpy(), ""
    if not isinstance(picture, Image.Image | str | Path):
        raise UsageError(
            f"picture {number} must be a PIL image, a path or codes, got {type(picture).__name__}"
        )
    image = as_image(picture)
    name = picture if isinstance(picture, str | Path) else f"picture {number}"
    if below_pixels is not None and min(image.size) >= below_pixels:
        raise UsageError(
            f"{name} has {min(image.size)} pixels a side, and would be drawn again with {below_pixels}: take a "
            "larger factor, draw it larger in the first place (generate --size), or force it"
        )
    tokenizer = model.image_tokenizer
    square = resize_and_crop(image, template.grid_rows * tokenizer.downsampling_factor)
    pixels = torch.from_numpy(image_to_array(square))[None]
    codes: Int64[Tensor, "b r s"] = tokenizer.encode(pixels)
    told, usual = "", tokenizer.held_out
    if usual is not None and (kept_db := float(tokenizer.kept_db(pixels, codes))) < usual.least_db:
        told = (
            f"{name}: the image tokenizer keeps {kept_db:.1f} dB of it, where of its own held-out pictures it "
            f"keeps {usual.median_db:.1f}"
        )
    return codes[0].cpu().numpy(), told
