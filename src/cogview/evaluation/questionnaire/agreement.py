"""Agreement between raters."""

from typing import Literal

import numpy as np
from jaxtyping import Int


def krippendorff_alpha(
    counts: Int[np.ndarray, "units values"], level: Literal["nominal", "ordinal"]
) -> float | None:
    """Return Krippendorff's alpha: 1 for full agreement, 0 for chance, negative for disagreement.

    Units may have any number of raters; those with fewer than two are ignored.

    Args:
        counts: number of raters who gave a unit a value; ordinal values in their order.
        level: "nominal", or "ordinal": the distance of two values is the number of ratings between them.

    Returns:
        Alpha; None if no unit has two ratings, or all ratings are equal.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    num_ratings = counts.sum(axis=1, keepdims=True)
    # Ordered pairs of ratings of each unit, weighted by its number of ratings.
    coincidences = (counts / (num_ratings - 1)).T @ counts - np.diag((counts / (num_ratings - 1)).sum(axis=0))
    totals = counts.sum(axis=0).astype(np.float64)
    if level == "nominal":
        distances = 1.0 - np.eye(len(totals))
    else:
        middles = np.cumsum(totals) - totals / 2  # mean rank of a value's ratings
        distances = (middles[:, None] - middles[None, :]) ** 2
    expected = float((np.outer(totals, totals) * distances).sum()) / (float(totals.sum()) - 1)
    if expected == 0.0:
        return None
    return 1.0 - float((coincidences * distances).sum()) / expected
