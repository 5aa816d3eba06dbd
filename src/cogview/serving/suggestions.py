"""Sentences that a newcomer may begin with: those whose words a model has learnt."""

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

# How things stand, the things by their usual names with number, size and colour, and the ground, which swallows none.
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
_PLANS_OF_A_LARGER_WORLD: tuple[_Plan, ...] = (
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
"""Two groups, colours of things and sizes: a model may know all of their words and none of this."""


class _Asked(NamedTuple):
    """So many things of a kind, of a size and a colour if these are not empty."""

    number: int
    size: str
    colour: str
    thing: SceneObject


def suggestions(model: LoadedModel) -> dict[str, tuple[str, ...]]:
    """Return sentences in English and Chinese; none if it is not known which words the model has learnt.

    Args:
        model: that is to draw them.
    """
    if model.parts.words is None:
        return {"en": (), "zh": ()}
    plans = _PLANS
    if not model.unknown_words(SIZE_NAMES):
        plans = tuple(plan for pair in zip_longest(_PLANS_OF_A_LARGER_WORLD, _PLANS) for plan in pair if plan)
    languages: tuple[Language, ...] = ("en", "zh")
    return {language: tuple(_known(model, _sentences(language, plans))) for language in languages}


def _known(model: LoadedModel, sentences: Iterable[str]) -> Iterator[str]:
    return (sentence for sentence in sentences if not model.unknown_words([sentence]))


def _sentences(language: Language, plans: Iterable[_Plan]) -> Iterator[str]:
    tell = _chinese if language == "zh" else _english
    for kind, told, ground in plans:
        asked = _asked(told)
        if all(each.thing.has_colours or not each.colour for each in asked):
            yield tell(kind, asked, ground)


def _asked(told: str) -> list[_Asked]:
    """Return what a plan asks for."""
    things = {thing.singular[0]: thing for thing in scene_objects().values()}
    asked = []
    for name in told.split("/"):
        number, size, colour = 1, "", ""
        while name not in things:
            word, _, name = name.partition(" ")
            if word.isdecimal():
                number = int(word)
            elif word in SIZE_WORDS:
                size = word
            else:
                colour = word
        asked.append(_Asked(number, size, colour, things[name]))
    return asked


def _english(kind: str, asked: Sequence[_Asked], ground: str) -> str:
    words = {"left": "to the left of", "above": "above", "beside": "beside", "and": "and"}.get(kind, "")
    content = f" {words} ".join(map(_english_name, asked))
    return f"{content} on {english_article(ground)} {ground} background"


def _english_name(asked: _Asked) -> str:
    names = asked.thing.singular if asked.number == 1 else asked.thing.plural
    name = " ".join(filter(None, [asked.size, asked.colour, names[0]]))
    return f"{english_article(name) if asked.number == 1 else NUMBERS[asked.number][0]} {name}"


def _chinese(kind: str, asked: Sequence[_Asked], ground: str) -> str:
    on = f"{GROUNDS[ground].chinese[0]}色背景"
    names = [_chinese_name(each) for each in asked]
    side = {"left": "左边", "above": "上面", "beside": "旁边"}.get(kind)
    if side is not None:
        first, second = names
        return f"{on}上，{first}在{second}的{side}"
    return f"{on}上的{'和'.join(names)}"


def _chinese_name(asked: _Asked) -> str:
    number = "一" if asked.number == 1 else NUMBERS[asked.number][1]
    size = SIZE_WORDS[asked.size]["zh"][0] if asked.size else ""
    colour = f"{COLOURS[asked.colour].chinese[0]}色的" if asked.colour else ""
    adjectives = f"{colour}{size}" if len(size) == 1 else f"{size}{colour}"  # 绿色的小汽车, 很大的绿色的汽车
    return f"{number}{asked.thing.measure}{adjectives}{asked.thing.chinese[0]}"
