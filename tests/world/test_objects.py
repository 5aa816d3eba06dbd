"""The table of objects beside the art that it speaks of, and the names that scenes are told in."""

from collections import Counter

import numpy as np
import pytest
from jaxtyping import UInt8

from cogview.world.colours import COLOURS, LEAST_MAIN_SHARE, main_share
from cogview.world.config import TRAINING_STYLES, Style
from cogview.world.icons import Icons, load_icons, packages_of
from cogview.world.objects import GROUNDS, held_out_codes, known_codes, scene_objects
from cogview.world.packages import cache_folder

PIXELS = 56  # of a thing in company, in a picture of 128
COLOURED_STYLES: tuple[Style, ...] = ("twemoji", "fluent-flat", "noto")
LEAST_TOLD = 40  # of 255, in one of red, green and blue
LEAST_SEEN = 0.25
NEAR = 0.01  # of LEAST_SEEN: versions of the rasteriser draw edges a little otherwise


@pytest.fixture(scope="module")
def drawn() -> Icons:
    packages = [cache_folder() / "packages" / package.file_name for package in packages_of(TRAINING_STYLES)]
    if not all(package.is_file() for package in packages):
        pytest.skip("needs the packages of icons in the cache")
    return load_icons(TRAINING_STYLES, only_codes=scene_objects())


def seen_share(raster: UInt8[np.ndarray, "y x 4"], rgb: tuple[int, int, int]) -> float:
    """Return the share of an icon's pixels that can be told from its ground."""
    alpha, ground = raster[..., 3:].astype(int), np.array(rgb)
    shown = (raster[..., :3].astype(int) * alpha + ground * (255 - alpha) + 127) // 255
    is_told = np.abs(shown - ground).max(-1) > LEAST_TOLD
    return float(is_told[raster[..., 3] >= 128].mean())


@pytest.mark.parametrize("style", TRAINING_STYLES)
def test_the_grounds_that_swallow_a_thing_are_those_it_can_hardly_be_seen_on(
    drawn: Icons, style: Style
) -> None:
    wrong = []
    for code, thing in scene_objects().items():
        raster = drawn.draw(style, code, PIXELS)
        for name, ground in GROUNDS.items():
            share = seen_share(raster, ground.rgb)
            is_swallowed = (style, name) in thing.swallowed_by
            if is_swallowed != (share < LEAST_SEEN) and abs(share - LEAST_SEEN) > NEAR:
                wrong.append((code, f"{style}/{name}", share))
    assert wrong == []


def test_things_of_any_colour_are_mostly_of_one(drawn: Icons) -> None:
    coloured = [code for code, thing in scene_objects().items() if thing.has_colours]
    shares = {
        (code, style): main_share(drawn.draw(style, code, PIXELS))
        for code in coloured
        for style in COLOURED_STYLES
    }
    assert {key: share for key, share in shares.items() if share < LEAST_MAIN_SHARE} == {}


def test_enough_things_have_colours_and_none_that_is_held_out() -> None:
    table = scene_objects()
    assert sum(table[code].has_colours for code in known_codes(248)) >= 110
    assert not any(table[code].has_colours for code in held_out_codes())


def test_no_name_of_a_thing_of_any_colour_holds_a_colour() -> None:
    named = [*COLOURS.values(), *GROUNDS.values()]
    english = {name for colour in named for name in colour.english}
    chinese = {name for colour in named for name in colour.chinese}
    for thing in scene_objects().values():
        if thing.has_colours:
            assert [name for name in thing.chinese if any(colour in name for colour in chinese)] == []
            for name in (*thing.singular, *thing.plural):
                assert english.isdisjoint(name.lower().split())


@pytest.mark.parametrize("field", ["singular", "plural", "chinese"])
def test_no_name_stands_twice_in_the_table(field: str) -> None:
    names = Counter(
        name.lower() for thing in scene_objects().values() for name in dict.fromkeys(getattr(thing, field))
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_name_begins_with_a_size() -> None:
    """Sizes are told apart from names: "a small dog"."""
    for thing in scene_objects().values():
        for name in thing.singular:
            assert name.split()[0] not in {"small", "little", "big", "large"}
        for name in thing.chinese:
            # These are words of their own: without the first sign they'd be something else or nothing.
            assert name[0] not in "小大" or name in {"大象", "小提琴", "小号", "小鸡"}
