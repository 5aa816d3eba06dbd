"""How far raters agree."""

from typing import Literal

import numpy as np
from jaxtyping import Int


def krippendorff_alpha(
    counts: Int[np.ndarray, "units values"], level: Literal["nominal", "ordinal"]
) -> float | None:
    """Return Krippendorff's alpha: 1 if raters agree, 0 if no more than by chance, below if they contradict each other.

    Any number of raters may have rated a unit; those rated by fewer than two tell nothing of agreement.

    Args:
        counts: how many raters gave a unit a value; values that have an order are in it.
        level: whether values only differ ("nominal"), or have an order ("ordinal"): their distance is then how many
            ratings lie between them.

    Returns:
        None if no unit has two ratings, or all ratings are one value: there is nothing to agree on.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    num_ratings = counts.sum(axis=1, keepdims=True)
    # Of each unit, all ordered pairs of ratings by two raters, weighing as much as its ratings.
    coincidences = (counts / (num_ratings - 1)).T @ counts - np.diag((counts / (num_ratings - 1)).sum(axis=0))
    totals = counts.sum(axis=0).astype(np.float64)
    if level == "nominal":
        distances = 1.0 - np.eye(len(totals))
    else:
        middles = np.cumsum(totals) - totals / 2  # where a value's ratings lie among all in order
        distances = (middles[:, None] - middles[None, :]) ** 2
    expected = float((np.outer(totals, totals) * distances).sum()) / (float(totals.sum()) - 1)
    if expected == 0.0:
        return None
    return 1.0 - float((coincidences * distances).sum()) / expected
