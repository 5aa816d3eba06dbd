"""Guesses of codes from their neighbours, and how sure each is."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.guess_table import GuessTable, neighbours

_MAX_CONTEXTS = 1 << 14
"""Neighbourhoods that are remembered; then all are forgotten."""


class GuessKind(IntEnum):
    """Where a guess comes from; guesses of a kind hold about equally often."""

    LEFT = 0
    """The code to the left, in the first row."""
    EDGE = 1
    """The neighbour that goes on where another ends: above if left and above left are equal, for instance."""
    AGREEING = 2
    """The code above, which the one to the left is too."""
    REMEMBERED_ONCE = 3
    """What was drawn last time the neighbours were these."""
    REMEMBERED = 4
    """What was drawn most of the time."""
    DRAWN_UNSURE = 5
    """What the last pass drew behind a wrong guess, with little probability; from here on by confidence."""
    DRAWN_LIKELY = 6
    DRAWN_SURE = 7
    AGAIN_UNSURE = 8
    """The same after the last two passes, with little probability; from here on by confidence."""
    AGAIN_LIKELY = 9
    AGAIN_SURE = 10
    CONFIRMED = 11
    """What the last pass drew with little probability and the neighbours say too."""
    LEARNT_0 = 12
    """What followed such neighbours in what the model has learnt, in the fewest of them; from here on by grade."""
    LEARNT_1 = 13
    LEARNT_2 = 14
    LEARNT_3 = 15
    LEARNT_4 = 16
    LEARNT_5 = 17
    LEARNT_6 = 18
    LEARNT_7 = 19
    GIVEN = 20
    """No guess: it stands."""


FIRST_BELIEFS = (
    *(0.7, 0.4, 0.93, 0.5, 0.7, 0.3, 0.6, 0.9, 0.4, 0.75, 0.97, 0.9),
    *(0.3, 0.45, 0.6, 0.75, 0.9, 0.96, 0.98, 0.995),
    1.0,
)
"""How probably a guess of each kind holds, before anything is learnt."""


def drawn_kinds(
    confidence: Float64[np.ndarray, "n"], is_again: Int64[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Return the kinds of guesses that are earlier draws.

    Args:
        confidence: the probability that each was drawn with.
        is_again: 1 where the pass before drew the same, else 0.
    """
    level = (confidence >= 0.5).astype(np.int64) + (confidence >= 0.95)
    return GuessKind.DRAWN_UNSURE + level + 3 * is_again


class GuessMemory:
    """What codes followed which neighbours, in all pictures drawn with the same weights.

    It decides how many guesses hold, never what is drawn.

    Args:
        table: of what the model has learnt, if it has one.
    """

    def __init__(self, table: GuessTable | None = None) -> None:
        self._table = table
        self._after: dict[tuple[int, int, int, int], tuple[int, int]] = {}

    def guess(self, codes: Sequence[int], place: int, columns: int) -> tuple[int, GuessKind]:
        """Return a guess of a code.

        Args:
            codes: of the picture, row by row, as far as they are known or guessed.
            place: of the code, behind the first.
            columns: of the picture.
        """
        around = neighbours(codes, place, columns)
        learnt = None if self._table is None else self._table.guess(around)
        if learnt is not None:
            return learnt[0], GuessKind(GuessKind.LEARNT_0 + learnt[1])
        found = self._after.get(around[:4])
        if found is not None:
            return found[0], GuessKind.REMEMBERED if found[1] > 1 else GuessKind.REMEMBERED_ONCE
        left, above_left, above, *_ = around
        if above < 0:
            return left, GuessKind.LEFT
        if left in (above, -1):
            return above, GuessKind.AGREEING if left == above else GuessKind.EDGE
        return (left if above == above_left else above), GuessKind.EDGE

    def learn(self, codes: Sequence[int], first: int, stop: int, columns: int) -> None:
        """Remember what follows which neighbours at some places of a picture.

        Args:
            codes: of the picture, row by row.
            first: the first of the places.
            stop: the one after the last.
            columns: of the picture.
        """
        for place in range(max(first, 1), stop):
            around, code = neighbours(codes, place, columns)[:4], codes[place]
            held, times = self._after.get(around, (code, 0))
            if held == code:
                self._after[around] = (held, min(times + 1, 8))
            else:
                self._after[around] = (held, times - 1) if times > 1 else (code, 1)
        if len(self._after) > _MAX_CONTEXTS:
            self._after.clear()
