"""Random composition of scenes, reproducible by configuration, split and index."""

import random
from collections.abc import Collection
from dataclasses import replace

from cogview.errors import UsageError
from cogview.world.colours import COLOURS
from cogview.world.config import HELD_OUT_STYLES, DefaultDataConfig, Split, Style
from cogview.world.layouts import (
    SIZE_PAIRS,
    draw_groups,
    draw_place,
    draw_places_of_sizes,
    draw_relation_places,
    draw_rows,
    draw_tidy_places,
)
from cogview.world.objects import GROUNDS, held_out_codes, known_codes, scene_objects
from cogview.world.scenes import LARGE_CELLS, NAMED_SIZES, SMALL_CELLS, Kind, Placement, Scene, split_of

MAX_ATTEMPTS = 10_000
SAME_THING_SHARE = 0.08
"""Share of scenes of two recolourable things that show the same thing in two colours."""
SAME_THING_SIZES_SHARE = 0.1
"""Share of scenes of two sizes that show the same thing twice."""
AUGMENTED_SIZES = {"small": (4, 5), "big": (9, LARGE_CELLS)}
"""Smallest and largest side of an augmented single thing of a named size."""


def make_scene(
    config: DefaultDataConfig,
    split: Split,
    index: int,
    icon_codes: tuple[str, ...] = (),
    colour_named_codes: Collection[str] = (),
) -> Scene:
    """Return scene `index` of a split, a function of configuration, split and index.

    Args:
        config: seed, styles, objects and shares.
        split: to which the scene must belong.
        index: within the split, from 0.
        icon_codes: icons for `icon_share`, of any split.
        colour_named_codes: icons whose captions name their colours, which augmentation then keeps.

    Raises:
        UsageError: no scene of this split is possible.
    """
    # Seeding with a string does not depend on machine or process.
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
    held_out_styles = styles if config.num_held_out_drawing else ()
    for _ in range(MAX_ATTEMPTS):
        scene = _compose(rng, kind, styles, known, held_out, icon_codes, config)
        if config.coloured_share:
            scene = _with_colours(scene, rng, config.coloured_share)
        if _belongs_to(scene, split, held_out_styles) and not _has_invisible_object(scene):
            if split == "train" and rng.random() < config.varied_share:
                return _augmented(scene, rng, colour_named_codes, with_sizes=config.sized_share > 0)
            return scene
    raise UsageError(
        f"no scene of split {split!r} was found in {MAX_ATTEMPTS} attempts; use more objects or styles"
    )


def _belongs_to(scene: Scene, split: Split, held_out_styles: tuple[Style, ...]) -> bool:
    """Return whether a scene belongs to a split; to `held-out-colour` only because of its colours."""
    if split == "held-out-colour":
        plain = replace(scene, placements=tuple(replace(each, colour=None) for each in scene.placements))
        return split_of(scene, held_out_styles) == split and split_of(plain, held_out_styles) == "train"
    return split_of(scene, held_out_styles) == split


def _with_colours(scene: Scene, rng: random.Random, share: float) -> Scene:
    """Recolour some things of a scene, copies of a thing alike."""
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


def _augmented(
    scene: Scene, rng: random.Random, colour_named_codes: Collection[str], with_sizes: bool
) -> Scene:
    """Augment all icons of a scene, and the size of a single one. Colours and sizes in captions stay true."""
    placements = []
    for each in scene.placements:
        variation = rng.randint(1, 2**31)
        keeps_colour = each.colour is not None or (scene.kind == "icon" and each.code in colour_named_codes)
        placements.append(replace(each, variation=-variation if keeps_colour else variation))
    if len(placements) == 1:
        (single,) = placements
        name = next((name for name, size in NAMED_SIZES.items() if size == single.size), None)
        if with_sizes and scene.kind == "single" and name is not None:
            placements = [_resized(replace(single, told_size=name), rng, *AUGMENTED_SIZES[name])]
        elif single.size > SMALL_CELLS:
            placements = [_resized(single, rng, SMALL_CELLS, single.size)]
    return replace(scene, placements=tuple(placements))


def _resized(thing: Placement, rng: random.Random, least: int, most: int) -> Placement:
    size = rng.randint(least, most)
    column, row = draw_place(rng, size)
    return replace(thing, size=size, column=column, row=row)


def _has_invisible_object(scene: Scene) -> bool:
    """Return whether an object of the scene has the colour of the ground."""
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
        shares["single"] = shares["icon"] = 0.0  # a single object is not a composition
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
        pair = rng.choice(SIZE_PAIRS)
        sizes = rng.sample(pair, 2)
        if sizes[0] != sizes[1] and rng.random() < SAME_THING_SIZES_SHARE:
            codes = [codes[0], codes[0]]
        places = draw_places_of_sizes(rng, (sizes[0], sizes[1]))
    elif len(codes) == 1:
        size = config.single_cells if kind == "single" else config.icon_cells
        if kind == "single" and config.sized_share and rng.random() < config.sized_share:
            size = rng.choice(list(NAMED_SIZES.values()))
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
