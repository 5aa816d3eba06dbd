"""Scenes: objects on a coloured ground, placed on a lattice, drawn at any pixel size.

Positions and sizes are whole cells of a lattice of 16x16, one cell an image code at 128 pixels, so that an icon looks
the same to the image tokenizer wherever it stands. A scene is data; what it shows is decided here, what is said of it
in `captions`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from cogview.data.config import HELD_OUT_STYLES, DefaultDataConfig, Split, Style
from cogview.data.icons import Icons
from cogview.data.variation import varied
from cogview.data.world import GROUNDS, held_out_codes, known_codes, scene_objects
from cogview.errors import UsageError

LATTICE_CELLS = 16
LARGE_CELLS = 12
SMALL_CELLS = 7
MAX_ATTEMPTS = 10_000

Kind = Literal["single", "count", "relation", "group", "icon"]
Relation = Literal["left", "right", "above", "below"]
OPPOSITES: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

# Of a hundred (unordered pair, relation, ground) and (object, count, ground) that many are never seen in training ...
HELD_OUT_COMPOSITIONS_PERCENT = 10
# ... and of a hundred pairs of objects that many are never seen together at all.
HELD_OUT_PAIRS_PERCENT = 5
# Of a hundred icons outside the table of objects that many are never seen in training.
HELD_OUT_ICONS_PERCENT = 5


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One icon in a scene, in cells of the lattice.

    Args:
        code: the icon.
        column: of its left edge, 0..15.
        row: of its upper edge, 0..15.
        size: its side, 1..16.
        variation: how it is drawn, as `cogview.data.variation` has it; 0 as it is.
    """

    code: str
    column: int
    row: int
    size: int
    variation: int = 0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows.

    Args:
        kind: how it was composed.
        ground: its ground colour, a key of `world.GROUNDS`.
        style: the style of its icons.
        placements: the icons; none overlaps another.
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
                for p in self.placements
            ],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Scene":
        """Return the scene that `to_json` described."""
        placements = tuple(Placement(**placement) for placement in value["objects"])
        return Scene(kind=value["kind"], ground=value["ground"], style=value["style"], placements=placements)


def relation_of(first: Placement, second: Placement) -> tuple[Relation, ...]:
    """Return how `first` lies to `second`: one relation, or two on a diagonal.

    Two icons that share most of their rows are side by side even if one stands a little higher, and so with columns.
    """
    relations: list[Relation] = []
    across, down = second.column - first.column, second.row - first.row
    apart = (first.size + second.size) / 4  # half of the mean size
    if abs(across) >= apart:
        relations.append("left" if across > 0 else "right")
    if abs(down) >= apart:
        relations.append("above" if down > 0 else "below")
    return tuple(relations)


def _percentile(*parts: object) -> int:
    """Return 0..99 from a hash that is the same on every machine and in every version."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100


@cache
def is_held_out_icon(code: str) -> bool:
    """Say whether an icon is never shown in training, be it of the table of objects or not."""
    thing = scene_objects().get(code)
    return thing.held_out if thing else _percentile("icon", code) < HELD_OUT_ICONS_PERCENT


@cache
def is_held_out_pair(first: str, second: str) -> bool:
    """Say whether two objects are never shown together in training, in either order."""
    return _percentile("pair", *sorted((first, second))) < HELD_OUT_PAIRS_PERCENT


@cache
def is_held_out_composition(first: str, relation: Relation | int, second: str, ground: str) -> bool:
    """Say whether training never shows two objects in this relation on this ground.

    "A left of B" and "B right of A" are one composition. A count of one object is (object, number, object, ground).
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
    """Return the one of some styles in which an object is held back from all splits but `held-out-drawing`."""
    return styles[_percentile("drawing", code) % len(styles)]


def compositions(scene: Scene) -> Iterator[tuple[str, Relation | int, str]]:
    """Yield every (object, relation, object) and (object, number, object) that a scene shows."""
    for index, first in enumerate(scene.placements):
        for second in scene.placements[index + 1 :]:
            if first.code != second.code:
                for relation in relation_of(first, second):
                    yield first.code, relation, second.code
    if scene.kind == "count":
        code = scene.placements[0].code
        yield code, len(scene.placements), code


def split_of(scene: Scene, styles: tuple[Style, ...] = ()) -> Split:
    """Return the only split that may hold a scene, decided by what it shows.

    Args:
        scene: what it shows.
        styles: those of which one is held back for each object; none by default.
    """
    if scene.style in HELD_OUT_STYLES:
        return "held-out-style"
    if any(is_held_out_icon(placement.code) for placement in scene.placements):
        return "held-out-object"
    if styles and any(held_out_style(each.code, styles) == scene.style for each in scene.placements):
        return "held-out-drawing"
    for first, relation, second in compositions(scene):
        if first != second and is_held_out_pair(first, second):
            return "held-out-composition"
        if is_held_out_composition(first, relation, second, scene.ground):
            return "held-out-composition"
    return "train"


def make_scene(
    config: DefaultDataConfig, split: Split, index: int, icon_codes: tuple[str, ...] = ()
) -> Scene:
    """Return scene `index` of a split: a function of the configuration, the split and the index alone.

    Args:
        config: seed, styles, objects and shares.
        split: the split that the scene must belong to.
        index: its number within the split, from 0.
        icon_codes: the icons for the share of single icons; those of other splits are passed over.

    Raises:
        UsageError: the configuration leaves no scene for this split.
    """
    # A string seeds Python's generator by its hash, the same on every machine and for every worker.
    rng = random.Random(f"{config.seed}/{split}/{index}")
    styles: tuple[Style, ...] = HELD_OUT_STYLES if split == "held-out-style" else config.styles
    known = known_codes(config.num_objects)
    for name in ("single_cells", "icon_cells"):
        if not SMALL_CELLS <= getattr(config, name) <= LARGE_CELLS:
            raise UsageError(
                f"{name} is {getattr(config, name)}; wanted {SMALL_CELLS} to {LARGE_CELLS} cells of the lattice"
            )
    if not 0 <= config.varied_share <= 1:
        raise UsageError(f"varied_share is {config.varied_share}; wanted a share of 0 to 1")
    kind = _draw_kind(rng, config, split)
    if kind == "icon" and not icon_codes:
        raise UsageError("icon_share is positive but there are no icons; pass icon_codes")
    held_out = held_out_codes() if split == "held-out-object" else []
    held_back = styles if config.num_held_out_drawing else ()
    for _ in range(MAX_ATTEMPTS):
        scene = _compose(rng, kind, styles, known, held_out, icon_codes, config)
        if split_of(scene, held_back) == split and not _is_swallowed(scene):
            return _varied(scene, rng) if split == "train" and rng.random() < config.varied_share else scene
    raise UsageError(
        f"no scene of split {split!r} was found in {MAX_ATTEMPTS} attempts; use more objects or styles"
    )


def _varied(scene: Scene, rng: random.Random) -> Scene:
    """Return the same scene with each of its icons drawn otherwise; one that is alone may be smaller, too."""
    placements = tuple(replace(each, variation=rng.randint(1, 2**31)) for each in scene.placements)
    if len(placements) == 1 and placements[0].size > SMALL_CELLS:
        size = rng.randint(SMALL_CELLS, placements[0].size)
        column, row = _draw_place(rng, size)
        placements = (replace(placements[0], size=size, column=column, row=row),)
    return replace(scene, placements=placements)


def _draw_place(rng: random.Random, size: int) -> tuple[int, int]:
    """Return column and row of something alone, which keeps a margin."""
    furthest = LATTICE_CELLS - 1 - size
    return rng.randint(1, furthest), rng.randint(1, furthest)


def _is_swallowed(scene: Scene) -> bool:
    """Say whether the ground has the colour of one of the scene's objects, which then cannot be seen."""
    table = scene_objects()
    return scene.kind != "icon" and any(
        (scene.style, scene.ground) in table[p.code].swallowed_by for p in scene.placements
    )


def _draw_kind(rng: random.Random, config: DefaultDataConfig, split: Split) -> Kind:
    shares: dict[Kind, float] = {
        "single": config.single_share,
        "count": config.count_share,
        "relation": config.relation_share,
        "group": config.group_share,
        "icon": config.icon_share,
    }
    if split == "held-out-drawing":
        return "single"
    if split == "held-out-composition":
        shares["single"] = shares["icon"] = 0.0  # one object alone is no composition
    if min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise UsageError(
            f"the shares of the kinds of picture are {shares}; wanted none negative and one positive"
        )
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _compose(
    rng: random.Random,
    kind: Kind,
    styles: tuple[Style, ...],
    known: list[str],
    held_out: list[str],
    icon_codes: tuple[str, ...],
    config: DefaultDataConfig,
) -> Scene:
    ground = rng.choice(list(GROUNDS))
    style = rng.choice(styles)
    if kind == "icon":
        codes = [rng.choice(icon_codes)]
    elif kind in ("single", "count"):
        number = 1 if kind == "single" else rng.randint(2, 4)
        codes = [rng.choice(held_out or known)] * number
    else:
        number = 2 if kind == "relation" else rng.choices((2, 3, 4), weights=(5, 3, 2))[0]
        number = min(number, len(known))
        codes = rng.sample(known, number)
        if held_out:
            codes[rng.randrange(number)] = rng.choice(held_out)
    if len(codes) == 1:
        size = config.single_cells if kind == "single" else config.icon_cells
        places = [_draw_place(rng, size)]
    else:
        places = _draw_relation_places(rng) if kind == "relation" else _draw_tidy_places(rng, len(codes))
        size = SMALL_CELLS
    placements = tuple(
        Placement(code=code, column=column, row=row, size=size)
        for code, (column, row) in zip(codes, places, strict=True)
    )
    return Scene(kind=kind, ground=ground, style=style, placements=placements)


def _draw_relation_places(rng: random.Random) -> list[tuple[int, int]]:
    """Return (column, row) of two icons side by side or one above the other, in either order."""
    near, far = rng.randint(0, 1), rng.randint(8, 9)
    middle = rng.randint(4, 5)
    places = [(near, middle), (far, middle)] if rng.random() < 0.5 else [(middle, near), (middle, far)]
    rng.shuffle(places)
    return places


def _draw_tidy_places(rng: random.Random, number: int) -> list[tuple[int, int]]:
    """Return (column, row) of 2-4 icons in a row, a column, a diagonal, a triangle or a square."""
    near, far = rng.randint(0, 1), rng.randint(8, 9)
    middle = rng.randint(4, 5)
    layouts = {
        2: [
            [(near, middle), (far, middle)],
            [(middle, near), (middle, far)],
            [(near, near), (far, far)],
            [(far, near), (near, far)],
        ],
        3: [[(middle, near), (near, far), (far, far)], [(near, near), (far, near), (middle, far)]],
        4: [[(near, near), (far, near), (near, far), (far, far)]],
    }
    return rng.choice(layouts[number])


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
        raster = icons.draw(scene.style, placement.code, placement.size * cell, keep=scene.kind != "icon")
        if placement.variation:
            raster = varied(raster, placement.variation)
        top, left, side = placement.row * cell, placement.column * cell, placement.size * cell
        patch = canvas[top : top + side, left : left + side]
        alpha = raster[..., 3:].astype(np.uint16)
        # Whole numbers, so that every machine draws the same bytes.
        patch[:] = (raster[..., :3] * alpha + patch * (255 - alpha) + 127) // 255
    return Image.fromarray(canvas)
