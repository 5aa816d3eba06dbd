"""Guesses of codes from their neighbours, and their kinds."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.guess_table import GuessTable, neighbours

_MAX_CONTEXTS = 1 << 14
"""Neighbourhoods to remember before all are forgotten."""


class GuessKind(IntEnum):
    """Source of a guess; guesses of a kind have about the same acceptance rate."""

    LEFT = 0
    """The code to the left, in the first row."""
    EDGE = 1
    """Continues an edge: for instance above, if left and above left are equal."""
    AGREEING = 2
    """The code above, equal to the one on the left."""
    REMEMBERED_ONCE = 3
    """The last code after these neighbours."""
    REMEMBERED = 4
    """The most frequent code after these neighbours."""
    DRAWN_UNSURE = 5
    """Sampled by the last pass after a wrong guess, with low probability; next by confidence."""
    DRAWN_LIKELY = 6
    DRAWN_SURE = 7
    AGAIN_UNSURE = 8
    """The same from the last two passes, with low probability; next by confidence."""
    AGAIN_LIKELY = 9
    AGAIN_SURE = 10
    CONFIRMED = 11
    """Sampled by the last pass with low probability, and equal to the neighbours' guess."""
    LEARNT_0 = 12
    """From the guess table, lowest grade; next by grade."""
    LEARNT_1 = 13
    LEARNT_2 = 14
    LEARNT_3 = 15
    LEARNT_4 = 16
    LEARNT_5 = 17
    LEARNT_6 = 18
    LEARNT_7 = 19
    GIVEN = 20
    """Given, not guessed."""


PRIOR_ACCEPTANCE = (
    *(0.7, 0.4, 0.93, 0.5, 0.7, 0.3, 0.6, 0.9, 0.4, 0.75, 0.97, 0.9),
    *(0.3, 0.45, 0.6, 0.75, 0.9, 0.96, 0.98, 0.995),
    1.0,
)
"""Acceptance rate of each kind before anything is learnt."""


def sampled_kinds(
    confidence: Float64[np.ndarray, "n"], is_again: Int64[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Return the kinds of guesses that were sampled by earlier passes.

    Args:
        confidence: probability of each.
        is_again: 1 where the pass before sampled the same, else 0.
    """
    level = (confidence >= 0.5).astype(np.int64) + (confidence >= 0.95)
    return GuessKind.DRAWN_UNSURE + level + 3 * is_again


class CodeGuesser:
    """Guesses codes from their neighbours, with a memory over all pictures from the same weights.

    Changes how many guesses are right, never the result.

    Args:
        table: guess table of the model, if it has one.
    """

    def __init__(self, table: GuessTable | None = None) -> None:
        self._table = table
        self._next_codes: dict[tuple[int, int, int, int], tuple[int, int]] = {}

    def guess(self, codes: Sequence[int], place: int, columns: int) -> tuple[int, GuessKind]:
        """Guess a code.

        Args:
            codes: of the picture, row by row, final or guessed.
            place: index of the code, not 0.
            columns: of the picture.
        """
        around = neighbours(codes, place, columns)
        learnt = None if self._table is None else self._table.guess(around)
        if learnt is not None:
            return learnt[0], GuessKind(GuessKind.LEARNT_0 + learnt[1])
        remembered = self._next_codes.get(around[:4])
        if remembered is not None:
            return remembered[0], GuessKind.REMEMBERED if remembered[1] > 1 else GuessKind.REMEMBERED_ONCE
        left, above_left, above, *_ = around
        if above < 0:
            return left, GuessKind.LEFT
        if left in (above, -1):
            return above, GuessKind.AGREEING if left == above else GuessKind.EDGE
        return (left if above == above_left else above), GuessKind.EDGE

    def learn(self, codes: Sequence[int], first: int, stop: int, columns: int) -> None:
        """Remember the codes after their neighbours at some places of a picture.

        Args:
            codes: of the picture, row by row.
            first: first of the places.
            stop: after the last of the places.
            columns: of the picture.
        """
        for place in range(max(first, 1), stop):
            around, code = neighbours(codes, place, columns)[:4], codes[place]
            usual, times = self._next_codes.get(around, (code, 0))
            if usual == code:
                self._next_codes[around] = (usual, min(times + 1, 8))
            else:
                self._next_codes[around] = (usual, times - 1) if times > 1 else (code, 1)
        if len(self._next_codes) > _MAX_CONTEXTS:
            self._next_codes.clear()
