"""Choice of the number of guesses to verify, from their acceptance rates and the cost of a pass."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.code_guesser import PRIOR_ACCEPTANCE, CodeGuesser, GuessKind
from cogview.decoding.guess_table import GuessTable
from cogview.decoding.linear import padded_rows
from cogview.errors import UsageError

MAX_WINDOW = 64
"""Maximum of places of a row in one pass."""

_WORTH = 0.7
"""Exponent of a guess's probability that gives its worth: a token sampled after a wrong guess is a better guess
later.

Chosen by trial among 1, 0.7, 0.5, 0.3 and 0.15: larger ones are best for many pictures at once, smaller for one.
"""

_MIN_REACH = 0.02
_LEAST_SHARE = 0.25
"""Share of the probability of the last guess that was worth verifying in the pass before."""

_MAX_SOURCES = 16
"""Maximum of guessers to keep."""

_MEMORY = 0.98
"""Decay of a pass's weight in what is learnt, per pass."""


class Proposer:
    """Learns acceptance rates and pass costs, and chooses the windows of speculative decoding.

    Windows change the time that drawing takes, never the result.

    Args:
        max_window: maximum of places of a row in one pass; 1 decodes one by one.
        is_eager: verify all guesses, whatever they cost.

    Raises:
        UsageError: `max_window` is out of range.
    """

    def __init__(self, max_window: int = MAX_WINDOW, *, is_eager: bool = False) -> None:
        if not 1 <= max_window <= MAX_WINDOW:
            raise UsageError(f"max_window must be between 1 and {MAX_WINDOW}, got {max_window}")
        self.max_window = max_window
        self._is_eager = is_eager
        rates = np.array(PRIOR_ACCEPTANCE)
        self._num_right, self._num_tried = 8 * rates, np.full(len(rates), 8.0)
        self._guessers: dict[Hashable, CodeGuesser] = {}
        # Moments of tokens and seconds of a pass, from which a line is fitted.
        self._moments = np.zeros(5)
        self._min_reach = _MIN_REACH

    @property
    def min_reach(self) -> float:
        """Probability below which a guess is not considered."""
        return 0.0 if self._is_eager else self._min_reach

    @property
    def acceptance_rates(self) -> Float64[np.ndarray, "k"]:
        """Acceptance rate of each kind of guess."""
        rates: Float64[np.ndarray, "k"] = self._num_right / self._num_tried
        rates[GuessKind.GIVEN] = 1.0
        return rates

    @property
    def fixed_tokens(self) -> float:
        """Fixed cost of a pass, in tokens."""
        weight, tokens, seconds, squares, products = self._moments
        spread = weight * squares - tokens**2
        if weight < 4 or spread <= 1e-3 * tokens**2:
            return 24.0
        slope = (weight * products - tokens * seconds) / spread
        start = (seconds - slope * tokens) / weight
        if slope <= 0:
            return 256.0
        return float(np.clip(start / slope, 4.0, 256.0))

    def guesser_of(self, source: Hashable, table: GuessTable | None = None) -> CodeGuesser:
        """Return the guesser for pictures of one source.

        Args:
            source: weights, legal tokens and columns.
            table: guess table of the model.
        """
        if source not in self._guessers and len(self._guessers) >= _MAX_SOURCES:
            self._guessers.clear()
        if source not in self._guessers:
            self._guessers[source] = CodeGuesser(table)
        return self._guessers[source]

    def learn_guesses(self, kinds: Int64[np.ndarray, "n"], num_right: int) -> None:
        """Learn that the first `num_right` guesses of a row were right and the next, if any, wrong."""
        if len(kinds):
            tried, num_kinds = kinds[: num_right + 1], len(self._num_tried)
            self._num_tried += np.bincount(tried, minlength=num_kinds)
            self._num_right += np.bincount(tried[:num_right], minlength=num_kinds)

    def learn_pass(self, num_tokens: int, seconds: float) -> None:
        """Learn the cost of a pass."""
        self._moments *= _MEMORY
        self._moments += (1.0, num_tokens, seconds, num_tokens**2, num_tokens * seconds)
        too_many = self._num_tried > 400
        self._num_right[too_many] /= 2
        self._num_tried[too_many] /= 2

    def windows(
        self, reaches: Sequence[Float64[np.ndarray, "_"]], costs: Sequence[int], num_tokens: int
    ) -> list[int]:
        """Return the number of guesses to verify in each row, for the highest rate of codes.

        Args:
            reaches: for each row, the probability that each guess and all before it are right; falling.
            costs: tokens that a guess of each row adds to the pass.
            num_tokens: tokens of the pass without guesses.
        """
        if not reaches:
            return []
        if self._is_eager:
            return [len(each) for each in reaches]
        gains = np.concatenate(reaches) ** _WORTH
        if not len(gains):
            return [0] * len(reaches)
        owner = np.repeat(np.arange(len(reaches)), [len(each) for each in reaches])
        cost = np.asarray(costs)[owner]
        order = np.argsort(-gains / cost, kind="stable")
        codes = len(reaches) + np.cumsum(gains[order])
        tokens = self.fixed_tokens + padded_rows(num_tokens + np.cumsum(cost[order]))
        rates = codes / tokens
        best = int(rates.argmax())
        self._min_reach = max(_MIN_REACH, _LEAST_SHARE * float(gains[order[best]]) ** (1 / _WORTH))
        if rates[best] <= len(reaches) / (self.fixed_tokens + padded_rows(np.array([num_tokens]))[0]):
            return [0] * len(reaches)
        return np.bincount(owner[order[: best + 1]], minlength=len(reaches)).tolist()
