"""The words that a model has learnt from: which words of a text it has never seen, and how it reads capitals.

A word is a run of letters and digits. Where a script writes no spaces, as Chinese does, it is a piece of the text
tokenizer, and a symbol such as an emoji is one by itself. Words are compared as Unicode's NFKC has them, so that
full-width letters are letters.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from cogview.errors import CogViewError
from cogview.files import atomic_write_text
from cogview.plain_json import parse_json
from cogview.text.config import TextCase
from cogview.text.tokenizer import TextTokenizer

WORDS_FILE = "words.json"
FORMAT = "cogview-words"
VERSION = 1
MAX_WORDS = 50_000
_MAX_BYTES = 16 << 20
_UNSPACED_SCRIPTS = ("THAI ", "LAO ", "KHMER ", "MYANMAR ")
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

_Kind = Literal["spaced", "unspaced", "mark", "between"]


@lru_cache(maxsize=1 << 14)
def _kind(char: str) -> _Kind:
    """Return what a character is a part of."""
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category == "So":
        return "unspaced"
    if category[0] not in "LN":
        return "between"
    plain = unicodedata.normalize("NFKC", char)
    is_wide = unicodedata.east_asian_width(plain[0]) == "W"  # Chinese, Japanese and Korean
    return "unspaced" if is_wide or unicodedata.name(char, "").startswith(_UNSPACED_SCRIPTS) else "spaced"


def _runs(text: str) -> list[tuple[_Kind, str]]:
    """Return a text cut where the kind of its characters changes; a mark belongs to what is before it."""
    kinds: list[_Kind] = []
    for char in text:
        kind = _kind(char)
        if kind == "mark":
            kind = kinds[-1] if kinds else "between"
        kinds.append(kind)
    return [
        (kind, "".join(char for _, char in group))
        for kind, group in groupby(zip(kinds, text, strict=True), key=lambda pair: pair[0])
    ]


def _surfaces(pieces: Iterable[str]) -> list[str]:
    """Return what pieces stand for in a text; characters that are spelt in bytes are put together, each by itself."""
    found: list[str] = []
    spelt = bytearray()
    for piece in [*pieces, ""]:
        if match := _BYTE_PIECE.fullmatch(piece):
            spelt.append(int(match[1], 16))
            continue
        found += spelt.decode(errors="replace")
        spelt.clear()
        found.append(piece.replace("▁", " "))
    return found


def word_runs(text: str, tokenizer: TextTokenizer) -> list[list[str]]:
    """Return the words of a text, those together between which there is nothing.

    Args:
        text: any.
        tokenizer: cuts what is written without spaces.
    """
    runs = _runs(text)
    found = [[unicodedata.normalize("NFKC", run)] for kind, run in runs if kind == "spaced"]
    if any(kind == "unspaced" for kind, _ in runs):
        together: list[str] = []
        for surface in _surfaces(tokenizer.words(text)):
            for kind, run in _runs(surface):
                if kind == "unspaced":
                    together.append(unicodedata.normalize("NFKC", run))
                else:
                    found, together = [*found, together], []
        found.append(together)
    return [run for run in found if run]


def count_words(texts: Iterable[str], tokenizer: TextTokenizer) -> Counter[str]:
    """Return how often each word occurs in some texts."""
    return Counter(word for text in texts for run in word_runs(text, tokenizer) for word in run)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownWords:
    """The words of the captions that a model has learnt.

    Args:
        counts: how often each was met, in each spelling.
        num_left_out: rarer words that were met too, but are not kept.
    """

    counts: Mapping[str, int]
    num_left_out: int = 0

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], most: int = MAX_WORDS) -> "KnownWords":
        """Keep the commonest of some words."""
        kept = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return cls(counts=dict(kept), num_left_out=len(counts) - len(kept))

    @cached_property
    def _usual(self) -> dict[str, str]:
        """The usual spelling of each word, by the word without its capitals."""
        usual: dict[str, str] = {}
        for word, count in self.counts.items():
            other = usual.get(word.casefold())
            # Of two that are as common the later one in the order of code points, in which capitals are first.
            if other is None or (count, word) > (self.counts[other], other):
                usual[word.casefold()] = word
        return usual

    def unknown(self, text: str, tokenizer: TextTokenizer, case: TextCase) -> list[str]:
        """Return the words of a text that are none of these, each once.

        Args:
            text: as a user writes it.
            tokenizer: the model's.
            case: how the model reads it: with "usual", another spelling is no other word.
        """
        found: dict[str, None] = {}
        for run in word_runs(text, tokenizer):
            for is_known, words in groupby(run, key=lambda word: self._knows(word, case)):
                if not is_known:
                    found["".join(words)] = None
        return list(found)

    def _knows(self, word: str, case: TextCase) -> bool:
        return word in self.counts or (case == "usual" and word.casefold() in self._usual)

    def in_usual_case(self, text: str) -> str:
        """Return a text in which all words are spelt as the model knows them.

        A text of which no word is known in other spellings only is returned as it is: "A cat" stays so if captions
        begin in that way, and "A Red CAT" becomes "a red cat".
        """
        runs = _runs(text)
        words = [(unicodedata.normalize("NFKC", run) if kind == "spaced" else "") for kind, run in runs]
        if not any(word and word not in self.counts and word.casefold() in self._usual for word in words):
            return text
        return "".join(
            self._usual.get(word.casefold(), word.lower()) if word else run
            for word, (_, run) in zip(words, runs, strict=True)
        )

    def __or__(self, other: "KnownWords | None") -> "KnownWords":
        """Return the words of both."""
        if other is None:
            return self
        counts = Counter(self.counts)
        counts.update(other.counts)
        return KnownWords(counts=counts, num_left_out=self.num_left_out + other.num_left_out)

    def save(self, folder: Path) -> None:
        """Write them into a folder, whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, "num_left_out": self.num_left_out}
        lines = json.dumps(content | {"words": dict(self.counts)}, ensure_ascii=False, separators=(",", ":"))
        atomic_write_text(folder / WORDS_FILE, lines + "\n")

    @classmethod
    def in_folder(cls, folder: Path) -> "KnownWords | None":
        """Return the words that lie in the folder of a model, an adapter or tokens; None if there are none.

        Raises:
            CogViewError: the file is damaged, of another kind or version, or far too large.
        """
        path = folder / WORDS_FILE
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES:,} bytes")
            content: Any = parse_json(path.read_bytes(), _MAX_BYTES)
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError(f"{content['format']!r} of version {content['version']!r}")
            counts, left_out = content["words"], content["num_left_out"]
            if not (
                isinstance(counts, dict) and all(type(each) is int for each in [*counts.values(), left_out])
            ):
                raise ValueError("a count is no whole number")
            if min(counts.values(), default=1) < 1 or left_out < 0:
                raise ValueError("a count is not positive")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CogViewError(
                f"{path} holds no words that this cogview reads ({error}): copy or export the folder again, or delete "
                "the file, and unknown words are not told any more."
            ) from error
        return cls(counts=counts, num_left_out=left_out)
