"""Figures of a questionnaire's answers: preference shares, mean scores, and agreement of raters."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.agreement import krippendorff_alpha
from cogview.evaluation.questionnaire.answers import SCALES, Answer
from cogview.evaluation.questionnaire.folder import Key

_DRAWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of answers by question and system.

    Args:
        counts: number of raters who answered a question.
        picks: number of raters who preferred a system.
        ratings: number of raters who gave a system a score; scales in the order of `SCALES`, scores from 1.
    """

    counts: Int[np.ndarray, "questions"]
    picks: Int[np.ndarray, "questions systems"]
    ratings: Int[np.ndarray, "questions systems scales scores"]


def tally_answers(answers: Sequence[Answer], key: Key) -> Tally:
    """Count answers, leaving out questions without any."""
    rows = {number: row for row, number in enumerate(sorted({answer.question for answer in answers}))}
    columns = {system: column for column, system in enumerate(key.systems)}
    tally = Tally(
        counts=np.zeros(len(rows), dtype=np.int64),
        picks=np.zeros((len(rows), len(columns)), dtype=np.int64),
        ratings=np.zeros((len(rows), len(columns), len(SCALES), max(SCALES.values())), dtype=np.int64),
    )
    for answer in answers:
        row = rows[answer.question]
        tally.counts[row] += 1
        tally.picks[row, columns[key.system_of[answer.best]]] += 1
        for picture, scores in answer.scores.items():
            for index, scale in enumerate(SCALES):
                tally.ratings[row, columns[key.system_of[picture]], index, scores[scale] - 1] += 1
    return tally


def figures_of(
    answers: Sequence[Answer], key: Key, *, num_draws: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Return the figures of a questionnaire's answers, as plain data.

    Each answer has the same weight. The 95 % intervals are from a bootstrap over questions, so they cover the choice of
    captions but not that of raters.

    Args:
        answers: at least one answer.
        key: system of each picture.
        num_draws: number of bootstrap draws.
        seed: seed of the draws.

    Raises:
        CogViewError: there are no answers.
        UsageError: `num_draws` is less than 1, or the seed is negative.

    Paper: 4.2, figure 10.
    """
    if not answers:
        raise CogViewError("there are no answers yet: serve the questionnaire and let people answer it")
    if num_draws < 1:
        raise UsageError(f"num_draws must be 1 or more, got {num_draws}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    tally = tally_answers(answers, key)
    scores = np.arange(1, max(SCALES.values()) + 1)
    sums = np.concatenate([tally.picks[:, :, None], tally.ratings @ scores], axis=2)
    means = bootstrap_ratios(sums, tally.counts, num_draws=num_draws, seed=seed)
    by_figure = [
        {
            system: dict(zip(("value", "low", "high"), map(_plain, means[:, column, index]), strict=True))
            for column, system in enumerate(key.systems)
        }
        for index in range(1 + len(SCALES))
    ]
    agreement: dict[str, float | None] = {
        scale: krippendorff_alpha(tally.ratings[:, :, index].reshape(-1, len(scores)), "ordinal")
        for index, scale in enumerate(SCALES)
    }
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    return {
        "systems": list(key.systems),
        "num_answers": len(answers),
        "num_raters": len({answer.rater for answer in answers}),
        "num_questions_answered": len(tally.counts),
        "num_questions_of_several_raters": int((tally.counts > 1).sum()),
        "median_seconds_per_question": statistics.median(seconds) if seconds else None,
        "interval": f"95 %, percentiles of {num_draws:,} bootstrap draws over questions, seed {seed}",
        "preference_share": by_figure[0],
        "mean_scores": dict(zip(SCALES, by_figure[1:], strict=True)),
        "krippendorff_alpha": agreement | {"best": krippendorff_alpha(tally.picks, "nominal")},
    }


def bootstrap_ratios(
    sums: Int[np.ndarray, "questions systems figures"],
    counts: Int[np.ndarray, "questions"],
    *,
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "3 systems figures"]:
    """Return means over answers with the ends of their 95 % intervals, NaN for fewer than two questions.

    Args:
        sums: sums over the answers of each question.
        counts: number of answers of each question.
        num_draws: number of bootstrap draws.
        seed: seed of the draws.
    """
    num_questions = len(counts)
    values = sums.sum(axis=0) / counts.sum()
    if num_questions < 2:
        return np.stack([values, np.full_like(values, np.nan), np.full_like(values, np.nan)])
    random = np.random.default_rng(seed)
    draws: list[np.ndarray] = []
    for start in range(0, num_draws, _DRAWS_AT_ONCE):
        shape = min(_DRAWS_AT_ONCE, num_draws - start)
        # In floats, since numpy's integer products are slow.
        weights = random.multinomial(num_questions, np.full(num_questions, 1 / num_questions), size=shape)
        totals = weights.astype(np.float64) @ sums.reshape(num_questions, -1).astype(np.float64)
        draws.append(totals / (weights @ counts)[:, None])
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975], axis=0)
    return np.stack([values, low.reshape(values.shape), high.reshape(values.shape)])


def _plain(number: np.float64) -> float | None:
    """Return a number for JSON, None for NaN."""
    return None if np.isnan(number) else float(number)
