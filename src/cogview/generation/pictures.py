"""Reading of users' pictures: to RGB, and to codes."""

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
"""A picture, a path, or codes (integers [r s])."""


def as_image(picture: Image.Image | str | Path) -> Image.Image:
    """Return a picture as RGB; read it if it is a path.

    Raises:
        UnusableImage: the file cannot be read.
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
    """Return the codes of pictures; warn of pictures that the image tokenizer reconstructs badly.

    Args:
        model: whose image tokenizer reads them.
        images: one or more.
        template: of the sequences that the codes go into.
        strict: refuse pictures that are reconstructed worse than the image tokenizer's own held-out ones.
        way_out: how to have a refused picture accepted, for the error.
        below_pixels: refuse pictures whose shorter side has at least so many pixels.

    Raises:
        UsageError: no picture, something else than a picture, or a refused one.
        UnusableImage: a picture file cannot be read.
    """
    pictures = [images] if isinstance(images, Image.Image | str | Path | Tensor) else list(images)
    if not pictures:
        raise UsageError("no picture given; give at least one")
    # One by one: convolutions round differently in other batch sizes, and few pictures are in memory at a time.
    all_codes: list[Codes] = []
    for number, picture in enumerate(pictures, start=1):
        codes, problem = _codes_of(model, picture, number, template, below_pixels)
        if problem:
            if strict:
                raise UsageError(f"{problem}; give a picture of the model's world, or {way_out}")
            warnings.warn(f"{problem}: the result means little", stacklevel=1)
        all_codes.append(codes)
    return all_codes


def _codes_of(
    model: LoadedModel, picture: Picture, number: int, template: PairTemplate, below_pixels: int | None
) -> tuple[Codes, str]:
    """Return the codes of a picture, and a warning if the image tokenizer reconstructs it badly."""
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
            f"{name} has {min(image.size)} pixels a side, and would be upscaled to {below_pixels}: choose a larger "
            "factor, draw it larger in the first place (generate --size), or force it"
        )
    tokenizer = model.image_tokenizer
    square = resize_and_crop(image, template.grid_rows * tokenizer.downsampling_factor)
    pixels = torch.from_numpy(image_to_array(square))[None]
    codes: Int64[Tensor, "b r s"] = tokenizer.encode(pixels)
    problem, usual = "", tokenizer.held_out
    if usual is not None and (kept_db := float(tokenizer.kept_db(pixels, codes))) < usual.least_db:
        problem = (
            f"{name}: the image tokenizer keeps {kept_db:.1f} dB of it, where of its own held-out pictures it "
            f"keeps {usual.median_db:.1f}"
        )
    return codes[0].cpu().numpy(), problem
