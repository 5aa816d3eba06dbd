"""Reader of scenes from pictures, by template matching.

Every place of the lattice is compared with every look: an object in a style, size and colour. Among overlapping
matches, those that explain most of the picture are chosen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from cogview.errors import UsageError
from cogview.image.picture_reading import read_image
from cogview.world.colours import in_all_colours, own_colour
from cogview.world.config import Style
from cogview.world.icon_sheets import IconSheets
from cogview.world.objects import GROUNDS, scene_objects
from cogview.world.scenes import LATTICE_CELLS, Placement, Scene

LEAST_EXPLAINED = 0.6  # share of the squared difference between the nearest look and bare ground
_SAMPLES = 4  # pixels compared along each side of a cell
_AT_A_TIME = 1_000  # pictures in memory


@dataclass(frozen=True, kw_only=True)
class SceneReading:
    """Scene that was read from a picture.

    Args:
        ground: a key of `world.GROUNDS`.
        placements: the things.
        style: style of all things; None if there are none or several styles.
        colours: possible colours of each thing; several where they look alike.
    """

    ground: str
    placements: tuple[Placement, ...]
    style: Style | None
    colours: tuple[frozenset[str | None], ...]

    @staticmethod
    def of(scene: Scene) -> "SceneReading":
        """Return the reading of a scene's picture by a perfect reader."""
        return SceneReading(
            ground=scene.ground,
            placements=scene.placements,
            style=scene.style,
            colours=tuple(frozenset({each.colour}) for each in scene.placements),
        )


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Object in a style and a colour, and the colours that look like it."""

    code: str
    style: Style
    colour: str | None
    colours: frozenset[str | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looks:
    """Looks of objects at one size on one ground, as differences from the bare ground."""

    size: int
    known: list[_Look]
    pixels: Float32[np.ndarray, "n v"]
    energy: Float32[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Look at a place, and the squared difference from bare ground that it explains."""

    gain: float
    look: _Look
    placement: Placement

    def overlaps(self, other: "_Candidate") -> bool:
        one, two = self.placement, other.placement
        return -one.size < one.column - two.column < two.size and -one.size < one.row - two.row < two.size


class SceneReader:
    """Reader of the objects in pictures of scenes.

    Args:
        folder: a built data set, whose icons are the templates.
        size_pixels: side of the pictures.

    Raises:
        UsageError: the data set has no icons, or its pictures have another size.
        CogViewError: the icons cannot be read.
    """

    def __init__(self, folder: Path, size_pixels: int) -> None:
        if size_pixels % LATTICE_CELLS:
            raise UsageError(
                f"the pictures have {size_pixels} pixels a side, but reading their composition needs a multiple of "
                f"{LATTICE_CELLS}, the cells of the scenes' lattice: use such a size"
            )
        self._sheets = IconSheets.of(folder)
        if self._sheets.size_pixels != size_pixels:
            raise self._other_size(folder, self._sheets.size_pixels, self._sheets.size_pixels, size_pixels)
        self._size_pixels, self._cell = size_pixels, size_pixels // LATTICE_CELLS
        self._step = max(self._cell // _SAMPLES, 1)
        self._ground: str | None = None
        self._looks: list[_Looks] = []

    def picture(self, folder: Path, file_name: str) -> UInt8[np.ndarray, "y x 3"]:
        """Return a picture of a data set.

        Raises:
            UsageError: it has another size than this reader's.
            CogViewError: it cannot be read.
        """
        image = read_image(folder / file_name)
        if image.size != (self._size_pixels, self._size_pixels):
            raise self._other_size(folder, *image.size, self._size_pixels)
        return np.asarray(image)

    def unknown_in(self, scene: Scene) -> str | None:
        """Describe the first thing of a scene that the icons do not show; None if all of it can be read."""
        for placement in scene.placements:
            if placement.variation or placement.code not in scene_objects():
                return f"no icon of the table of objects as it is (code {placement.code})"
            name = scene_objects()[placement.code].singular[0]
            if placement.code not in self._sheets.codes.get(scene.style, ()):
                return f"the {name} in the style {scene.style}"
            if placement.size not in self._sheets.sizes:
                return f"the {name} of {placement.size} cells"
            if placement.colour is not None and placement.code not in self._sheets.coloured:
                return f"the {name} in {placement.colour}"
        return None

    def read(self, picture: UInt8[np.ndarray, "y x 3"]) -> SceneReading:
        """Read the scene in a picture."""
        values = picture.astype(np.float32)
        ground = ground_of(values)
        values -= np.array(GROUNDS[ground].rgb, dtype=np.float32)
        candidates = [each for looks in self._looks_on(ground) for each in self._candidates(values, looks)]
        chosen = _explaining_most(candidates)
        styles = {each.look.style for each in chosen}
        return SceneReading(
            ground=ground,
            placements=tuple(each.placement for each in chosen),
            style=styles.pop() if len(styles) == 1 else None,
            colours=tuple(each.look.colours for each in chosen),
        )

    def read_all(
        self, pictures: Iterable[UInt8[np.ndarray, "y x 3"]], move: Callable[[int], None] | None = None
    ) -> list[SceneReading]:
        """Read the scenes in pictures, in order; ground by ground, which is faster.

        Args:
            pictures: pictures of the reader's size.
            move: called with the number of pictures done.
        """
        readings: list[SceneReading] = []
        rest = iter(pictures)
        while batch := list(islice(rest, _AT_A_TIME)):
            grounds = [ground_of(picture.astype(np.float32)) for picture in batch]
            by_number: dict[int, SceneReading] = {}
            for number in sorted(
                range(len(batch)), key=lambda number: (grounds[number] != self._ground, grounds[number])
            ):
                by_number[number] = self.read(batch[number])
                if move is not None:
                    move(len(readings) + len(by_number))
            readings += [by_number[number] for number in range(len(batch))]
        return readings

    def _candidates(self, values: Float32[np.ndarray, "y x 3"], looks: _Looks) -> list[_Candidate]:
        """Return the nearest look at each place where it explains enough."""
        side = LATTICE_CELLS - looks.size + 1
        places = [(row, column) for row in range(side) for column in range(side)]
        windows = self._windows(values, looks.size, places)
        energy = (windows**2).sum(1)
        # Nearly bare places cannot explain enough of any look.
        least = (1 - (1 - LEAST_EXPLAINED) ** 0.5) ** 2 * looks.energy.min(initial=np.inf)
        filled = np.flatnonzero(energy >= least)
        if not len(filled):
            return []
        gains = windows[filled] @ looks.pixels.T
        gains *= 2
        gains -= looks.energy
        nearest = gains.argmax(1)
        gain = gains[np.arange(len(filled)), nearest]
        explained = 1 - (energy[filled] - gain) / looks.energy[nearest]
        candidates = []
        for number in np.flatnonzero(explained >= LEAST_EXPLAINED):
            look = looks.known[nearest[number]]
            row, column = places[filled[number]]
            placement = Placement(code=look.code, column=column, row=row, size=looks.size, colour=look.colour)
            candidates.append(_Candidate(gain=float(gain[number]), look=look, placement=placement))
        return candidates

    def _looks_on(self, ground: str) -> list[_Looks]:
        """Return the looks on a ground; only the last ground's are cached."""
        if ground != self._ground:
            self._looks = []  # frees the memory first
            self._looks = [self._looks_of(size, ground) for size in self._sheets.sizes]
            self._ground = ground
        return self._looks

    def _looks_of(self, size: int, ground: str) -> _Looks:
        table = scene_objects()
        known, rasters = self._rasters[size]
        numbers = [
            number
            for number, look in enumerate(known)
            if look.colour != ground
            and (look.colour is not None or (look.style, ground) not in table[look.code].swallowed_by)
        ]
        rgb = np.array(GROUNDS[ground].rgb, dtype=np.uint16)
        pixels = np.empty((len(numbers), rasters[0, ..., :3].size), dtype=np.float32)
        for row, number in zip(pixels, numbers, strict=True):
            alpha = rasters[number, ..., 3:].astype(np.uint16)
            drawn = (
                rasters[number, ..., :3] * alpha + rgb * (255 - alpha) + 127
            ) // 255  # as in `draw_scene`
            row[:] = (drawn.astype(np.float32) - rgb).ravel()
        energy = np.einsum("nv,nv->n", pixels, pixels)
        is_visible = energy > 0
        if not is_visible.all():
            pixels, energy = pixels[is_visible], energy[is_visible]
            numbers = [numbers[index] for index in np.flatnonzero(is_visible)]
        return _Looks(size=size, known=[known[number] for number in numbers], pixels=pixels, energy=energy)

    @cached_property
    def _rasters(self) -> dict[int, tuple[list[_Look], UInt8[np.ndarray, "n y x 4"]]]:
        """All looks by size, with the RGBA of their sampled pixels."""
        by_size = {}
        table = scene_objects()
        for size in self._sheets.sizes:
            known: list[_Look] = []
            rasters: list[UInt8[np.ndarray, "y x 4"]] = []
            for style, codes in self._sheets.codes.items():
                for code, raster in zip(codes, self._sheets.rasters(style, size), strict=True):
                    if code not in table:
                        continue
                    painted = in_all_colours(raster) if code in self._sheets.coloured else {}
                    own = own_colour(raster, painted) if painted else None
                    for colour, each in {None: raster, **painted}.items():
                        colours = {None, own} if colour in (None, own) else {colour}
                        look = _Look(code=code, style=style, colour=colour, colours=frozenset(colours))
                        known.append(look)
                        rasters.append(each[:: self._step, :: self._step])
            by_size[size] = known, np.stack(rasters)
        return by_size

    def _windows(
        self, values: Float32[np.ndarray, "y x 3"], size: int, places: list[tuple[int, int]]
    ) -> Float32[np.ndarray, "p v"]:
        """Return the sampled pixels of the window at each place."""
        offsets = np.arange(0, size * self._cell, self._step)
        rows, columns = (self._cell * np.array(places).T)[..., None] + offsets
        return values[rows[:, :, None], columns[:, None, :]].reshape(len(places), -1)

    @staticmethod
    def _other_size(folder: Path, width: int, height: int, wanted: int) -> UsageError:
        return UsageError(
            f"the pictures of {folder} have {width} x {height} pixels, and those to be read {wanted} x {wanted}: "
            f"build the data set with --data.size-pixels {wanted}"
        )


def _explaining_most(candidates: list[_Candidate]) -> list[_Candidate]:
    """Return disjoint candidates: the best greedily, unless smaller ones in place of one explain more."""
    chosen = _disjoint(candidates)
    for each in list(chosen):
        others = [other for other in chosen if other is not each]
        smaller = [
            other
            for other in candidates
            if other.placement.size < each.placement.size and not any(map(other.overlaps, others))
        ]
        replacement = _explaining_most(smaller)
        if sum(other.gain for other in replacement) > each.gain:
            chosen = others + replacement
    return chosen


def _disjoint(candidates: list[_Candidate]) -> list[_Candidate]:
    chosen: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda each: -each.gain):
        if not any(map(candidate.overlaps, chosen)):
            chosen.append(candidate)
    return chosen


def ground_of(picture: Float32[np.ndarray, "y x 3"]) -> str:
    """Return the ground of a picture, by its four edges."""
    edges = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour = np.median(edges, axis=0)
    return min(GROUNDS, key=lambda name: float(np.abs(colour - GROUNDS[name].rgb).sum()))
