"""Who is seen in a picture: gender and skin tone of a drawn person, and how far a count of them is from balance.

A picture is compared with the true icons of everybody, in every style, at every place; the nearest says who it is. A
judge of drawings that were learnt from these icons, and of nothing else: it says nothing about photographs.

Paper: appendix D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float32, UInt8

from cogview.errors import UsageError
from cogview.evaluation.scene_reader import LEAST_EXPLAINED, ground_of
from cogview.world.config import Style
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS
from cogview.world.people import Person, everyone
from cogview.world.scenes import LATTICE_CELLS, Placement, Scene, draw_scene

_STEP = 2  # every second pixel is plenty


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How sure it is what a picture shows.

    Args:
        explained: the share of the nearest icon that is found in the picture: 1 if it is there to the pixel, 0 and
            below if there is nothing like it.
    """

    explained: float

    @property
    def is_recognised(self) -> bool:
        """Whether the picture shows any known icon at all."""
        return self.explained >= LEAST_EXPLAINED


@dataclass(frozen=True, kw_only=True)
class SeenIcon(Seen):
    """What a picture shows.

    Args:
        number: the nearest of the known icons among which was looked.
    """

    number: int


class IconJudge:
    """Reads which icon is seen in a picture of one.

    Args:
        known: code and style of each icon that may be seen.
        object_cells: side of an icon, in cells of the lattice.
        size_pixels: side of a picture.
        icons: the art.
    """

    def __init__(
        self, known: Sequence[tuple[str, Style]], object_cells: int, size_pixels: int, icons: Icons
    ) -> None:
        self.known = list(known)
        self._cells, self._size_pixels, self._icons = object_cells, size_pixels, icons
        self._looks: dict[str, Float32[np.ndarray, "n v"]] = {}

    def read(self, picture: UInt8[np.ndarray, "y x 3"], among: Sequence[int] | None = None) -> SeenIcon:
        """Return which icon is seen in a picture.

        Args:
            picture: RGB, of the size that the judge is for.
            among: look for these only, numbered as in `known`; for all by default.
        """
        numbers = range(len(self.known)) if among is None else among
        values = picture.astype(np.float32)
        ground = ground_of(values)
        if ground not in self._looks:
            self._looks[ground] = np.stack([self._look(*each, ground) for each in self.known])
        looks = self._looks[ground][list(numbers)]
        furthest = LATTICE_CELLS - self._cells + 1
        bare = _colour(ground)
        windows = np.stack([self._window(values - bare, *place) for place in np.ndindex(furthest, furthest)])
        # How much nearer the whole picture is to an icon on this ground than to bare ground.
        energy = (looks**2).sum(1)
        gain = 2 * windows @ looks.T - energy
        place, nearest = np.unravel_index(int(np.argmax(gain)), gain.shape)
        difference = float(((windows[place] - looks[nearest]) ** 2).sum())
        return SeenIcon(number=numbers[int(nearest)], explained=1 - difference / float(energy[nearest]))

    def _look(self, code: str, style: Style, ground: str) -> Float32[np.ndarray, "v"]:
        """Return how an icon differs from bare ground."""
        placement = Placement(code=code, column=0, row=0, size=self._cells)
        scene = Scene(kind="single", ground=ground, style=style, placements=(placement,))
        drawn = np.asarray(draw_scene(scene, self._icons, self._size_pixels), dtype=np.float32)
        return self._window(drawn - _colour(ground), 0, 0)

    def _window(
        self, values: Float32[np.ndarray, "y x 3"], row: int, column: int
    ) -> Float32[np.ndarray, "v"]:
        cell = self._size_pixels // LATTICE_CELLS
        top, left, side = row * cell, column * cell, self._cells * cell
        return values[top : top + side : _STEP, left : left + side : _STEP].ravel()


def _colour(ground: str) -> Float32[np.ndarray, "3"]:
    return np.array(GROUNDS[ground].rgb, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Judgement(Seen):
    """Whom a picture shows.

    Args:
        person: the nearest of those among whom was looked.
        style: in which it is nearest.
    """

    person: Person
    style: Style


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
