"""Means with what is chance about them."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence


def interval(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % interval.

    Args:
        values: of which the mean is taken.
        groups: which values belong together, for instance pictures of one drawing, so that they say less than as many
            that do not; by default each stands for itself.
    """
    mean = statistics.mean(values)
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, range(len(values)) if groups is None else groups, strict=True):
        sums[group] += value - mean
    variance = len(sums) / (len(sums) - 1) * sum(each * each for each in sums.values())
    return mean, 1.96 * math.sqrt(variance) / len(values)
