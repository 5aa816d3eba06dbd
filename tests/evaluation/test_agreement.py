"""Krippendorff's alpha against numbers computed by hand, and against its definition pair by pair."""

import itertools

import numpy as np
import pytest

from cogview.evaluation.questionnaire.agreement import krippendorff_alpha

# The example by which Krippendorff explains it: twelve units, four observers, some of whom say nothing.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)


def counts_of(observers: tuple[tuple[int, ...], ...], num_values: int) -> np.ndarray:
    """Return how often each unit got each value; 0 is no rating."""
    units = zip(*observers, strict=True)
    return np.array([[unit.count(value) for value in range(1, num_values + 1)] for unit in units])


def plain_alpha(counts: np.ndarray, level: str) -> float:
    """Compute 1 - observed / expected disagreement over all pairs of ratings, one by one."""
    units = [
        [value for value, number in enumerate(unit) for _ in range(number)]
        for unit in counts.tolist()
        if sum(unit) > 1
    ]
    ratings = [value for unit in units for value in unit]

    def distance(one: int, other: int) -> float:
        if level == "nominal":
            return float(one != other)
        low, high = sorted((one, other))
        between = sum(ratings.count(value) for value in range(low, high + 1))
        return (between - (ratings.count(low) + ratings.count(high)) / 2) ** 2

    observed = sum(
        sum(distance(*pair) for pair in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    expected = sum(distance(*pair) for pair in itertools.permutations(ratings, 2))
    return 1 - (observed / len(ratings)) / (expected / (len(ratings) * (len(ratings) - 1)))


def test_the_published_example() -> None:
    counts = counts_of(OBSERVERS, 5)
    assert krippendorff_alpha(counts, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_three_units_by_hand() -> None:
    # Two raters, (1, 1), (2, 2), (1, 2): 2 of 6 ordered pairs differ; of all 6 * 5 pairs of ratings 18 do.
    # So alpha = 1 - (2 / 6) / (18 / 30) = 4 / 9. Two values have but one distance, whatever it is.
    counts = counts_of(((1, 2, 1), (1, 2, 2)), 2)
    assert krippendorff_alpha(counts, "nominal") == pytest.approx(4 / 9, abs=1e-12)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(4 / 9, abs=1e-12)
    # (1, 1), (3, 3), (1, 2): three ones, one two, two threes. Ordinal distances: 1-2 (3/2 + 1/2)^2 = 4, 1-3
    # (3/2 + 1 + 1)^2 = 12.25, 2-3 (1/2 + 1)^2 = 2.25. Observed 2 * 4 / 6, expected
    # 2 * (3 * 1 * 4 + 3 * 2 * 12.25 + 1 * 2 * 2.25) / 30 = 180 / 30.
    counts = counts_of(((1, 3, 1), (1, 3, 2)), 3)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(1 - (8 / 6) / (180 / 30), abs=1e-12)
    assert krippendorff_alpha(counts, "nominal") == pytest.approx(1 - (2 / 6) / (22 / 30), abs=1e-12)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_any_ratings_as_pair_by_pair(level: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        counts = random.integers(0, 3, (7, 4))
        counts[0] = (2, 1, 0, 0)
        assert krippendorff_alpha(counts, level) == pytest.approx(plain_alpha(counts, level), abs=1e-12)


def test_what_it_means() -> None:
    agreed = counts_of(((1, 2, 3), (1, 2, 3), (1, 2, 3)), 3)
    assert krippendorff_alpha(agreed, "ordinal") == 1.0
    opposed = counts_of(((1, 2, 1, 2), (2, 1, 2, 1)), 2)
    assert krippendorff_alpha(opposed, "nominal") < 0
    random = np.random.default_rng(0)
    chance = counts_of(tuple(map(tuple, random.integers(1, 6, (3, 4000)).tolist())), 5)
    assert abs(krippendorff_alpha(chance, "ordinal")) < 0.03  # a standard deviation is about 0.01
    near = counts_of(((1, 3, 5, 2), (2, 3, 5, 1)), 5)
    far = counts_of(((1, 3, 5, 1), (5, 3, 5, 1)), 5)
    assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(far, "ordinal")
    alone = counts_of(((1, 2, 0), (0, 0, 3)), 3)
    assert krippendorff_alpha(alone, "ordinal") is None
    same = counts_of(((2, 2), (2, 2)), 3)
    assert krippendorff_alpha(same, "nominal") is None
