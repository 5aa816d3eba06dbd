"""Reconstruction quality of an image tokenizer, and statistics of its codes."""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from cogview.errors import CogViewError
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.distances import (
    SSIM_WINDOW_PIXELS,
    frechet_distance,
    mean_squared_error,
    perceptual_distance,
    psnr,
    ssim,
)
from cogview.image.pixels import as_float, tensor_to_images
from cogview.image.tokenizer import ImageTokenizer

_GRID_COLUMNS = 8
_GAP_PIXELS = 8


@torch.no_grad()
def evaluate_reconstruction(
    tokenizer: ImageTokenizer,
    batches: Iterable[UInt8[np.ndarray, "_ y x c"]],
    backbone: Backbone | None = None,
    distances: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    show: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, float]:
    """Compare pictures with their reconstructions.

    Args:
        tokenizer: image tokenizer.
        batches: held-out pictures, all of one size.
        backbone: feature network for perceptual and Frechet distances.
        distances: further distances by the names of their figures. Each is a function of originals and reconstructions
            [b c y x] in [-1, 1] that returns a number for each, for example `lpips.LPIPS(net="vgg")`.
        show: called with the originals and reconstructions of each batch.

    Returns:
        The figures by name, NAME being the backbone's:

        - `psnr_db`: mean over pictures of their peak signal-to-noise ratio, as is usually reported;
        - `psnr_of_mean_error_db`: that of the mean squared error over all pixels;
        - `ssim`: mean over pictures, if they have at least 11 pixels a side;
        - `unweighted_perceptual_distance_NAME`: mean over pictures, with a backbone;
        - `frechet_distance_NAME`: between originals and reconstructions, with a backbone;
        - `codes_used`: number of distinct codes; `codebook_usage`: their share of the codebook;
        - `perplexity`: perplexity of the codes;
        - `bits_per_pixel`: with log2(num_codes) bits per code;
        - `entropy_bits_per_pixel`: with the entropy of single codes.

    Raises:
        CogViewError: there are no pictures.
        UsageError: their size does not fit.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    pooled: tuple[list[Tensor], list[Tensor]] = ([], [])
    counts = torch.zeros(tokenizer.num_codes, dtype=torch.int64)
    for batch in batches:
        originals = as_float(torch.tensor(batch).to(tokenizer.device).permute(0, 3, 1, 2))
        codes = tokenizer.encode(originals)
        reconstructions = tokenizer.decode(codes)
        if show is not None:
            show(originals, reconstructions)
        counts += torch.bincount(codes.flatten().cpu(), minlength=tokenizer.num_codes)
        values["error"].append(mean_squared_error(originals, reconstructions))
        if min(originals.shape[-2:]) >= SSIM_WINDOW_PIXELS:
            values["ssim"].append(ssim(originals, reconstructions))
        if backbone is not None:
            features, reconstructed = backbone(originals), backbone(reconstructions)
            distance = perceptual_distance(features.maps, reconstructed.maps)
            values[f"unweighted_perceptual_distance_{backbone.name}"].append(distance)
            pooled[0].append(features.pooled.cpu())
            pooled[1].append(reconstructed.pooled.cpu())
        for name, measure in (distances or {}).items():
            values[name].append(measure(originals, reconstructions).flatten())
    if not values:
        raise CogViewError("There are no pictures to measure: give some.")
    errors = torch.cat(values.pop("error"))
    figures = {"psnr_db": float(psnr(errors).mean()), "psnr_of_mean_error_db": float(psnr(errors.mean()))}
    figures |= {name: float(torch.cat(parts).mean()) for name, parts in values.items()}
    if backbone is not None and len(errors) > 1:
        figures[f"frechet_distance_{backbone.name}"] = frechet_distance(*map(torch.cat, pooled))
    elif backbone is not None:
        # stacklevel 1, since the caller is a decorator, and the command line shows only warnings from cogview.
        warnings.warn("One picture has no covariance: the Frechet distance is left out.", stacklevel=1)
    return figures | code_figures(counts, tokenizer.downsampling_factor)


def evaluate_with_grid(
    tokenizer: ImageTokenizer,
    batches: Iterable[UInt8[np.ndarray, "_ y x c"]],
    backbone: Backbone | None,
    num_shown: int,
) -> tuple[dict[str, float], Image.Image]:
    """Return the figures of `evaluate_reconstruction`, and a grid of the first pictures.

    Args:
        tokenizer: image tokenizer.
        batches: pictures, all of one size.
        backbone: feature network.
        num_shown: largest number of pictures in the grid.
    """
    first: list[Tensor] = []
    copies: list[Tensor] = []

    def show(originals: Tensor, reconstructions: Tensor) -> None:
        num_left = num_shown - len(first)
        first.extend(originals[:num_left].cpu())
        copies.extend(reconstructions[:num_left].cpu())

    figures = evaluate_reconstruction(tokenizer, batches, backbone, show=show)
    return figures, _grid(torch.stack(first), torch.stack(copies))


def code_figures(counts: Int64[Tensor, "v"], downsampling_factor: int) -> dict[str, float]:
    """Return the usage of the codebook and the bits per pixel.

    Args:
        counts: number of occurrences of each code.
        downsampling_factor: side in pixels of a code's square.
    """
    num_codes, num_used = len(counts), int((counts > 0).sum())
    shares = counts.double() / counts.sum()
    nats = float(torch.special.entr(shares).sum())
    pixels_per_code = downsampling_factor**2
    return {
        "codes_used": float(num_used),
        "codebook_usage": num_used / num_codes,
        "perplexity": math.exp(nats),
        "bits_per_pixel": math.log2(num_codes) / pixels_per_code,
        "entropy_bits_per_pixel": nats / math.log(2.0) / pixels_per_code,
    }


def in_batches(
    images: UInt8[np.ndarray, "n y x c"], batch_size: int = 32
) -> Iterator[UInt8[np.ndarray, "_ y x c"]]:
    """Yield pictures in batches, in order."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def reconstruction_grid(tokenizer: ImageTokenizer, images: UInt8[Tensor, "b c y x"]) -> Image.Image:
    """Draw originals in rows of eight, with the reconstruction below each.

    Args:
        tokenizer: image tokenizer.
        images: one or more pictures.
    """
    originals = as_float(images)
    return _grid(originals, tokenizer.decode(tokenizer.encode(originals)).cpu())


def _grid(originals: Float[Tensor, "b c y x"], reconstructions: Float[Tensor, "b c y x"]) -> Image.Image:
    """Draw pictures in rows of eight, with the reconstruction below each."""
    both = torch.stack([originals, reconstructions])
    _, num_images, channels, height, width = both.shape
    num_columns = min(num_images, _GRID_COLUMNS)
    num_rows = -(-num_images // num_columns)
    grid = torch.ones(channels, num_rows * (2 * height + _GAP_PIXELS) - _GAP_PIXELS, num_columns * width)
    for index in range(num_images):
        row, column = divmod(index, num_columns)
        top, left = row * (2 * height + _GAP_PIXELS), column * width
        grid[:, top : top + 2 * height, left : left + width] = torch.cat(list(both[:, index]), 1)
    return tensor_to_images(grid[None])[0]
