"""What a model can be asked for, told from the words that it has learnt; nothing here needs PyTorch.

A thing, a colour, a place or a style of the default data is known if the model has learnt all words of its names.
Words are met singly, so nothing is said of what the pictures showed together.
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
"""How many of one kind captions tell, in English and Chinese."""
SIZE_NAMES = tuple(words[0] for names in SIZE_WORDS.values() for words in names.values())
"""The usual words of all sizes. Who knows them learnt from scenes of a larger world: of coloured things, and groups."""
LEAST_THINGS = 5
"""A model that knows fewer of the table's things is of another world than the default data's."""
MOST_WORDS = 200
"""Words that are listed of a model of another world, and those that are listed of an adapter."""

Coloured = Literal["grounds", "things"]


@dataclass(frozen=True, kw_only=True)
class KnownName:
    """Something that a model can be asked for.

    Args:
        english: how it is called, the usual name first; only names that are known.
        chinese: the same.
    """

    english: tuple[str, ...]
    chinese: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KnownColour(KnownName):
    """A colour that a model can be asked for.

    Args:
        of: what can have it.
    """

    of: tuple[Coloured, ...]


@dataclass(frozen=True, kw_only=True)
class KnownThings:
    """What a model can be asked for; all is empty but `words` if it is of another world than the default data's.

    Args:
        things: commonest first.
        colours: of grounds, and of things if the words of sizes are known.
        sizes: of things.
        numbers: of things of one kind.
        places: of a thing, seen from another.
        styles: of pictures.
        adapters: words that the model knows by an adapter alone, by its name and most frequent first.
        words: the most frequent first; those of a model of another world, or all if they are asked for.
        num_words: that it has learnt, and of which a count is kept.
        num_left_out: rarer words that it has met, too.
    """

    things: tuple[KnownName, ...] = ()
    colours: tuple[KnownColour, ...] = ()
    sizes: tuple[KnownName, ...] = ()
    numbers: tuple[KnownName, ...] = ()
    places: tuple[KnownName, ...] = ()
    styles: tuple[KnownName, ...] = ()
    adapters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    num_words: int = 0
    num_left_out: int = 0


def known_things(
    words: KnownWords,
    tokenizer: TextTokenizer,
    case: TextCase,
    adapters: Mapping[str, KnownWords],
    lists_all: bool = False,
) -> KnownThings:
    """Return what a model can be asked for.

    Args:
        words: that it has learnt.
        tokenizer: its own.
        case: how it reads capitals.
        adapters: words of the adapters that draw, by name.
        lists_all: return all its words, too.
    """
    known = _Known(words, tokenizer, case)
    things = known.names(
        (thing.singular, thing.chinese, thing.plural[:1]) for thing in scene_objects().values()
    )
    added = {name: known.added_by(each) for name, each in adapters.items()}
    common = known.common(words)
    if len(things) < LEAST_THINGS:
        return KnownThings(
            adapters=added,
            words=common if lists_all else common[:MOST_WORDS],
            num_words=len(common),
            num_left_out=words.num_left_out,
        )
    sizes = known.names((names["en"], names["zh"]) for names in SIZE_WORDS.values())
    style_names = (
        ([f"{name} style" for name in names["en"]], [f"{name}风格" for name in names["zh"]])
        for names in STYLE_WORDS.values()
    )
    return KnownThings(
        things=things,
        colours=_colours(known, of_things=known.all_of(SIZE_NAMES)),
        sizes=sizes,
        numbers=known.names(([english], [chinese]) for english, chinese in NUMBERS.values()),
        places=known.names((names["en"], names["zh"]) for names in [*RELATION_WORDS.values(), BESIDE_WORDS]),
        styles=known.names(style_names),
        adapters=added,
        words=common if lists_all else (),
        num_words=len(common),
        num_left_out=words.num_left_out,
    )


def things_known_in(folder: Path, lists_all: bool = False) -> KnownThings:
    """Return what the model in a folder can be asked for; of its weights nothing is read.

    Args:
        folder: of the model, as `find_model_folder` returns it.
        lists_all: return all its words, too.

    Raises:
        UsageError: it does not say which words it has learnt.
        CogViewError: it holds no model, or a damaged one.
    """
    case = read_text_case(read_config(folder), folder / "config.json")
    words = KnownWords.in_folder(folder)
    path = folder / "text.model"
    if words is None or not path.is_file():
        raise UsageError(
            f"{folder} does not say which words its model has learnt, it has no "
            f"{WORDS_FILE if words is None else path.name}: read its card, README.md, or train it on tokens that have "
            f"a {WORDS_FILE} (cogview tokenize writes it)"
        )
    adapters: dict[str, KnownWords] = {}
    held = folder / ADAPTERS_FOLDER
    for each in sorted(held.iterdir()) if held.is_dir() else ():
        if is_part(each, "adapter") and read_adapter_config(each)["task"] in DRAWING_TASKS:
            learnt = KnownWords.in_folder(each)
            if learnt is not None:
                adapters[each.name] = learnt
    return known_things(words, TextTokenizer.from_file(path), case, adapters, lists_all)


@dataclass(frozen=True)
class _Known:
    """The words of a model, and how it reads them."""

    words: KnownWords
    tokenizer: TextTokenizer
    case: TextCase

    def all_of(self, texts: Iterable[str]) -> bool:
        """Return whether all words of some texts are known."""
        return not any(self.words.unknown(text, self.tokenizer, self.case) for text in texts)

    def names(self, told: Iterable[Sequence[Sequence[str]]]) -> tuple[KnownName, ...]:
        """Return what is known by its usual names: English and Chinese ones, and perhaps more that must be known."""
        return tuple(
            KnownName(english=self._known(english), chinese=self._known(chinese))
            for english, chinese, *more in told
            if self.all_of([english[0], chinese[0], *(name for names in more for name in names)])
        )

    def _known(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if self.all_of([name]))

    def common(self, words: KnownWords) -> tuple[str, ...]:
        """Return words, the most frequent first; of spellings that are read alike the most frequent one."""
        found: dict[str, str] = {}
        for word in sorted(words.counts, key=lambda word: -words.counts[word]):
            found.setdefault(word.casefold() if self.case == "usual" else word, word)
        return tuple(found.values())

    def added_by(self, words: KnownWords) -> tuple[str, ...]:
        """Return the commonest of an adapter's words that the model does not know."""
        return tuple(word for word in self.common(words) if not self.all_of([word]))[:MOST_WORDS]


def _colours(known: _Known, of_things: bool) -> tuple[KnownColour, ...]:
    """Return the colours that are known: their words are the same, whatever they are said of."""
    found = []
    for name in dict.fromkeys([*GROUNDS, *(COLOURS if of_things else ())]):
        tables: list[tuple[Coloured, bool]] = [
            ("grounds", name in GROUNDS),
            ("things", of_things and name in COLOURS),
        ]
        colour = GROUNDS.get(name) or COLOURS[name]
        chinese = [f"{each}色" for each in colour.chinese]
        found += [
            KnownColour(english=each.english, chinese=each.chinese, of=tuple(of for of, has in tables if has))
            for each in known.names([(colour.english, chinese)])
        ]
    return tuple(found)
