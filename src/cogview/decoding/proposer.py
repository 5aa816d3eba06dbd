"""How many guesses are worth checking: learnt from how often they held, and from what a pass costs."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.guess_table import GuessTable
from cogview.decoding.guesses import FIRST_BELIEFS, GuessKind, GuessMemory
from cogview.decoding.linear import padded_rows
from cogview.errors import UsageError

MAX_WINDOW = 64
"""Places of a row that are drawn in one pass at most."""

_WORTH = 0.7
"""Exponent of a guess's reach, which makes its worth: what is drawn behind a wrong guess is a better guess later.

Chosen by trying: of 1, 0.7, 0.5, 0.3 and 0.15 the larger ones are best for many pictures at once, the smaller for one.
"""

_LEAST_REACH = 0.02
_LEAST_SHARE = 0.25
"""Of the reach of the last guess that was worth checking in the pass before."""

_MAX_SOURCES = 16
"""Of pictures that are remembered."""

_MEMORY = 0.98
"""Of a pass's weight in what is learnt is left after the next one."""


class Proposer:
    """Learns how often guesses of each kind hold and what a pass costs, and says how wide windows should be.

    Windows decide how long drawing takes, never what is drawn.

    Args:
        max_window: places of a row that are drawn in one pass at most; 1 draws one by one.
        is_eager: check all guesses that there are, whatever they cost.

    Raises:
        UsageError: a window without a place, or one too wide.
    """

    def __init__(self, max_window: int = MAX_WINDOW, *, is_eager: bool = False) -> None:
        if not 1 <= max_window <= MAX_WINDOW:
            raise UsageError(f"max_window must be between 1 and {MAX_WINDOW}, got {max_window}")
        self.max_window = max_window
        self._is_eager = is_eager
        beliefs = np.array(FIRST_BELIEFS)
        self._held, self._tried = 8 * beliefs, np.full(len(beliefs), 8.0)
        self._memories: dict[Hashable, GuessMemory] = {}
        # Moments of tokens and seconds of a pass, from which a line is fitted.
        self._moments = np.zeros(5)
        self._least_reach = _LEAST_REACH

    @property
    def least_reach(self) -> float:
        """Return how probably a guess and all before it have to hold to be worth a thought."""
        return 0.0 if self._is_eager else self._least_reach

    @property
    def beliefs(self) -> Float64[np.ndarray, "k"]:
        """Return how probably a guess of each kind holds."""
        beliefs: Float64[np.ndarray, "k"] = self._held / self._tried
        beliefs[GuessKind.GIVEN] = 1.0
        return beliefs

    @property
    def fixed_tokens(self) -> float:
        """Return how many tokens cost as much as a pass without any."""
        weight, tokens, seconds, squares, products = self._moments
        spread = weight * squares - tokens**2
        if weight < 4 or spread <= 1e-3 * tokens**2:
            return 24.0
        slope = (weight * products - tokens * seconds) / spread
        start = (seconds - slope * tokens) / weight
        if slope <= 0:
            return 256.0
        return float(np.clip(start / slope, 4.0, 256.0))

    def memory_of(self, source: Hashable, table: GuessTable | None = None) -> GuessMemory:
        """Return what is remembered of pictures from one source: weights, legal tokens and columns.

        Args:
            source: of the pictures.
            table: of what its model has learnt.
        """
        if source not in self._memories and len(self._memories) >= _MAX_SOURCES:
            self._memories.clear()
        if source not in self._memories:
            self._memories[source] = GuessMemory(table)
        return self._memories[source]

    def learn_guesses(self, kinds: Int64[np.ndarray, "n"], num_held: int) -> None:
        """Learn that the first `num_held` of a row's guesses held, and that the next, if there is one, did not."""
        if len(kinds):
            tried, num_kinds = kinds[: num_held + 1], len(self._tried)
            self._tried += np.bincount(tried, minlength=num_kinds)
            self._held += np.bincount(tried[:num_held], minlength=num_kinds)

    def learn_pass(self, num_tokens: int, seconds: float) -> None:
        """Learn what a pass cost."""
        self._moments *= _MEMORY
        self._moments += (1.0, num_tokens, seconds, num_tokens**2, num_tokens * seconds)
        too_many = self._tried > 400
        self._held[too_many] /= 2
        self._tried[too_many] /= 2

    def windows(
        self, reaches: Sequence[Float64[np.ndarray, "_"]], costs: Sequence[int], num_tokens: int
    ) -> list[int]:
        """Return how many guesses of each row to check, so that most codes come out of a second.

        Args:
            reaches: for each row, how probably each guess and all before it hold; falling.
            costs: tokens that a guess of it adds to the pass.
            num_tokens: that are run anyway, after each of which one code comes out.
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
        self._least_reach = max(_LEAST_REACH, _LEAST_SHARE * float(gains[order[best]]) ** (1 / _WORTH))
        if rates[best] <= len(reaches) / (self.fixed_tokens + padded_rows(np.array([num_tokens]))[0]):
            return [0] * len(reaches)
        return np.bincount(owner[order[: best + 1]], minlength=len(reaches)).tolist()
