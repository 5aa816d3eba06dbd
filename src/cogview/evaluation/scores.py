"""Inception Score, kernel distance, and means with 95 % intervals."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cogview.errors import CogViewError

NUM_SPLITS = 10
NUM_SUBSETS = 10
MIN_PICTURES = 2 * NUM_SUBSETS
_STUDENT_T_95 = 2.2622  # two-sided, for the 9 degrees of freedom of 10 subsets


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Figure with its 95 % interval."""

    value: float
    low: float
    high: float


def inception_score(logits: Float[Tensor, "n v"], num_splits: int = NUM_SPLITS) -> tuple[float, float]:
    """Return exp(mean KL(p(y|x) || p(y))): its mean and standard deviation over parts of the set.

    p(y) is the mean of p(y|x) over the part. Only with Inception's logits is this the Inception Score. It is at most
    the number of classes, and that of pictures in a part, so compare it only between equal numbers of pictures.

    Args:
        logits: class logits of each picture.
        num_splits: number of consecutive parts; published scores have 10.

    Raises:
        CogViewError: there are fewer pictures than parts.
    """
    if len(logits) < num_splits:
        raise CogViewError(
            f"The score is a mean over {num_splits} parts of the pictures, and there are {len(logits)}: take more."
        )
    scores = []
    for part in logits.double().tensor_split(num_splits):
        log_p = part.log_softmax(1)
        log_mean = log_p.logsumexp(0) - np.log(len(part))
        scores.append(float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))


def squared_mmd(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy, with the kernel (x . y / d + 1)^3.

    It can be negative for similar sets.

    Args:
        first: features of two or more pictures.
        second: features of two or more other pictures, by the same backbone.
    """
    num_1, num_2 = len(first), len(second)
    assert min(num_1, num_2) >= 2, "a set without pairs"
    within_1, within_2, between = _kernel(first, first), _kernel(second, second), _kernel(first, second)
    mean_1 = (within_1.sum() - within_1.trace()) / (num_1 * (num_1 - 1))
    mean_2 = (within_2.sum() - within_2.trace()) / (num_2 * (num_2 - 1))
    return float(mean_1 + mean_2 - 2.0 * between.mean())


def _kernel(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    first, second = first.double(), second.double()
    return (first @ second.T / first.shape[1] + 1.0) ** 3


def kernel_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], seed: int = 0) -> Estimate:
    """Return the mean squared maximum mean discrepancy of ten random subsets of two sets, with its interval.

    The subsets are disjoint, so their values are independent and unbiased, and Student's t gives an interval. Published
    kernel distances average a hundred overlapping subsets, whose spread is no interval.

    Args:
        first: features of some pictures.
        second: features of other pictures, by the same backbone.
        seed: seed of the subsets.

    Raises:
        CogViewError: a set has fewer than two pictures per subset.
    """
    num_least = min(len(first), len(second))
    if num_least < MIN_PICTURES:
        raise CogViewError(
            f"The kernel distance needs {MIN_PICTURES} pictures or more in each set, got {num_least}: take more."
        )
    generator = torch.Generator().manual_seed(seed)
    parts = [
        features[torch.randperm(len(features), generator=generator)].tensor_split(NUM_SUBSETS)
        for features in (first, second)
    ]
    values = np.array([squared_mmd(*each) for each in zip(*parts, strict=True)])
    mean, half = float(values.mean()), float(_STUDENT_T_95 * values.std(ddof=1) / NUM_SUBSETS**0.5)
    return Estimate(value=mean, low=mean - half, high=mean + half)


def mean_of(values: Float[np.ndarray, "n"]) -> Estimate:
    """Return the mean of independent values with its interval, which is too narrow for few values."""
    mean = float(values.mean())
    half = float(1.96 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return Estimate(value=mean, low=mean - half, high=mean + half)
