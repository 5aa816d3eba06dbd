"""What a set of pictures is worth by itself, and how far two sets are apart without taking either for a Gaussian."""

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
    """A figure, and where it lies with a probability of 95 %."""

    value: float
    low: float
    high: float


def inception_score(logits: Float[Tensor, "n v"], num_splits: int = NUM_SPLITS) -> tuple[float, float]:
    """Return exp(mean KL(p(y|x) || p(y))), the mean over parts of the set, and the standard deviation over them.

    p(y) is the mean of p(y|x) over the same part; the parts are neighbours in the order given and as equal as can be.
    The score is that of whatever network gave the logits: only Inception's is the Inception Score. It is at most the
    number of classes, and at most that of pictures in a part, so compare it only between equal numbers of pictures.

    Args:
        logits: what a classifier says of each picture.
        num_splits: parts that the set is cut into; published scores have 10.

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

    It may be below zero for sets that are alike.

    Args:
        first: features of some pictures, two or more.
        second: features of others, by the same backbone, two or more.
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
    """Return the squared maximum mean discrepancy of two sets, the mean over ten random subsets, with its interval.

    The subsets have no picture in common, so they say ten times independently how far the sets are apart, without bias
    however few pictures there are, and Student's t makes an interval of it. Published kernel distances are means over a
    hundred subsets that overlap, whose spread is no interval.

    Args:
        first: features of some pictures.
        second: features of others, by the same backbone.
        seed: of the subsets.

    Raises:
        CogViewError: a set has fewer than two pictures for each subset.
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
    """Return the mean of independent values, two or more, with its interval; for few of them it is too narrow."""
    mean = float(values.mean())
    half = float(1.96 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return Estimate(value=mean, low=mean - half, high=mean + half)
