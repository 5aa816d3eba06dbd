"""Sentences that a newcomer may begin with: those whose words a model has learnt."""

from collections.abc import Iterable, Iterator
from typing import Literal

from cogview.data.captions import english_article
from cogview.data.config import Language
from cogview.data.world import GROUNDS, SceneObject, scene_objects
from cogview.generation.model import LoadedModel

_Plan = tuple[Literal["one", "two", "three", "left", "above", "and"], str, str]

# What is shown, its things by their usual names, and the ground; none of these swallows a thing.
_PLANS: tuple[_Plan, ...] = (
    ("one", "panda", "green"),
    ("two", "balloon", "blue"),
    ("above", "rainbow/castle", "blue"),
    ("left", "penguin/snowman", "blue"),
    ("one", "butterfly", "pink"),
    ("three", "strawberry", "yellow"),
    ("and", "birthday cake/gift", "pink"),
    ("above", "crescent moon/house", "purple"),
    ("one", "rocket", "black"),
    ("left", "sunflower/bee", "white"),
    ("two", "umbrella", "yellow"),
    ("above", "bird/tree", "white"),
    ("one", "sailboat", "orange"),
    ("three", "tulip", "green"),
    ("and", "guitar/drum", "purple"),
    ("left", "cat/fish", "pink"),
    ("one", "Christmas tree", "red"),
    ("above", "sun/palm tree", "pink"),
    ("two", "rabbit", "green"),
    ("left", "elephant/duck", "pink"),
    ("one", "steam train", "yellow"),
    ("and", "lemon/slice of watermelon", "white"),
    ("above", "star/pine tree", "black"),
    ("three", "mushroom", "blue"),
)
_ENGLISH_NUMBERS = {"two": "two", "three": "three"}
_CHINESE_NUMBERS = {"two": "两", "three": "三"}


def suggestions(model: LoadedModel) -> dict[str, tuple[str, ...]]:
    """Return sentences in English and Chinese; none if it is not known which words the model has learnt.

    Args:
        model: that is to draw them.
    """
    if model.parts.words is None:
        return {"en": (), "zh": ()}
    languages: tuple[Language, ...] = ("en", "zh")
    return {language: tuple(_known(model, _sentences(language))) for language in languages}


def _known(model: LoadedModel, sentences: Iterable[str]) -> Iterator[str]:
    return (sentence for sentence in sentences if not model.unknown_words([sentence]))


def _sentences(language: Language) -> Iterator[str]:
    things = {thing.singular[0]: thing for thing in scene_objects().values()}
    tell = _chinese if language == "zh" else _english
    for kind, names, ground in _PLANS:
        yield tell(kind, [things[name] for name in names.split("/")], ground)


def _english(kind: str, things: list[SceneObject], ground: str) -> str:
    names = [f"{english_article(thing.singular[0])} {thing.singular[0]}" for thing in things]
    if kind in _ENGLISH_NUMBERS:
        content = f"{_ENGLISH_NUMBERS[kind]} {things[0].plural[0]}"
    else:
        content = {"left": " to the left of ", "above": " above ", "and": " and "}.get(kind, "").join(names)
    return f"{content} on {english_article(ground)} {ground} background"


def _chinese(kind: str, things: list[SceneObject], ground: str) -> str:
    on = f"{GROUNDS[ground].chinese[0]}色背景"
    names = [f"一{thing.measure}{thing.chinese[0]}" for thing in things]
    if kind in ("left", "above"):
        first, second = names
        return f"{on}上，{first}在{second}的{'左边' if kind == 'left' else '上面'}"
    if kind in _CHINESE_NUMBERS:
        return f"{on}上的{_CHINESE_NUMBERS[kind]}{things[0].measure}{things[0].chinese[0]}"
    return f"{on}上的{'和'.join(names)}"
