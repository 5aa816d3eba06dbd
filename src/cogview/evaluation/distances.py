"""How far pictures are from one another: each from its own copy, or one set from another."""

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
# The published constants, for pixels in [0, 1]: they keep flat patches from being divided by nothing.
_SSIM_LUMINANCE, _SSIM_CONTRAST = 0.01**2, 0.03**2
# Errors below this count as this: equal pictures have 100 dB instead of infinitely many.
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
    """Return the structural similarity of each picture, 1 for equal ones: the mean over colours and windows.

    As published (Wang et al., 2004): Gaussian windows of 11 x 11 pixels and a deviation of 1.5, only those that lie
    inside the picture. Red, green and blue are compared apart, where the publication compares brightness.

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
    # In double precision, for variances are differences of nearly equal numbers; GPUs round float32 convolutions to
    # TF32, whose 10 bits would leave nothing of them.
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
    """Return the weights of a window along one side; they add up to 1."""
    places = torch.arange(num_pixels, dtype=torch.float64) - (num_pixels - 1) / 2
    return torch.softmax(-places.square() / (2.0 * sigma_pixels**2), 0)


def perceptual_distance(
    originals: Sequence[Float[Tensor, "b _ _ _"]], copies: Sequence[Float[Tensor, "b _ _ _"]]
) -> Float[Tensor, "b"]:
    """Return how far the feature maps of each picture are apart, 0 for equal ones and at most 4.

    At each place of each map the features are scaled to length 1 and compared by the square of their distance, which
    is averaged over places and then over maps. LPIPS does the same with weights for channels that were learnt from
    people's judgements; there are none here, so the two are not comparable.

    Args:
        originals: a map for each layer.
        copies: those of the other pictures.
    """
    distances = [
        (F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(1).mean((1, 2))
        for first, second in zip(originals, copies, strict=True)
    ]
    return torch.stack(distances).mean(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """The Gaussian that a set of features is taken for a sample of.

    Args:
        mean: of the features.
        factor: a matrix A of at most d rows, with A^T A the unbiased covariance.
    """

    mean: Float[Tensor, "d"]
    factor: Float[Tensor, "k d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "Gaussian":
        """Return the Gaussian of a set of features, in double precision.

        Raises:
            CogViewError: there are fewer than two, so no covariance, or some are infinite or NaN.
        """
        if not torch.isfinite(features).all():
            raise CogViewError(
                "Features of some pictures are infinite or NaN: the weights of what sees or draws them are damaged; "
                "give others."
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

        With C = A^T A and C' = B^T B, the trace of the root is the sum of the singular values of A B^T, so no root of a
        matrix is taken, and singular covariances need nothing added to them.
        """
        trace_of_root = torch.linalg.svdvals(self.factor @ other.factor.T).sum()
        traces = self.factor.square().sum() + other.factor.square().sum()
        return max(0.0, float((self.mean - other.mean).square().sum() + traces - 2.0 * trace_of_root))


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Return the Frechet distance of two sets of features, each taken for a sample of a Gaussian.

    With few pictures it is too large on average, so that is warned of.

    Args:
        first: features of some pictures.
        second: features of others, by the same backbone.

    Raises:
        CogViewError: a set has fewer than two members, so no covariance.
    """
    gaussians = Gaussian.of(first), Gaussian.of(second)
    warn_if_few(min(len(first), len(second)), first.shape[1])
    return gaussians[0].distance(gaussians[1])


def warn_if_few(num_pictures: int, num_features: int) -> None:
    """Tell if the covariance of so many pictures is singular."""
    if num_pictures <= num_features:
        warnings.warn(
            f"{num_pictures:,} pictures are too few for {num_features:,} features: their covariances are singular, and "
            "the Frechet distance, computed from these as they are, depends on the number of pictures; compare it only "
            f"between equal numbers, or take more than {num_features:,}.",
            stacklevel=1,
        )
