"""The figures of an image tokenizer: each of its own definition, whatever the batches."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.backbone import Features
from cogview.evaluation.reconstruction import (
    code_figures,
    evaluate_reconstruction,
    in_batches,
    reconstruction_grid,
)
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from tiny import tiny_image_tokenizer

TOO_FEW = pytest.mark.filterwarnings("ignore:.*pictures are too few")


class Means:
    """Sees mean colours."""

    name = "means"

    def __call__(self, images: Tensor) -> Features:
        return Features(pooled=images.mean((2, 3)), maps=(images, F.avg_pool2d(images, 4)))


class Perfect(ImageTokenizer):
    """Remembers what it has encoded."""

    def encode(self, images: Tensor) -> Tensor:
        self.images = images
        return super().encode(images)

    def decode(self, codes: Tensor) -> Tensor:
        return self.images


def pictures(num: int = 5, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def test_the_figures_do_not_depend_on_the_batches() -> None:
    tokenizer = tiny_image_tokenizer()
    one, two, all_at_once = (
        evaluate_reconstruction(tokenizer, in_batches(pictures(), size), Means()) for size in (1, 2, 5)
    )
    assert list(one) == [
        *("psnr_db", "psnr_of_mean_error_db", "ssim"),
        *("unweighted_perceptual_distance_means", "frechet_distance_means"),
        *("codes_used", "codebook_usage", "perplexity", "bits_per_pixel", "entropy_bits_per_pixel"),
    ]
    for other in (two, all_at_once):
        assert other == pytest.approx(one, rel=1e-4)


def test_psnr_is_the_mean_over_pictures_beside_that_of_the_mean_error() -> None:
    class Shifted(Perfect):
        def decode(self, codes: Tensor) -> Tensor:
            return self.images + torch.tensor([0.2, 0.02])[:, None, None, None]

    tokenizer = Shifted(tiny_image_tokenizer().autoencoder)
    figures = evaluate_reconstruction(tokenizer, [pictures(2)])
    assert figures["psnr_db"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert figures["psnr_of_mean_error_db"] == pytest.approx(-10 * math.log10(0.01 * 1.01 / 2), abs=1e-3)


@TOO_FEW
def test_a_perfect_tokenizer_has_perfect_figures() -> None:
    figures = evaluate_reconstruction(Perfect(tiny_image_tokenizer().autoencoder), [pictures(3)], Means())
    assert (figures["psnr_db"], figures["unweighted_perceptual_distance_means"]) == (100.0, 0.0)
    assert figures["ssim"] == pytest.approx(1.0)
    assert figures["frechet_distance_means"] == pytest.approx(0.0, abs=1e-9)


def test_further_distances_can_be_given() -> None:
    def mean_difference(originals: Tensor, copies: Tensor) -> Tensor:
        return (originals - copies).abs().mean((1, 2, 3), keepdim=True)  # a shape like that of LPIPS

    tokenizer = tiny_image_tokenizer()
    batches = list(in_batches(pictures(), 2))
    figures = evaluate_reconstruction(tokenizer, batches, distances={"mean_difference": mean_difference})
    originals = as_float(torch.from_numpy(pictures()).permute(0, 3, 1, 2))
    expected = (tokenizer.decode(tokenizer.encode(originals)) - originals).abs().mean()
    assert figures["mean_difference"] == pytest.approx(float(expected), rel=1e-5)


def test_what_cannot_be_measured_is_left_out() -> None:
    tokenizer = tiny_image_tokenizer()
    assert "ssim" not in evaluate_reconstruction(tokenizer, [pictures(side=8)])
    assert not any("_distance_" in name for name in evaluate_reconstruction(tokenizer, [pictures()]))
    with pytest.warns(UserWarning, match="covariance"):
        figures = evaluate_reconstruction(tokenizer, [pictures(1)], Means())
    assert "unweighted_perceptual_distance_means" in figures
    assert "frechet_distance_means" not in figures


def test_pictures_that_do_not_fit_or_are_none_are_refused() -> None:
    tokenizer = tiny_image_tokenizer()
    with pytest.raises(CogViewError, match="no pictures to measure"):
        evaluate_reconstruction(tokenizer, [])
    with pytest.raises(UsageError, match="multiples of 4 pixels"):
        evaluate_reconstruction(tokenizer, [pictures(side=18)])


def test_codes_cost_the_bits_that_their_number_or_their_frequencies_ask_for() -> None:
    even = code_figures(torch.tensor([3] * 8), 4)
    assert even == pytest.approx(
        {
            "codes_used": 8,
            "codebook_usage": 1,
            "perplexity": 8,
            "bits_per_pixel": 3 / 16,
            "entropy_bits_per_pixel": 3 / 16,
        }
    )
    uneven = code_figures(torch.tensor([2, 1, 1, 0]), 2)
    assert uneven == pytest.approx(
        {
            "codes_used": 3,
            "codebook_usage": 0.75,
            "perplexity": 2**1.5,
            "bits_per_pixel": 2 / 4,
            "entropy_bits_per_pixel": 1.5 / 4,
        }
    )


@pytest.mark.parametrize(("num", "size"), [(3, (48, 32)), (8, (128, 32)), (9, (128, 72))])
def test_the_grid_holds_originals_over_reconstructions(num: int, size: tuple[int, int]) -> None:
    tokenizer, originals = tiny_image_tokenizer(), pictures(num)
    images = torch.from_numpy(originals).permute(0, 3, 1, 2)
    grid = reconstruction_grid(tokenizer, images)
    assert grid.size == size
    pixels = np.asarray(grid)
    copies = tokenizer.decode(tokenizer.encode(as_float(images))).permute(0, 2, 3, 1)
    for index in range(num):
        row, column = divmod(index, 8)
        block = pixels[row * 40 : row * 40 + 32, column * 16 : column * 16 + 16]
        assert np.array_equal(block[:16], originals[index])
        assert np.abs(block[16:] / 127.5 - 1 - copies[index].numpy()).max() <= 0.5 / 127.5 + 1e-6
    if num == 9:
        assert (pixels[32:40] == 255).all()
        assert (pixels[40:, 16:] == 255).all()
