"""What a caption is made of: things as they are mentioned, and what both languages have to be able to tell."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from cogview.world.objects import SceneObject
from cogview.world.scenes import Relation

USUAL_NAME_SHARE = 0.75
BARE_NOUN_SHARE = 0.2
FULL_STOP_SHARE = 0.06
CAPITAL_SHARE = 0.25

Manner = Literal["plain", "led-in", "free"]
"""In the plainest forms, in such with words that lead in, or as people ask and tell otherwise."""


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A thing, or several of it, as a caption has to mention it.

    Args:
        thing: what it is.
        number: of it, 1 to 6.
        colour: a key of `colours.COLOURS`, or None if none is told.
        size: a key of `scenes.TOLD_SIZES`, or None if none is told.
        avoids_sizes: names that sound like a size are passed over, as 小熊 beside "a small dog".
    """

    thing: SceneObject
    number: int = 1
    colour: str | None = None
    size: str | None = None
    avoids_sizes: bool = False


@dataclass(frozen=True, kw_only=True)
class Named:
    """A mention in words.

    Args:
        text: such as "a small red car" or "two cats".
        number: of things.
        short: what it may be called after the same thing was named, "a blue one"; None if it may not.
    """

    text: str
    number: int = 1
    short: str | None = None


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a scene shows, in words.

    Args:
        text: the words.
        form: a name of things; a clause ("a cat is above a dog"); or one that says first where ("on the left is a
            cat"), which no other clause can hold.
        first_number: of the first things that it names.
        is_plural: whether a verb after it is in the plural.
        num_things: in all.
    """

    text: str
    form: Literal["things", "clause", "turned clause"] = "things"
    first_number: int = 1
    is_plural: bool = False
    num_things: int = 1


@runtime_checkable
class Telling(Protocol):
    """What a language's module offers; all choices are made by the generator that it is given."""

    def noun(self, mention: Mention, rng: random.Random) -> str:
        """Return one of a thing's names, in the singular or plural as it needs be."""
        ...

    def named(self, mention: Mention, noun: str, rng: random.Random) -> Named:
        """Return a thing with number, size and colour."""
        ...

    def relation(
        self, rng: random.Random, first: Named, relation: Relation, second: Named, manner: Manner
    ) -> Content:
        """Tell where the first of two lies to the second."""
        ...

    def beside(self, rng: random.Random, first: Named, second: Named) -> Content:
        """Tell that two are side by side, the left one first."""
        ...

    def listed(self, rng: random.Random, things: Sequence[Named], manner: Manner) -> Content:
        """List things in the order given."""
        ...

    def sentence(
        self, rng: random.Random, content: Content, ground: str | None, style: str | None, manner: Manner
    ) -> str:
        """Return a caption: the content with its ground and style, where they are told."""
        ...


def one_of(names: Sequence[str], rng: random.Random) -> str:
    """Return the usual name, which comes first, or now and then another."""
    if len(names) == 1 or rng.random() < USUAL_NAME_SHARE:
        return names[0]
    return rng.choice(names[1:])


def names_without(names: Iterable[str], words: Iterable[str]) -> list[str]:
    """Return the names that hold none of some words; all of them if each holds one."""
    names, words = list(names), list(words)
    return [name for name in names if not any(word in name for word in words)] or names
