"""Concepts of the default data that a model knows. Does not import PyTorch.

A thing, a colour, a place or a style is known if the model has learnt all words of its names. Words are looked up
singly, so nothing is known about combinations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cogview.errors import UsageError
from cogview.folders import is_part
from cogview.models.config import (
    ADAPTERS_FOLDER,
    DRAWING_TASKS,
    read_adapter_config,
    read_config,
    read_text_case,
)
from cogview.text.config import TextCase
from cogview.text.known_words import WORDS_FILE, KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.world import chinese_captions, english_captions
from cogview.world.caption_words import BESIDE_WORDS, RELATION_WORDS, SIZE_WORDS, STYLE_WORDS
from cogview.world.colours import COLOURS
from cogview.world.objects import GROUNDS, scene_objects

NUMBERS = {
    number: (word, chinese_captions.NUMBERS[number]) for number, word in english_captions.NUMBERS.items()
}
"""Number words of captions, in English and Chinese."""
SIZE_NAMES = tuple(words[0] for names in SIZE_WORDS.values() for words in names.values())
"""The usual words of all sizes; only models of a larger world, with coloured things and groups, know them."""
MIN_KNOWN_THINGS = 5
"""Known things below which a model's world is not that of the default data."""
MAX_LISTED_WORDS = 200
"""Words to list of a model of another world, or of an adapter."""

Coloured = Literal["grounds", "things"]


@dataclass(frozen=True, kw_only=True)
class Concept:
    """Something that a model can draw, by its known names.

    Args:
        english: English names, the usual one first.
        chinese: Chinese names, the usual one first.
    """

    english: tuple[str, ...]
    chinese: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ColourConcept(Concept):
    """Colour that a model can draw.

    Args:
        of: what can have it.
    """

    of: tuple[Coloured, ...]


@dataclass(frozen=True, kw_only=True)
class KnownConcepts:
    """Concepts that a model can draw; for a world other than the default data's, only `words`.

    Args:
        things: commonest first.
        colours: of grounds, and of things if the model knows the words of sizes.
        sizes: of things.
        numbers: of things of one kind.
        places: of a thing relative to another.
        styles: of pictures.
        adapters: words that only an adapter knows, by its name, most frequent first.
        words: most frequent first; only for a model of another world, or with `lists_all`.
        num_words: words that the model has learnt and that were counted.
        num_left_out: rarer words, without counts.
    """

    things: tuple[Concept, ...] = ()
    colours: tuple[ColourConcept, ...] = ()
    sizes: tuple[Concept, ...] = ()
    numbers: tuple[Concept, ...] = ()
    places: tuple[Concept, ...] = ()
    styles: tuple[Concept, ...] = ()
    adapters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    num_words: int = 0
    num_left_out: int = 0


def known_concepts(
    words: KnownWords,
    tokenizer: TextTokenizer,
    case: TextCase,
    adapters: Mapping[str, KnownWords],
    lists_all: bool = False,
) -> KnownConcepts:
    """Return the concepts that a model knows.

    Args:
        words: that the model has learnt.
        tokenizer: of the model.
        case: how the model reads capitals.
        adapters: words of the adapters that draw, by name.
        lists_all: also return all words.
    """
    known = _Known(words, tokenizer, case)
    things = known.names(
        (thing.singular, thing.chinese, thing.plural[:1]) for thing in scene_objects().values()
    )
    adapter_words = {name: known.added_by(each) for name, each in adapters.items()}
    common = known.common(words)
    if len(things) < MIN_KNOWN_THINGS:
        return KnownConcepts(
            adapters=adapter_words,
            words=common if lists_all else common[:MAX_LISTED_WORDS],
            num_words=len(common),
            num_left_out=words.num_left_out,
        )
    sizes = known.names((names["en"], names["zh"]) for names in SIZE_WORDS.values())
    style_names = (
        ([f"{name} style" for name in names["en"]], [f"{name}风格" for name in names["zh"]])
        for names in STYLE_WORDS.values()
    )
    return KnownConcepts(
        things=things,
        colours=_colours(known, of_things=known.all_of(SIZE_NAMES)),
        sizes=sizes,
        numbers=known.names(([english], [chinese]) for english, chinese in NUMBERS.values()),
        places=known.names((names["en"], names["zh"]) for names in [*RELATION_WORDS.values(), BESIDE_WORDS]),
        styles=known.names(style_names),
        adapters=adapter_words,
        words=common if lists_all else (),
        num_words=len(common),
        num_left_out=words.num_left_out,
    )


def read_known_concepts(folder: Path, lists_all: bool = False) -> KnownConcepts:
    """Return the concepts that the model in a folder knows, without reading its weights.

    Args:
        folder: a model folder, as `find_model_folder` returns it.
        lists_all: also return all words.

    Raises:
        UsageError: the folder does not list the words that its model has learnt.
        CogViewError: the folder has no model, or a damaged one.
    """
    case = read_text_case(read_config(folder), folder / "config.json")
    words = KnownWords.in_folder(folder)
    path = folder / "text.model"
    if words is None or not path.is_file():
        raise UsageError(
            f"{folder} does not list the words that its model has learnt, it has no "
            f"{WORDS_FILE if words is None else path.name}: read its card, README.md, or train it on tokens that have "
            f"a {WORDS_FILE} (cogview tokenize writes it)"
        )
    adapters: dict[str, KnownWords] = {}
    adapters_folder = folder / ADAPTERS_FOLDER
    for adapter in sorted(adapters_folder.iterdir()) if adapters_folder.is_dir() else ():
        if is_part(adapter, "adapter") and read_adapter_config(adapter)["task"] in DRAWING_TASKS:
            adapter_words = KnownWords.in_folder(adapter)
            if adapter_words is not None:
                adapters[adapter.name] = adapter_words
    return known_concepts(words, TextTokenizer.from_file(path), case, adapters, lists_all)


@dataclass(frozen=True)
class _Known:
    """Words of a model, and how it reads them."""

    words: KnownWords
    tokenizer: TextTokenizer
    case: TextCase

    def all_of(self, texts: Iterable[str]) -> bool:
        """Return whether all words of some texts are known."""
        return not any(self.words.unknown(text, self.tokenizer, self.case) for text in texts)

    def names(self, concepts: Iterable[Sequence[Sequence[str]]]) -> tuple[Concept, ...]:
        """Return the concepts whose usual English and Chinese names, and any further lists of names, are known."""
        return tuple(
            Concept(english=self._known(english), chinese=self._known(chinese))
            for english, chinese, *more in concepts
            if self.all_of([english[0], chinese[0], *(name for names in more for name in names)])
        )

    def _known(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if self.all_of([name]))

    def common(self, words: KnownWords) -> tuple[str, ...]:
        """Return words, most frequent first; of spellings that are read alike, the most frequent one."""
        spellings: dict[str, str] = {}
        for word in sorted(words.counts, key=lambda word: -words.counts[word]):
            spellings.setdefault(word.casefold() if self.case == "usual" else word, word)
        return tuple(spellings.values())

    def added_by(self, words: KnownWords) -> tuple[str, ...]:
        """Return the most frequent words of an adapter that the model does not know."""
        return tuple(word for word in self.common(words) if not self.all_of([word]))[:MAX_LISTED_WORDS]


def _colours(known: _Known, of_things: bool) -> tuple[ColourConcept, ...]:
    """Return the known colours; their words are the same for grounds and things."""
    colours = []
    for name in dict.fromkeys([*GROUNDS, *(COLOURS if of_things else ())]):
        tables: list[tuple[Coloured, bool]] = [
            ("grounds", name in GROUNDS),
            ("things", of_things and name in COLOURS),
        ]
        colour = GROUNDS.get(name) or COLOURS[name]
        chinese = [f"{each}色" for each in colour.chinese]
        colours += [
            ColourConcept(
                english=each.english, chinese=each.chinese, of=tuple(of for of, has in tables if has)
            )
            for each in known.names([(colour.english, chinese)])
        ]
    return tuple(colours)
