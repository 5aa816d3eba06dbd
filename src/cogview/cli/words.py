"""Verb `cogview words`."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from cogview.cli.report import print_result

if TYPE_CHECKING:
    from cogview.generation.known_concepts import ColourConcept, Concept, KnownConcepts

_COLUMNS = 80
_INDENT = "  "


def run(*, model: str | None = None, all: bool = False, json: bool = False) -> None:
    """List what a model can draw, in English and Chinese: things, colours, numbers, places and styles.

    The list follows from the words of the training captions. For a model that was trained on other data than the
    default, the words themselves are listed, most frequent first.

    Args:
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        all: list all words of the training captions.
        json: print the result as JSON.
    """
    from cogview.generation.known_concepts import read_known_concepts
    from cogview.models.config import find_model_folder

    known = read_known_concepts(find_model_folder(model), all)
    print_result(asdict(known), list(_lines(known, all)), json)


def _lines(known: "KnownConcepts", lists_all: bool) -> Iterator[str]:
    """Yield the result as text lines."""
    if known.things:
        yield f"{len(known.things)} things:"
        yield from _wrapped(_usual(known.things))
        yield from _colours(known.colours)
        if known.numbers:
            yield "numbers, beside one:"
            yield from _wrapped(_usual(known.numbers))
        for title, names in (
            ("sizes of things", known.sizes),
            ("places", known.places),
            ("styles", known.styles),
        ):
            if names:
                yield f"{title}:"
            for name in names:
                yield from _wrapped([*name.english, *name.chinese])
    else:
        yield "This model knows none, or hardly any, of the things of the default data."
    for adapter, words in known.adapters.items():
        if words:
            yield f"words that it knows with --adapter {adapter}:"
            yield from _wrapped(words)
    count = f"{known.num_words:,} words" + (" that are kept" if known.num_left_out else "")
    if known.words:
        listed = f"{len(known.words):,} of " if len(known.words) < known.num_words else ""
        yield f"{listed}its {count}, the most frequent first:"
        yield from _wrapped(known.words)
    if len(known.words) < known.num_words and not lists_all:
        yield f"--all lists all of its {count}."


def _colours(colours: tuple["ColourConcept", ...]) -> Iterator[str]:
    """Yield lines with the colours of grounds and things."""
    for title, of in (
        ("colours, of grounds and of things", ("grounds", "things")),
        ("colours, of grounds only", ("grounds",)),
        ("colours, of things only", ("things",)),
    ):
        matching = [colour for colour in colours if colour.of == of]
        if matching:
            yield f"{title}:"
            yield from _wrapped(_usual(matching))


def _usual(names: Iterable["Concept"]) -> list[str]:
    return [f"{name.english[0]} {name.chinese[0]}" for name in names]


def _wrapped(items: Iterable[str]) -> Iterator[str]:
    """Wrap items to the terminal's columns, of which Chinese characters take two."""
    line = ""
    for item in items:
        longer = f"{line}, {item}" if line else _INDENT + item
        if line and _columns(longer) >= _COLUMNS:  # a comma may follow
            yield f"{line},"
            longer = _INDENT + item
        line = longer
    if line:
        yield line


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
