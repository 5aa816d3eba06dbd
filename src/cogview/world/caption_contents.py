"""Parts of captions, and the interface that each language implements."""

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
"""Plain forms, forms with a lead-in, or the many forms of free speech."""


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A thing or copies of it to be mentioned in a caption.

    Args:
        thing: the object.
        number: of copies, 1 to 6.
        colour: a key of `colours.COLOURS`, or None to mention none.
        size: a key of `scenes.NAMED_SIZES`, or None to mention none.
        avoids_sizes: whether to avoid names that sound like a size, such as 小熊 beside "a small dog".
    """

    thing: SceneObject
    number: int = 1
    colour: str | None = None
    size: str | None = None
    avoids_sizes: bool = False


@dataclass(frozen=True, kw_only=True)
class NounPhrase:
    """Mention of things in words.

    Args:
        text: such as "a small red car" or "two cats".
        number: of things.
        short: short form after a mention of the same thing, "a blue one"; None if there is none.
    """

    text: str
    number: int = 1
    short: str | None = None


@dataclass(frozen=True, kw_only=True)
class Content:
    """Contents of a scene in words.

    Args:
        text: the words.
        form: noun phrase; clause ("a cat is above a dog"); or inverted clause ("on the left is a cat"), which cannot be
            a subordinate clause.
        first_number: number of the first things in the text.
        is_plural: whether a verb after it is in the plural.
        num_things: in all.
    """

    text: str
    form: Literal["things", "clause", "inverted clause"] = "things"
    first_number: int = 1
    is_plural: bool = False
    num_things: int = 1


@runtime_checkable
class CaptionWriter(Protocol):
    """Interface of a language's module; `rng` makes all choices."""

    def noun(self, mention: Mention, rng: random.Random) -> str:
        """Return one of a thing's names, in the singular or plural."""
        ...

    def noun_phrase(self, mention: Mention, noun: str, rng: random.Random) -> NounPhrase:
        """Return the phrase with number, size and colour."""
        ...

    def relation(
        self, rng: random.Random, first: NounPhrase, relation: Relation, second: NounPhrase, manner: Manner
    ) -> Content:
        """Describe the relation of the first thing to the second."""
        ...

    def beside(self, rng: random.Random, first: NounPhrase, second: NounPhrase) -> Content:
        """Describe two things side by side, the left one first."""
        ...

    def list_things(self, rng: random.Random, things: Sequence[NounPhrase], manner: Manner) -> Content:
        """List things in the given order."""
        ...

    def sentence(
        self, rng: random.Random, content: Content, ground: str | None, style: str | None, manner: Manner
    ) -> str:
        """Return the caption with content and, unless None, ground and style."""
        ...


def pick_name(names: Sequence[str], rng: random.Random) -> str:
    """Return the usual name, which comes first, or sometimes another."""
    if len(names) == 1 or rng.random() < USUAL_NAME_SHARE:
        return names[0]
    return rng.choice(names[1:])


def names_avoiding(names: Iterable[str], words: Iterable[str]) -> list[str]:
    """Return the names that contain none of some words; all names if there are none."""
    names, words = list(names), list(words)
    return [name for name in names if not any(word in name for word in words)] or names
