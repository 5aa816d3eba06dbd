"""Distances between pictures and their copies, and between sets of pictures."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import CogViewError, UsageError

SSIM_WINDOW_PIXELS = 11
_SSIM_SIGMA_PIXELS = 1.5
# The published constants, for pixels in [0, 1]; they avoid divisions by zero in flat windows.
_SSIM_LUMINANCE, _SSIM_CONTRAST = 0.01**2, 0.03**2
# Lower bound of errors, so that equal pictures have 100 dB rather than infinity.
_LEAST_ERROR = 1e-10


def mean_squared_error(
    originals: Float[Tensor, "b c y x"], copies: Float[Tensor, "b c y x"]
) -> Float[Tensor, "b"]:
    """Return the mean squared error of each picture, of pixels in [0, 1].

    Args:
        originals: in [-1, 1].
        copies: in [-1, 1].
    """
    return ((copies - originals) / 2.0).square().mean((1, 2, 3))


def psnr(error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the peak signal-to-noise ratio of a mean squared error, in dB."""
    return -10.0 * error.clamp_min(_LEAST_ERROR).log10()


def ssim(originals: Float[Tensor, "b c y x"], copies: Float[Tensor, "b c y x"]) -> Float[Tensor, "b"]:
    """Return the structural similarity (SSIM) of each picture, 1 for equal ones: the mean over channels and windows.

    As published (Wang et al., 2004), with Gaussian windows of 11 x 11 pixels and a deviation of 1.5 inside the picture,
    but for red, green and blue instead of brightness.

    Args:
        originals: in [-1, 1].
        copies: in [-1, 1].

    Raises:
        UsageError: the pictures are smaller than a window.
    """
    _, num_channels, height, width = originals.shape
    if min(height, width) < SSIM_WINDOW_PIXELS:
        raise UsageError(
            f"SSIM compares windows of {SSIM_WINDOW_PIXELS} x {SSIM_WINDOW_PIXELS} pixels, got pictures of "
            f"{height} x {width}; take larger ones"
        )
    # In double precision: variances are differences of nearly equal numbers, and GPUs may use TF32 for float32.
    first, second = (originals.double() + 1.0) / 2.0, (copies.double() + 1.0) / 2.0
    window = _gaussian(SSIM_WINDOW_PIXELS, _SSIM_SIGMA_PIXELS).to(first).expand(num_channels, 1, -1)
    products = torch.cat([first, second, first * first, second * second, first * second])
    columns = F.conv2d(products, window[..., :, None], groups=num_channels)
    means = F.conv2d(columns, window[..., None, :], groups=num_channels)
    mean_1, mean_2, square_1, square_2, product = means.chunk(5)
    variances = square_1 - mean_1.square() + square_2 - mean_2.square()
    covariance = product - mean_1 * mean_2
    luminance = (2.0 * mean_1 * mean_2 + _SSIM_LUMINANCE) / (
        mean_1.square() + mean_2.square() + _SSIM_LUMINANCE
    )
    structure = (2.0 * covariance + _SSIM_CONTRAST) / (variances + _SSIM_CONTRAST)
    return (luminance * structure).mean((1, 2, 3)).to(originals.dtype)


def _gaussian(num_pixels: int, sigma_pixels: float) -> Float[Tensor, "k"]:
    """Return the weights of a window along one side, which sum to 1."""
    places = torch.arange(num_pixels, dtype=torch.float64) - (num_pixels - 1) / 2
    return torch.softmax(-places.square() / (2.0 * sigma_pixels**2), 0)


def perceptual_distance(
    originals: Sequence[Float[Tensor, "b _ _ _"]], copies: Sequence[Float[Tensor, "b _ _ _"]]
) -> Float[Tensor, "b"]:
    """Return the distance of each picture's feature maps, from 0 for equal ones to 4.

    It is the squared distance of normalized features, averaged over places and then over maps. Unlike LPIPS it has no
    learnt channel weights, so the two are not comparable.

    Args:
        originals: feature maps of each layer.
        copies: feature maps of the copies.
    """
    distances = [
        (F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(1).mean((1, 2))
        for first, second in zip(originals, copies, strict=True)
    ]
    return torch.stack(distances).mean(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """Gaussian fitted to a set of features.

    Args:
        mean: mean of the features.
        factor: matrix A of at most d rows, with A^T A the unbiased covariance.
    """

    mean: Float[Tensor, "d"]
    factor: Float[Tensor, "k d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "Gaussian":
        """Fit a Gaussian to a set of features, in double precision.

        Raises:
            CogViewError: there are fewer than two, or some are infinite or NaN.
        """
        if not torch.isfinite(features).all():
            raise CogViewError(
                "Features of some pictures are infinite or NaN: the weights of the model or the feature network are "
                "damaged; give others."
            )
        if len(features) < 2:
            raise CogViewError(
                f"A Frechet distance needs two pictures or more in each set, got {len(features)}."
            )
        features = features.double()
        mean = features.mean(0)
        factor = (features - mean) / (len(features) - 1) ** 0.5
        if len(factor) > factor.shape[1]:
            factor = torch.linalg.qr(factor, mode="r").R
        return cls(mean=mean, factor=factor)

    def distance(self, other: "Gaussian") -> float:
        """Return the Frechet distance, |mean - mean'|^2 + trace(C + C' - 2 (C C')^(1/2)).

        With C = A^T A and C' = B^T B, the trace of the root is the sum of the singular values of A B^T, which also
        works for singular covariances.
        """
        trace_of_root = torch.linalg.svdvals(self.factor @ other.factor.T).sum()
        traces = self.factor.square().sum() + other.factor.square().sum()
        return max(0.0, float((self.mean - other.mean).square().sum() + traces - 2.0 * trace_of_root))


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Return the Frechet distance of two sets of features; warn if they are few, as it is then biased upwards.

    Args:
        first: features of some pictures.
        second: features of other pictures, by the same backbone.

    Raises:
        CogViewError: a set has fewer than two members.
    """
    gaussians = Gaussian.of(first), Gaussian.of(second)
    warn_if_few(min(len(first), len(second)), first.shape[1])
    return gaussians[0].distance(gaussians[1])


def warn_if_few(num_pictures: int, num_features: int) -> None:
    """Warn if the covariance of so many pictures is singular."""
    if num_pictures <= num_features:
        warnings.warn(
            f"{num_pictures:,} pictures are too few for {num_features:,} features: their covariances are singular, and "
            "the Frechet distance, computed from these as they are, depends on the number of pictures; compare it only "
            f"between equal numbers, or take more than {num_features:,}.",
            stacklevel=1,
        )
