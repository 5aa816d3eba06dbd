"""Known words: which words a model has learnt from, and in which spelling.

A word is a run of letters and digits. In scripts without spaces, such as Chinese, it is a piece of the text tokenizer,
and a symbol such as an emoji is a word by itself. Words are compared after NFKC, so that full-width letters are
letters.
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
    """Return the kind of word that a character belongs to."""
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
    """Split a text where the kind of its characters changes; a mark belongs to the character before it."""
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
    """Return the text of pieces; characters spelt in bytes are joined, one string for each."""
    surfaces: list[str] = []
    spelt = bytearray()
    for piece in [*pieces, ""]:
        if match := _BYTE_PIECE.fullmatch(piece):
            spelt.append(int(match[1], 16))
            continue
        surfaces += spelt.decode(errors="replace")
        spelt.clear()
        surfaces.append(piece.replace("▁", " "))
    return surfaces


def word_runs(text: str, tokenizer: TextTokenizer) -> list[list[str]]:
    """Return the words of a text; adjacent words without a gap are in one list.

    Args:
        text: any text.
        tokenizer: splits scripts without spaces.
    """
    runs = _runs(text)
    words = [[unicodedata.normalize("NFKC", run)] for kind, run in runs if kind == "spaced"]
    if any(kind == "unspaced" for kind, _ in runs):
        together: list[str] = []
        for surface in _surfaces(tokenizer.words(text)):
            for kind, run in _runs(surface):
                if kind == "unspaced":
                    together.append(unicodedata.normalize("NFKC", run))
                else:
                    words, together = [*words, together], []
        words.append(together)
    return [run for run in words if run]


def count_words(texts: Iterable[str], tokenizer: TextTokenizer) -> Counter[str]:
    """Count the words of some texts."""
    return Counter(word for text in texts for run in word_runs(text, tokenizer) for word in run)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownWords:
    """Words of the captions that a model has learnt.

    Args:
        counts: occurrences of each spelling.
        num_left_out: rarer words, without counts.
    """

    counts: Mapping[str, int]
    num_left_out: int = 0

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], max_words: int = MAX_WORDS) -> "KnownWords":
        """Keep the most frequent of some words."""
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_words]
        return cls(counts=dict(common), num_left_out=len(counts) - len(common))

    @cached_property
    def _usual(self) -> dict[str, str]:
        """Usual spelling of each word, by the case-folded word."""
        usual: dict[str, str] = {}
        for word, count in self.counts.items():
            other = usual.get(word.casefold())
            # Ties go to the later in code points, where capitals come first.
            if other is None or (count, word) > (self.counts[other], other):
                usual[word.casefold()] = word
        return usual

    def unknown(self, text: str, tokenizer: TextTokenizer, case: TextCase) -> list[str]:
        """Return the words of a text that are not known, each once.

        Args:
            text: as the user wrote it.
            tokenizer: of the model.
            case: how the model reads capitals; with "usual" and "lower", other spellings count as known.
        """
        unknown: dict[str, None] = {}
        for run in word_runs(text, tokenizer):
            for is_known, words in groupby(run, key=lambda word: self._knows(word, case)):
                if not is_known:
                    unknown["".join(words)] = None
        return list(unknown)

    def _knows(self, word: str, case: TextCase) -> bool:
        if case == "lower":
            return word.lower() in self.counts
        return word in self.counts or (case == "usual" and word.casefold() in self._usual)

    def in_usual_case(self, text: str) -> str:
        """Return a text with all words spelt as the model knows them.

        Unchanged unless a word is known in other spellings only: "A cat" stays if captions begin so, and "A Red CAT"
        becomes "a red cat".
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
        """Return the union of both."""
        if other is None:
            return self
        counts = Counter(self.counts)
        counts.update(other.counts)
        return KnownWords(counts=counts, num_left_out=self.num_left_out + other.num_left_out)

    def save(self, folder: Path) -> None:
        """Write the words into a folder, whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, "num_left_out": self.num_left_out}
        lines = json.dumps(content | {"words": dict(self.counts)}, ensure_ascii=False, separators=(",", ":"))
        atomic_write_text(folder / WORDS_FILE, lines + "\n")

    @classmethod
    def in_folder(cls, folder: Path) -> "KnownWords | None":
        """Read the words of a folder of a model, an adapter or tokens; None if it has none.

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
                raise ValueError("a count is not an integer")
            if min(counts.values(), default=1) < 1 or left_out < 0:
                raise ValueError("a count is not positive")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CogViewError(
                f"{path} is not a valid list of words ({error}): copy or export the folder again, or delete the file; "
                "then there are no warnings of unknown words."
            ) from error
        return cls(counts=counts, num_left_out=left_out)
