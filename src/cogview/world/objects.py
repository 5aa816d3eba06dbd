"""Objects of scenes with their names, and the colours of grounds."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cogview.errors import UsageError
from cogview.world.colours import Colour

GROUNDS = {
    ground.english[0]: ground
    for ground in (
        Colour(english=("white",), chinese=("白",), rgb=(255, 255, 255)),
        Colour(english=("blue",), chinese=("蓝",), rgb=(88, 150, 228)),
        Colour(english=("green",), chinese=("绿",), rgb=(112, 190, 112)),
        Colour(english=("yellow",), chinese=("黄",), rgb=(252, 222, 96)),
        Colour(english=("red",), chinese=("红",), rgb=(222, 84, 80)),
        Colour(english=("orange",), chinese=("橙", "橘"), rgb=(246, 158, 72)),
        Colour(english=("purple",), chinese=("紫",), rgb=(154, 112, 204)),
        Colour(english=("pink",), chinese=("粉", "粉红"), rgb=(250, 180, 206)),
        Colour(english=("gray", "grey"), chinese=("灰",), rgb=(158, 162, 168)),
        Colour(english=("black",), chinese=("黑",), rgb=(36, 38, 44)),
    )
}


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """Object of scenes.

    Args:
        code: its code points.
        singular: English names in the singular, the usual one first.
        plural: the same in the plural.
        chinese: Chinese names, the usual one first.
        measure: Chinese measure word.
        held_out: whether training never shows it.
        swallowed_by: pairs (style, ground) in which it is hardly visible.
        has_colours: whether it may be drawn in any of `colours.COLOURS`.
    """

    code: str
    singular: tuple[str, ...]
    plural: tuple[str, ...]
    chinese: tuple[str, ...]
    measure: str
    held_out: bool
    swallowed_by: frozenset[tuple[str, str]]
    has_colours: bool


@cache
def scene_objects() -> dict[str, SceneObject]:
    """Return the table of objects by code, most common first."""
    text = resources.files("cogview.world").joinpath("objects.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    objects = [
        SceneObject(
            code=row["code"],
            singular=tuple(row["singular"].split("|")),
            plural=tuple(row["plural"].split("|")),
            chinese=tuple(row["chinese"].split("|")),
            measure=row["measure"],
            held_out=row["split"] == "held-out",
            swallowed_by=frozenset(
                _style_and_ground(pair) for pair in row["swallowed_by"].split("|") if pair
            ),
            has_colours=row["colours"] == "any",
        )
        for row in csv.DictReader(lines, delimiter="\t")
    ]
    return {thing.code: thing for thing in objects}


def _style_and_ground(pair: str) -> tuple[str, str]:
    style, _, ground = pair.partition("/")
    return style, ground


def known_codes(num_objects: int) -> list[str]:
    """Return the codes of the first `num_objects` train objects.

    Raises:
        UsageError: the table has fewer.
    """
    codes = [code for code, thing in scene_objects().items() if not thing.held_out]
    if not 2 <= num_objects <= len(codes):
        raise UsageError(
            f"num_objects is {num_objects}; wanted 2 to {len(codes)}, the train objects of the table"
        )
    return codes[:num_objects]


def held_out_codes() -> list[str]:
    """Return the codes of the objects that training never shows."""
    return [code for code, thing in scene_objects().items() if thing.held_out]
