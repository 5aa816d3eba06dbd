"""The distances against plain and closed forms of them."""

import itertools

import numpy as np
import pytest
import torch

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.distances import (
    frechet_distance,
    mean_squared_error,
    perceptual_distance,
    psnr,
    ssim,
)

TOO_FEW = pytest.mark.filterwarnings("ignore:.*pictures are too few")


def images(seed: int, height: int = 13, width: int = 15) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def features(seed: int, num: int, width: int) -> torch.Tensor:
    """Return features of unlike spread that hang together."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(num, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return (mixed * torch.logspace(0, -2, width) + seed).double()


def white(seed: int, num: int, width: int) -> torch.Tensor:
    """Return features whose mean is 0 and whose covariance is the identity."""
    drawn = torch.randn(num, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(drawn - drawn.mean(0)).Q * (num - 1) ** 0.5


def plain_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over colours and windows, each window weighed and summed by itself."""
    places = np.arange(11) - 5
    weights = np.exp(-(places[:, None] ** 2 + places[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    _, height, width = first.shape
    for colour, top, left in itertools.product(range(3), range(height - 10), range(width - 10)):
        a, b = (image[colour, top : top + 11, left : left + 11] for image in (first, second))
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
        covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
        above = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
        found.append(above / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return float(np.mean(found))


def test_psnr_is_that_of_pixels_between_0_and_1() -> None:
    originals = images(0) * 0.5
    error = mean_squared_error(originals, originals + 0.2)
    assert error.tolist() == pytest.approx([0.01, 0.01], rel=1e-5)
    assert psnr(error).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert psnr(mean_squared_error(originals, originals)).tolist() == [100.0, 100.0]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ssim_is_that_of_single_windows(share: float) -> None:
    originals = images(0)
    copies = (1 - share) * originals + share * images(1)
    plain = [
        plain_ssim((a.double().numpy() + 1) / 2, (b.double().numpy() + 1) / 2)
        for a, b in zip(originals, copies, strict=True)
    ]
    assert ssim(originals, copies).tolist() == pytest.approx(plain, abs=1e-5)
    assert ssim(originals, copies).tolist() == pytest.approx(ssim(copies, originals).tolist(), abs=1e-6)
    if not share:
        assert plain == pytest.approx([1.0, 1.0])


def test_ssim_of_bright_flat_pictures_is_not_lost_in_rounding() -> None:
    originals, copies = 0.98 + 0.02 * images(0), 0.98 + 0.02 * images(1)
    plain = [
        plain_ssim((a.double().numpy() + 1) / 2, (b.double().numpy() + 1) / 2)
        for a, b in zip(originals, copies, strict=True)
    ]
    assert ssim(originals, copies).tolist() == pytest.approx(plain, abs=2e-7)


def test_ssim_refuses_pictures_smaller_than_a_window() -> None:
    assert ssim(images(0, 11, 11), images(1, 11, 11)).shape == (2,)
    with pytest.raises(UsageError, match=r"11 x 11 pixels.* 10 x 30"):
        ssim(images(0, 10, 30), images(0, 10, 30))


def test_the_perceptual_distance_compares_directions_of_features() -> None:
    maps = [images(0), images(1, 4, 4)]
    assert perceptual_distance(maps, [3 * each for each in maps]).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert perceptual_distance(maps, [-each for each in maps]).tolist() == pytest.approx([4, 4], rel=1e-5)
    # Each layer counts the same, however fine its map: one of the two is opposite.
    assert perceptual_distance(maps, [maps[0], -maps[1]]).tolist() == pytest.approx([2, 2], rel=1e-5)
    across = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None]
    assert perceptual_distance([across], [across.flip(0)]).tolist() == pytest.approx([2, 2])


@pytest.mark.slow
def test_the_frechet_distance_is_that_of_the_root_of_the_matrix() -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy has the root of a matrix")
    for width in (1, 2, 24):
        first, second = features(1, 300, width), features(2, 200, width)
        means = [each.mean(0).numpy() for each in (first, second)]
        covariances = [np.cov(each.numpy(), rowvar=False).reshape(width, width) for each in (first, second)]
        root = linalg.sqrtm(covariances[0] @ covariances[1]).real
        expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
        assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
        assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_gaussians_along_the_axes_is_known() -> None:
    deviations = torch.linspace(0.1, 2.0, 8), torch.linspace(3.0, 0.2, 8)
    first, second = (white(seed, 50, 8) * each + seed for seed, each in enumerate(deviations))
    expected = 8 * 1.0 + float((deviations[0] - deviations[1]).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


@TOO_FEW
@pytest.mark.parametrize("num", [5, 60])
def test_a_set_is_at_no_frechet_distance_from_itself(num: int) -> None:
    same = features(3, num, 16)
    assert 0 <= frechet_distance(same, same.flip(0)) < 1e-10 * float(same.square().sum())


@TOO_FEW
def test_singular_covariances_are_taken_as_they_are() -> None:
    first, second = features(1, 6, 16), features(2, 9, 16)
    covariances = [torch.cov(each.T) for each in (first, second)]
    eigenvalues, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * eigenvalues.clamp_min(0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    traces = covariances[0].trace() + covariances[1].trace()
    expected = (first.mean(0) - second.mean(0)).square().sum() + traces - 2 * inner
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)


def test_too_few_pictures_for_the_features_are_told() -> None:
    with pytest.warns(UserWarning, match="16 pictures .*16 features"):
        frechet_distance(features(1, 16, 16), features(2, 30, 16))
    frechet_distance(features(1, 17, 16), features(2, 30, 16))
    with pytest.raises(CogViewError, match="infinite or NaN"):
        frechet_distance(features(1, 17, 16), features(2, 30, 16) * float("nan"))
    with pytest.raises(CogViewError, match=r"two pictures .* 1"):
        frechet_distance(features(1, 1, 16), features(2, 30, 16))
