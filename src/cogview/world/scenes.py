"""Scenes: objects on a coloured ground, placed on a lattice, drawn at any pixel size.

Positions and sizes are whole cells of a 16 x 16 lattice. At 128 pixels a cell is one image code, so that an icon looks
the same to the image tokenizer everywhere. Captions of scenes are in `captions`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from cogview.errors import UsageError
from cogview.world.augmentation import augment
from cogview.world.config import HELD_OUT_STYLES, Split, Style
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS, scene_objects

LATTICE_CELLS = 16
LARGE_CELLS = 12
SMALL_CELLS = 7
"""Side of a thing without a named size; single ones may be larger."""
NAMED_SIZES = {"small": 4, "big": 9}
"""Sides of things that captions call small or big."""

Kind = Literal["single", "count", "relation", "group", "icon", "groups", "sizes"]
"""One thing; copies of it; two things; two to four different ones; any icon; two groups, each of one to three copies;
two things of different sizes."""
Relation = Literal["left", "right", "above", "below"]
OPPOSITES: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

# Held out of training:
HELD_OUT_COMPOSITIONS_PERCENT = 10  # of (unordered pair, relation, ground) and (object, count, ground)
HELD_OUT_PAIRS_PERCENT = 5  # of pairs of objects in one scene
HELD_OUT_COLOURS_PERCENT = 10  # of pairs of object and colour
HELD_OUT_ICONS_PERCENT = 5  # of icons outside the table of objects


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One icon in a scene, in cells of the lattice.

    Args:
        code: the icon.
        column: of its left edge, 0..15.
        row: of its upper edge, 0..15.
        size: its side, 1..16.
        variation: seed of `cogview.world.augmentation`; 0 for none, below 0 keeps the colours.
        colour: a key of `colours.COLOURS`, or None for its own.
        told_size: a key of `NAMED_SIZES` for captions; if None, it depends on `size`.
    """

    code: str
    column: int
    row: int
    size: int
    variation: int = 0
    colour: str | None = None
    told_size: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Contents of a picture.

    Args:
        kind: of composition.
        ground: colour of the ground, a key of `objects.GROUNDS`.
        style: of the icons.
        placements: the icons, without overlap.
    """

    kind: Kind
    ground: str
    style: Style
    placements: tuple[Placement, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the scene as plain data."""
        return {
            "kind": self.kind,
            "ground": self.ground,
            "style": self.style,
            "objects": [
                {"code": p.code, "column": p.column, "row": p.row, "size": p.size}
                | ({"variation": p.variation} if p.variation else {})
                | ({"colour": p.colour} if p.colour else {})
                | ({"told_size": p.told_size} if p.told_size else {})
                for p in self.placements
            ],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Scene":
        """Decode the data of `to_json`."""
        placements = tuple(Placement(**placement) for placement in value["objects"])
        return Scene(kind=value["kind"], ground=value["ground"], style=value["style"], placements=placements)


def relation_of(first: Placement, second: Placement) -> tuple[Relation, ...]:
    """Return the relation of `first` to `second`, or two on a diagonal.

    Icons that share most of their rows are side by side even if one is a little higher; likewise columns.
    """
    relations: list[Relation] = []
    further = (second.size - first.size) / 2  # from an edge to the middle
    across, down = second.column - first.column + further, second.row - first.row + further
    apart = (first.size + second.size) / 4  # half of the mean size
    if abs(across) >= apart:
        relations.append("left" if across > 0 else "right")
    if abs(down) >= apart:
        relations.append("above" if down > 0 else "below")
    return tuple(relations)


def _percentile(*parts: object) -> int:
    """Hash to 0..99, the same on every machine and in every version."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100


@cache
def is_held_out_icon(code: str) -> bool:
    """Return whether training never shows an icon, of the table of objects or not."""
    thing = scene_objects().get(code)
    return thing.held_out if thing else _percentile("icon", code) < HELD_OUT_ICONS_PERCENT


@cache
def is_held_out_pair(first: str, second: str) -> bool:
    """Return whether training never shows two objects together."""
    return _percentile("pair", *sorted((first, second))) < HELD_OUT_PAIRS_PERCENT


@cache
def is_held_out_colour(code: str, colour: str) -> bool:
    """Return whether training never shows an object in a colour."""
    return _percentile("colour", code, colour) < HELD_OUT_COLOURS_PERCENT


@cache
def is_held_out_composition(first: str, relation: Relation | int, second: str, ground: str) -> bool:
    """Return whether training never shows two objects in this relation on this ground.

    "A left of B" and "B right of A" are the same. A count of an object is (object, number, object, ground).
    """
    if isinstance(relation, str) and first > second:
        opposite: dict[Relation, Relation] = {
            "left": "right",
            "right": "left",
            "above": "below",
            "below": "above",
        }
        first, relation, second = second, opposite[relation], first
    return _percentile("composition", first, relation, second, ground) < HELD_OUT_COMPOSITIONS_PERCENT


@cache
def held_out_style(code: str, styles: tuple[Style, ...]) -> Style:
    """Return the style in which only the split `held-out-drawing` shows an object."""
    return styles[_percentile("drawing", code) % len(styles)]


def compositions(scene: Scene) -> Iterator[tuple[str, Relation | int, str]]:
    """Yield every (object, relation, object) and (object, number, object) of a scene."""
    things = group_centres(scene) if scene.kind == "groups" else scene.placements
    for index, first in enumerate(things):
        for second in things[index + 1 :]:
            if first.code != second.code:
                for relation in relation_of(first, second):
                    yield first.code, relation, second.code
    if scene.kind in ("count", "groups"):
        for code, number in Counter(placement.code for placement in scene.placements).items():
            if number > 1:
                yield code, number, code


def group_centres(scene: Scene) -> list[Placement]:
    """Return a placement in the middle of each group of a scene."""
    codes = dict.fromkeys(placement.code for placement in scene.placements)
    return [middle_of([each for each in scene.placements if each.code == code]) for code in codes]


def middle_of(things: Sequence[Placement]) -> Placement:
    """Return the first of some things, moved to the middle of all."""
    columns, rows = zip(*((each.column, each.row) for each in things), strict=True)
    return replace(things[0], column=sum(columns) // len(things), row=sum(rows) // len(things))


def mentioned_size(scene: Scene, placement: Placement) -> str | None:
    """Return the size that captions mention; none if a thing is small or big only by the layout or by chance."""
    if placement.told_size is not None:
        return placement.told_size
    sizes = {cells: size for size, cells in NAMED_SIZES.items()}
    if scene.kind == "sizes":
        return sizes.get(placement.size)
    if scene.kind == "single":
        is_by_chance = placement.variation and placement.size == NAMED_SIZES["big"]
        return None if is_by_chance else sizes.get(placement.size)
    return None


def split_of(scene: Scene, styles: tuple[Style, ...] = ()) -> Split:
    """Return the split to which a scene belongs by its contents.

    Args:
        scene: the scene.
        styles: of which one per object is held out; none by default.
    """
    if scene.style in HELD_OUT_STYLES:
        return "held-out-style"
    if any(is_held_out_icon(placement.code) for placement in scene.placements):
        return "held-out-object"
    if styles and any(held_out_style(each.code, styles) == scene.style for each in scene.placements):
        return "held-out-drawing"
    if any(
        each.colour is not None and is_held_out_colour(each.code, each.colour) for each in scene.placements
    ):
        return "held-out-colour"
    for first, relation, second in compositions(scene):
        if first != second and is_held_out_pair(first, second):
            return "held-out-composition"
        if is_held_out_composition(first, relation, second, scene.ground):
            return "held-out-composition"
    return "train"


def draw_scene(scene: Scene, icons: Icons, size_pixels: int) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to draw.
        icons: the art, with the scene's style loaded.
        size_pixels: side of the picture; a multiple of 16, so that cells are whole pixels.

    Raises:
        UsageError: the size isn't a multiple of 16, the style isn't loaded, the ground is unknown, or an icon reaches
            beyond the lattice.
    """
    if size_pixels < LATTICE_CELLS or size_pixels % LATTICE_CELLS:
        raise UsageError(f"size_pixels is {size_pixels}; wanted a positive multiple of {LATTICE_CELLS}")
    if scene.ground not in GROUNDS:
        raise UsageError(f"ground {scene.ground!r} is unknown; wanted {', '.join(GROUNDS)}")
    cell = size_pixels // LATTICE_CELLS
    canvas = np.empty((size_pixels, size_pixels, 3), dtype=np.uint8)
    canvas[:] = GROUNDS[scene.ground].rgb
    for placement in scene.placements:
        if min(placement.column, placement.row) < 0 or (
            max(placement.column, placement.row) + placement.size > LATTICE_CELLS
        ):
            raise UsageError(
                f"{placement} reaches beyond the lattice of {LATTICE_CELLS}x{LATTICE_CELLS} cells"
            )
        # The whole icon sets are too large to keep every raster; the table's objects are not.
        is_kept = scene.kind != "icon"
        raster = icons.draw(
            scene.style, placement.code, placement.size * cell, placement.colour, keep=is_kept
        )
        if placement.variation:
            raster = augment(raster, placement.variation)
        top, left, side = placement.row * cell, placement.column * cell, placement.size * cell
        patch = canvas[top : top + side, left : left + side]
        alpha = raster[..., 3:].astype(np.uint16)
        # Whole numbers, so that every machine draws the same bytes.
        patch[:] = (raster[..., :3] * alpha + patch * (255 - alpha) + 127) // 255
    return Image.fromarray(canvas)
