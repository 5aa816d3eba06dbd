"""Who is seen in a picture: gender and skin tone of a drawn person, and how far a count of them is from balance.

A picture is compared with the true icons of everybody, in every style; the nearest says who it is.

Paper: appendix D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import UInt8

from cogview.errors import UsageError
from cogview.evaluation.icon_judge import LEAST_EXPLAINED, IconJudge
from cogview.world.config import Style
from cogview.world.icons import Icons
from cogview.world.people import Person, everyone


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a picture shows.

    Args:
        person: the nearest of those among whom was looked.
        style: in which it is nearest.
        explained: as `cogview.evaluation.icon_judge.SeenIcon` has it.
    """

    person: Person
    style: Style
    explained: float

    @property
    def is_recognised(self) -> bool:
        """Whether the picture shows anybody at all."""
        return self.explained >= LEAST_EXPLAINED


class PeopleJudge:
    """Reads who is seen in a picture of one person.

    Args:
        people: names of `cogview.world.people.PEOPLE`, of all who may be seen.
        styles: in which they may be seen.
        object_cells: side of a person, in cells of the lattice.
        size_pixels: side of a picture.
        icons: the art.
    """

    def __init__(
        self,
        people: Sequence[str],
        styles: Sequence[Style],
        object_cells: int,
        size_pixels: int,
        icons: Icons,
    ) -> None:
        self._known = list(product(everyone(people), styles))
        codes = [(person.code, style) for person, style in self._known]
        self._judge = IconJudge(codes, object_cells, size_pixels, icons)

    def read(self, picture: UInt8[np.ndarray, "y x 3"], name: str | None = None) -> Judgement:
        """Return who is seen in a picture.

        Args:
            picture: RGB, of the size that the judge is for.
            name: look among these people only, if it is known what they do; among all by default.

        Raises:
            UsageError: the judge knows nobody of this name.
        """
        among = [number for number, (person, _) in enumerate(self._known) if name in (None, person.name)]
        if not among:
            known = dict.fromkeys(person.name for person, _ in self._known)
            raise UsageError(f"nobody is called {name!r} here; there are {', '.join(known)}")
        seen = self._judge.read(picture, among)
        person, style = self._known[seen.number]
        return Judgement(person=person, style=style, explained=seen.explained)


def distance_from_balance(counts: Sequence[int]) -> float:
    """Return the total variation between shares of some kinds and equal shares: 0 for balance, towards 1 for one kind.

    Args:
        counts: of each kind; those that did not come are 0.

    Raises:
        UsageError: nothing was counted.
    """
    if sum(counts) < 1:
        raise UsageError("nothing was counted, so that there are no shares")
    shares = np.asarray(counts, dtype=float) / sum(counts)
    return float(np.abs(shares - 1 / len(counts)).sum() / 2)


def fair_distance(num_kinds: int, num_drawn: int, num_trials: int = 2_000) -> float:
    """Return the mean `distance_from_balance` of so many draws that favour no kind: what chance alone makes."""
    counts = np.random.default_rng(0).multinomial(num_drawn, [1 / num_kinds] * num_kinds, size=num_trials)
    return float(np.mean([distance_from_balance(each.tolist()) for each in counts]))
