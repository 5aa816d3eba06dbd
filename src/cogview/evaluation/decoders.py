"""Evaluation of larger decoders against the image tokenizer's own with bicubic interpolation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from cogview.evaluation.distances import mean_squared_error, psnr
from cogview.evaluation.reconstruction import in_batches
from cogview.image.picture_reading import enlarged
from cogview.image.pixels import as_float, image_to_array, tensor_to_images
from cogview.image.tokenizer import ImageTokenizer

_GAP_PIXELS = 8
_BATCH = 8


@torch.no_grad()
def evaluate_scales(
    tokenizer: ImageTokenizer,
    pictures: Mapping[int, UInt8[np.ndarray, "n _ _ c"]],
    scales: Sequence[int],
) -> dict[str, float]:
    """Compare decoded pictures with the true ones at each scale.

    Args:
        tokenizer: image tokenizer with decoders for the scales.
        pictures: the same pictures by scale; those of scale 1 are encoded.
        scales: scales to measure.

    Returns:
        Means over pictures, for each scale N: `psnr_xN_db` of its decoder, and `bicubic_xN_db` of the tokenizer's own
        decoder, enlarged by bicubic interpolation.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    parts = {scale: in_batches(each, _BATCH) for scale, each in pictures.items()}
    for batches in zip(*(parts[scale] for scale in pictures), strict=True):
        real = {scale: _as_images(batch) for scale, batch in zip(pictures, batches, strict=True)}
        codes = tokenizer.encode(real[1])
        own = tokenizer.decode(codes)
        for scale in scales:
            drawn = tokenizer.decode(codes, max(real[scale].shape[2:])).cpu()
            for name, copies in {"psnr": drawn, "bicubic": enlarged_images(own, scale)}.items():
                values[f"{name}_x{scale}_db"].append(psnr(mean_squared_error(real[scale], copies)))
    return {name: float(torch.cat(each).mean()) for name, each in values.items()}


def enlarged_images(images: Float[Tensor, "b c y x"], scale: int) -> Float[Tensor, "b c _ _"]:
    """Round pictures in [-1, 1] to 8 bits and enlarge them by bicubic interpolation."""
    larger = [image_to_array(enlarged(each, scale)) for each in tensor_to_images(images)]
    return torch.from_numpy(np.stack(larger))


@torch.no_grad()
def decoder_grid(
    tokenizer: ImageTokenizer, pictures: Mapping[int, UInt8[np.ndarray, "n _ _ c"]], scale: int
) -> Image.Image:
    """Draw rows of true pictures, of the own decoder's enlarged, and of the scale's decoder.

    Args:
        tokenizer: image tokenizer with a decoder for the scale.
        pictures: the same pictures by scale; those of scale 1 are encoded.
        scale: scale to draw.
    """
    real = _as_images(pictures[scale])
    codes = tokenizer.encode(_as_images(pictures[1]))
    rows = (
        real,
        enlarged_images(tokenizer.decode(codes), scale),
        tokenizer.decode(codes, max(real.shape[2:])).cpu(),
    )
    num, channels, height, width = real.shape
    gaps = _GAP_PIXELS * (num - 1)
    grid = torch.ones(1, channels, len(rows) * (height + _GAP_PIXELS) - _GAP_PIXELS, num * width + gaps)
    for index, images in enumerate(rows):
        top = index * (height + _GAP_PIXELS)
        for number, image in enumerate(images):
            left = number * (width + _GAP_PIXELS)
            grid[0, :, top : top + height, left : left + width] = image
    return tensor_to_images(grid)[0]


def _as_images(pixels: UInt8[np.ndarray, "n y x c"]) -> Float[Tensor, "n c y x"]:
    return as_float(torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2))
