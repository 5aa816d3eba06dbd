"""Example prompts whose words a model has learnt."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal, NamedTuple

from cogview.generation.known_concepts import NUMBERS, SIZE_NAMES
from cogview.generation.model import LoadedModel
from cogview.world.caption_words import SIZE_WORDS
from cogview.world.colours import COLOURS
from cogview.world.config import Language
from cogview.world.english_captions import english_article
from cogview.world.objects import GROUNDS, SceneObject, scene_objects

_Plan = tuple[Literal["one", "and", "left", "above", "beside"], str, str]

# Arrangement; things with number, size and colour; a ground on which all of them are visible.
_PLANS: tuple[_Plan, ...] = (
    ("one", "panda", "green"),
    ("one", "2 balloon", "blue"),
    ("above", "rainbow/castle", "blue"),
    ("left", "penguin/snowman", "blue"),
    ("one", "butterfly", "pink"),
    ("one", "3 strawberry", "yellow"),
    ("and", "birthday cake/gift", "pink"),
    ("above", "crescent moon/house", "purple"),
    ("one", "rocket", "black"),
    ("left", "sunflower/bee", "white"),
    ("one", "2 umbrella", "yellow"),
    ("above", "bird/tree", "white"),
    ("one", "sailboat", "orange"),
    ("one", "3 tulip", "green"),
    ("and", "guitar/drum", "purple"),
    ("left", "cat/fish", "pink"),
    ("one", "Christmas tree", "red"),
    ("above", "sun/palm tree", "pink"),
    ("one", "2 rabbit", "green"),
    ("left", "elephant/duck", "pink"),
    ("one", "steam train", "yellow"),
    ("and", "lemon/slice of watermelon", "white"),
    ("above", "star/pine tree", "black"),
    ("one", "3 mushroom", "blue"),
)
_LARGE_WORLD_PLANS: tuple[_Plan, ...] = (
    ("and", "2 cat/dog", "blue"),
    ("one", "green car", "white"),
    ("beside", "small dog/big house", "green"),
    ("one", "5 star", "black"),
    ("and", "3 apple/2 banana", "purple"),
    ("one", "blue apple", "white"),
    ("above", "red balloon/yellow flower", "white"),
    ("beside", "big mushroom/small rabbit", "blue"),
    ("one", "6 fish", "pink"),
    ("left", "small pink elephant/tree", "yellow"),
    ("and", "4 key/crown", "blue"),
    ("one", "2 purple umbrella", "yellow"),
)
"""Pairs of groups, coloured and sized things: needs more than knowledge of their words."""


class _Item(NamedTuple):
    """A number of equal things; an empty size or colour is unspecified."""

    number: int
    size: str
    colour: str
    thing: SceneObject


def suggestions(model: LoadedModel) -> dict[str, tuple[str, ...]]:
    """Return prompts in English and Chinese; none if the model's vocabulary is unknown."""
    if model.parts.words is None:
        return {"en": (), "zh": ()}
    plans = _PLANS
    if not model.unknown_words(SIZE_NAMES):
        plans = tuple(plan for pair in zip_longest(_LARGE_WORLD_PLANS, _PLANS) for plan in pair if plan)
    languages: tuple[Language, ...] = ("en", "zh")
    return {language: tuple(_known_sentences(model, _sentences(language, plans))) for language in languages}


def _known_sentences(model: LoadedModel, sentences: Iterable[str]) -> Iterator[str]:
    return (sentence for sentence in sentences if not model.unknown_words([sentence]))


def _sentences(language: Language, plans: Iterable[_Plan]) -> Iterator[str]:
    write = _chinese if language == "zh" else _english
    for kind, spec, ground in plans:
        items = _parse_items(spec)
        if all(each.thing.has_colours or not each.colour for each in items):
            yield write(kind, items, ground)


def _parse_items(spec: str) -> list[_Item]:
    """Parse the things of a plan."""
    things = {thing.singular[0]: thing for thing in scene_objects().values()}
    items = []
    for name in spec.split("/"):
        number, size, colour = 1, "", ""
        while name not in things:
            word, _, name = name.partition(" ")
            if word.isdecimal():
                number = int(word)
            elif word in SIZE_WORDS:
                size = word
            else:
                colour = word
        items.append(_Item(number, size, colour, things[name]))
    return items


def _english(kind: str, items: Sequence[_Item], ground: str) -> str:
    words = {"left": "to the left of", "above": "above", "beside": "beside", "and": "and"}.get(kind, "")
    content = f" {words} ".join(map(_english_name, items))
    return f"{content} on {english_article(ground)} {ground} background"


def _english_name(items: _Item) -> str:
    names = items.thing.singular if items.number == 1 else items.thing.plural
    name = " ".join(filter(None, [items.size, items.colour, names[0]]))
    return f"{english_article(name) if items.number == 1 else NUMBERS[items.number][0]} {name}"


def _chinese(kind: str, items: Sequence[_Item], ground: str) -> str:
    on = f"{GROUNDS[ground].chinese[0]}色背景"
    names = [_chinese_name(each) for each in items]
    side = {"left": "左边", "above": "上面", "beside": "旁边"}.get(kind)
    if side is not None:
        first, second = names
        return f"{on}上，{first}在{second}的{side}"
    return f"{on}上的{'和'.join(names)}"


def _chinese_name(items: _Item) -> str:
    number = "一" if items.number == 1 else NUMBERS[items.number][1]
    size = SIZE_WORDS[items.size]["zh"][0] if items.size else ""
    colour = f"{COLOURS[items.colour].chinese[0]}色的" if items.colour else ""
    adjectives = f"{colour}{size}" if len(size) == 1 else f"{size}{colour}"  # 绿色的小汽车, 很大的绿色的汽车
    return f"{number}{items.thing.measure}{adjectives}{items.thing.chinese[0]}"
