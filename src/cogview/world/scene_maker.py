"""Composes scenes: each a function of the configuration, its split and its number alone."""

import random
from collections.abc import Collection
from dataclasses import replace

from cogview.errors import UsageError
from cogview.world.colours import COLOURS
from cogview.world.config import HELD_OUT_STYLES, DefaultDataConfig, Split, Style
from cogview.world.layouts import (
    SIZES_OF_TWO,
    draw_groups,
    draw_place,
    draw_places_of_sizes,
    draw_relation_places,
    draw_rows,
    draw_tidy_places,
)
from cogview.world.objects import GROUNDS, held_out_codes, known_codes, scene_objects
from cogview.world.scenes import LARGE_CELLS, SMALL_CELLS, TOLD_SIZES, Kind, Placement, Scene, split_of

MAX_ATTEMPTS = 10_000
SAME_THING_SHARE = 0.08
"""Of the scenes of two things that may have any colour: the same thing twice, in two colours."""
SAME_THING_OF_SIZES_SHARE = 0.1
"""Of the scenes of two sizes: the same thing twice."""
VARIED_SIZES = {"small": (4, 5), "big": (9, LARGE_CELLS)}
"""The least and the largest side of a varied thing that is alone and said to be small or big, by `TOLD_SIZES`' keys."""


def make_scene(
    config: DefaultDataConfig,
    split: Split,
    index: int,
    icon_codes: tuple[str, ...] = (),
    codes_of_colours: Collection[str] = (),
) -> Scene:
    """Return scene `index` of a split: a function of the configuration, the split and the index alone.

    Args:
        config: seed, styles, objects and shares.
        split: the split that the scene must belong to.
        index: its number within the split, from 0.
        icon_codes: the icons for the share of single icons; those of other splits are passed over.
        codes_of_colours: those of them that keep their colours where they are varied, since captions tell these.

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
    for name in ("varied_share", "sized_share", "coloured_share"):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name} is {getattr(config, name)}; wanted a share of 0 to 1")
    if not 2 <= config.most_counted <= 6:
        raise UsageError(f"most_counted is {config.most_counted}; wanted 2 to 6")
    kind = _draw_kind(rng, config, split)
    if kind == "icon" and not icon_codes:
        raise UsageError("icon_share is positive but there are no icons; pass icon_codes")
    held_out = held_out_codes() if split == "held-out-object" else []
    held_back = styles if config.num_held_out_drawing else ()
    for _ in range(MAX_ATTEMPTS):
        scene = _compose(rng, kind, styles, known, held_out, icon_codes, config)
        if config.coloured_share:
            scene = _coloured(scene, rng, config.coloured_share)
        if _is_of(scene, split, held_back) and not _is_swallowed(scene):
            if split == "train" and rng.random() < config.varied_share:
                return _varied(scene, rng, codes_of_colours, with_sizes=config.sized_share > 0)
            return scene
    raise UsageError(
        f"no scene of split {split!r} was found in {MAX_ATTEMPTS} attempts; use more objects or styles"
    )


def _is_of(scene: Scene, split: Split, held_back: tuple[Style, ...]) -> bool:
    """Say whether a scene is of a split; one of a colour held out is so for its colour alone."""
    if split == "held-out-colour":
        plain = replace(scene, placements=tuple(replace(each, colour=None) for each in scene.placements))
        return split_of(scene, held_back) == split and split_of(plain, held_back) == "train"
    return split_of(scene, held_back) == split


def _coloured(scene: Scene, rng: random.Random, share: float) -> Scene:
    """Return the same scene with some of its things in other colours than their own, all of a kind in the same."""
    if scene.kind == "icon":
        return scene
    table = scene_objects()
    colours = [colour for colour in COLOURS if colour != scene.ground]
    things = list(dict.fromkeys(each.code for each in scene.placements))
    may = {code for code in things if table[code].has_colours}
    chosen = {code: rng.choice(colours) for code in things if code in may and rng.random() < share}
    if scene.kind == "relation" and may and rng.random() < SAME_THING_SHARE:
        code = next(code for code in things if code in may)
        pairs = zip(scene.placements, rng.sample(colours, 2), strict=True)
        return replace(
            scene, placements=tuple(replace(each, code=code, colour=colour) for each, colour in pairs)
        )
    return replace(
        scene, placements=tuple(replace(each, colour=chosen.get(each.code)) for each in scene.placements)
    )


def _varied(scene: Scene, rng: random.Random, codes_of_colours: Collection[str], with_sizes: bool) -> Scene:
    """Return the same scene with each of its icons drawn otherwise; one that is alone may have another size, too.

    What captions tell stays true: a thing keeps a colour that is told, and a small or big one stays small or big.
    """
    placements = []
    for each in scene.placements:
        variation = rng.randint(1, 2**31)
        is_told = each.colour is not None or (scene.kind == "icon" and each.code in codes_of_colours)
        placements.append(replace(each, variation=-variation if is_told else variation))
    if len(placements) == 1:
        (alone,) = placements
        told = next((name for name, size in TOLD_SIZES.items() if size == alone.size), None)
        if with_sizes and scene.kind == "single" and told is not None:
            placements = [_resized(replace(alone, told_size=told), rng, *VARIED_SIZES[told])]
        elif alone.size > SMALL_CELLS:
            placements = [_resized(alone, rng, SMALL_CELLS, alone.size)]
    return replace(scene, placements=tuple(placements))


def _resized(thing: Placement, rng: random.Random, least: int, most: int) -> Placement:
    size = rng.randint(least, most)
    column, row = draw_place(rng, size)
    return replace(thing, size=size, column=column, row=row)


def _is_swallowed(scene: Scene) -> bool:
    """Say whether the ground has the colour of one of the scene's objects, which then cannot be seen."""
    table = scene_objects()
    return scene.kind != "icon" and any(
        p.colour is None and (scene.style, scene.ground) in table[p.code].swallowed_by
        for p in scene.placements
    )


def _draw_kind(rng: random.Random, config: DefaultDataConfig, split: Split) -> Kind:
    shares: dict[Kind, float] = {
        "single": config.single_share,
        "count": config.count_share,
        "relation": config.relation_share,
        "group": config.group_share,
        "icon": config.icon_share,
        "groups": config.groups_share,
        "sizes": config.sizes_share,
    }
    if split == "held-out-drawing":
        return "single"
    if split == "held-out-composition":
        shares["single"] = shares["icon"] = 0.0  # one object alone is no composition
    if split == "held-out-colour":
        shares["icon"] = 0.0
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
        number = 1 if kind == "single" else rng.randint(2, config.most_counted)
        codes = [rng.choice(held_out or known)] * number
    else:
        number = rng.choices((2, 3, 4), weights=(5, 3, 2))[0] if kind == "group" else 2
        number = min(number, len(known))
        codes = rng.sample(known, number)
        if held_out:
            codes[rng.randrange(number)] = rng.choice(held_out)
    sizes = [SMALL_CELLS]
    if kind == "groups":
        numbers = rng.choice(
            [(first, second) for first in (1, 2, 3) for second in (1, 2, 3) if first + second > 2]
        )
        codes = [code for code, number in zip(codes, numbers, strict=True) for _ in range(number)]
        size, places = draw_groups(rng, list(numbers))
        sizes = [size]
    elif kind == "sizes":
        pair = rng.choice(SIZES_OF_TWO)
        sizes = rng.sample(pair, 2)
        if sizes[0] != sizes[1] and rng.random() < SAME_THING_OF_SIZES_SHARE:
            codes = [codes[0], codes[0]]
        places = draw_places_of_sizes(rng, (sizes[0], sizes[1]))
    elif len(codes) == 1:
        size = config.single_cells if kind == "single" else config.icon_cells
        if kind == "single" and config.sized_share and rng.random() < config.sized_share:
            size = rng.choice(list(TOLD_SIZES.values()))
        sizes, places = [size], [draw_place(rng, size)]
    elif len(codes) > 4:
        size, places = draw_rows(rng, [3, len(codes) - 3])
        sizes = [size]
    else:
        places = draw_relation_places(rng) if kind == "relation" else draw_tidy_places(rng, len(codes))
    placements = tuple(
        Placement(code=code, column=column, row=row, size=size)
        for code, (column, row), size in zip(codes, places, sizes * (len(codes) // len(sizes)), strict=True)
    )
    return Scene(kind=kind, ground=ground, style=style, placements=placements)
