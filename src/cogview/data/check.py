"""Contents and problems of a data set, reported before a training run."""

import hashlib
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from cogview.data.decoding import decode_image, map_in_chunks, read_bytes
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.sources import open_pairs
from cogview.text.tokenizer import TextTokenizer, is_blank

CHUNK_IMAGES = 32
MAX_LISTED = 100
MAX_SIZES = 8

# First word of a letter's Unicode name -> common name of the script.
SCRIPTS = {"CJK": "Chinese"}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Smallest, median, largest and mean of some integers."""

    least: int
    median: int
    most: int
    mean: float

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Spread | None":
        """Return the spread of numbers, or None if there are none."""
        return cls.of_counts(Counter(numbers))

    @classmethod
    def of_counts(cls, counts: Mapping[int, int]) -> "Spread | None":
        """Return the spread of numbers, given how often each occurs, or None if there are none."""
        ordered = sorted(number for number, count in counts.items() if count)
        if not ordered:
            return None
        ranks = list(accumulate(counts[number] for number in ordered))
        return cls(
            least=ordered[0],
            median=ordered[bisect_left(ranks, (ranks[-1] + 1) // 2)],
            most=ordered[-1],
            mean=round(sum(number * counts[number] for number in ordered) / ranks[-1], 2),
        )

    def __str__(self) -> str:
        return f"{self.least} to {self.most}, median {self.median}, mean {self.mean:.1f}"


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Result of `check_folder`.

    Args:
        source: the data set.
        num_images: usable pictures, with or without captions.
        num_captions: captions that aren't empty.
        num_empty_captions: captions without pieces: only spaces and invisible characters.
        num_without_caption: pictures whose captions are all empty; tokenizing leaves them out.
        sizes: number of pictures of each size, the commonest first: {"128x128": 60}.
        short_side_pixels: spread of the pictures' short sides.
        num_enlarged: pictures smaller than `size_pixels`; None without it.
        caption_characters: spread of the captions' lengths.
        caption_pieces: spread of their lengths in pieces; None without a text tokenizer.
        num_long_captions: captions longer than `max_text_pieces`; None without it or a text tokenizer.
        scripts: share of the captions written mostly in each script, 0..1: {"Chinese": 0.5, "Latin": 0.5}.
        splits: number of pictures of each split; "" for those that name none.
        num_duplicates: pictures whose file equals an earlier one byte by byte.
        duplicates: the first of them, as (earlier, later).
        num_problems: unusable entries, and files passed over that look like a picture or caption.
        problems: the first of them.
    """

    source: str
    num_images: int
    num_captions: int
    num_empty_captions: int
    num_without_caption: int
    sizes: dict[str, int]
    short_side_pixels: Spread | None
    num_enlarged: int | None
    caption_characters: Spread | None
    caption_pieces: Spread | None
    num_long_captions: int | None
    scripts: dict[str, float]
    splits: dict[str, int]
    num_duplicates: int
    duplicates: tuple[tuple[str, str], ...]
    num_problems: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the report as readable lines."""
        lines = [f"{self.source}: {self.num_images:,} pictures, {self.num_captions:,} captions"]
        if self.num_images:
            lines.append(f"splits: {_counts(self.splits, 'none named')}")
            lines.append(f"sizes: {_counts(self.sizes)}; short side {self.short_side_pixels} pixels")
        if self.num_enlarged:
            lines.append(f"{self.num_enlarged:,} pictures are smaller than asked for and would be enlarged")
        if self.num_captions:
            shares = ", ".join(f"{script} {share:.0%}" for script, share in self.scripts.items())
            lines.append(f"captions: {self.caption_characters} characters; written in {shares}")
        if self.caption_pieces is not None:
            lines.append(f"captions: {self.caption_pieces} pieces")
        if self.num_long_captions:
            lines.append(f"{self.num_long_captions:,} captions are too long and would lose their end")
        if self.num_empty_captions:
            lines.append(
                f"{self.num_empty_captions:,} captions are empty; "
                f"{self.num_without_caption:,} pictures have no other and would be left out"
            )
        if self.num_duplicates:
            lines.append(f"{self.num_duplicates:,} pictures are the same file as an earlier one:")
            lines += [f"  {later} = {earlier}" for earlier, later in self.duplicates]
            lines += _rest(self.num_duplicates, len(self.duplicates))
        lines.append(f"{self.num_problems:,} problems" + (":" if self.num_problems else ""))
        lines += [f"  {problem}" for problem in self.problems]
        lines += _rest(self.num_problems, len(self.problems))
        return "\n".join(lines)


def check_folder(
    source: Path,
    *,
    split: str | None = None,
    size_pixels: int | None = None,
    text_tokenizer: TextTokenizer | None = None,
    max_text_pieces: int | None = None,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Decode every picture and read every caption of a data set; write nothing.

    Args:
        source: a folder of pictures or of WebDataset tars or both, or one tar.
        split: check only pictures that name this split or none.
        size_pixels: count the pictures that are smaller.
        text_tokenizer: measure the captions in its pieces.
        max_text_pieces: count the captions that have more.
        num_workers: worker processes that decode; 0 for this process.
        progress: called with (pictures done, pictures in all).

    Raises:
        CogViewError: the source is missing, or has no pictures with captions.
    """
    pairs = open_pairs(source, split)
    survey = _Survey(text_tokenizer)
    num_done = 0
    for chunk in map_in_chunks(_inspect, pairs, num_workers, CHUNK_IMAGES):
        for image, inspected in chunk:
            survey.add(image, inspected)
        num_done += sum(not (isinstance(image, Problem) and image.is_passed_over) for image, _ in chunk)
        if progress is not None:
            progress(num_done, max(num_done, len(pairs)))
    return survey.report(str(source), size_pixels, max_text_pieces)


@dataclass(frozen=True, kw_only=True)
class _Inspected:
    size: tuple[int, int]
    digest: bytes


def _inspect(image: CaptionedImage | Problem) -> _Inspected | Problem:
    """Return a picture's size and its file's digest; pass problems on."""
    data = read_bytes(image)
    if isinstance(data, Problem):
        return data
    decoded = decode_image(image, data)
    if isinstance(decoded, Problem):
        return decoded
    return _Inspected(size=decoded.rgb.size, digest=hashlib.sha256(data).digest())


class _Survey:
    """Counters of a data set's contents."""

    def __init__(self, text_tokenizer: TextTokenizer | None) -> None:
        self._text_tokenizer = text_tokenizer
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._splits: Counter[str] = Counter()
        self._scripts: Counter[str] = Counter()
        self._characters: list[int] = []
        self._pieces: list[int] = []
        self._num_empty = self._num_without_caption = 0
        self._first_with: dict[bytes, str] = {}
        self._duplicates: list[tuple[str, str]] = []
        self._problems: list[Problem] = []

    def add(self, image: CaptionedImage | Problem, inspected: _Inspected | Problem) -> None:
        """Count one picture or problem."""
        if isinstance(inspected, Problem):
            self._problems.append(inspected)
            return
        assert isinstance(image, CaptionedImage)  # inspecting a problem returns a problem
        self._sizes[inspected.size] += 1
        self._splits[image.split or ""] += 1
        if (earlier := self._first_with.setdefault(inspected.digest, image.name)) != image.name:
            self._duplicates.append((earlier, image.name))
        tokenizer = self._text_tokenizer
        pieces = [tokenizer.encode(text) for text in image.texts] if tokenizer else []
        # Tokenizing leaves out captions without pieces.
        are_empty = [not each for each in pieces] if tokenizer else [is_blank(text) for text in image.texts]
        texts = [text for text, is_empty in zip(image.texts, are_empty, strict=True) if not is_empty]
        self._num_empty += sum(are_empty)
        self._num_without_caption += not texts
        self._characters += map(len, texts)
        self._scripts.update(map(main_script, texts))
        self._pieces += (len(each) for each in pieces if each)

    def report(self, source: str, size_pixels: int | None, max_text_pieces: int | None) -> DataReport:
        """Return the counts as a report."""
        sides = [min(size) for size, count in self._sizes.items() for _ in range(count)]
        num_captions = len(self._characters)
        return DataReport(
            source=source,
            num_images=self._sizes.total(),
            num_captions=num_captions,
            num_empty_captions=self._num_empty,
            num_without_caption=self._num_without_caption,
            sizes={f"{width}x{height}": count for (width, height), count in self._sizes.most_common()},
            short_side_pixels=Spread.of(sides),
            num_enlarged=None if size_pixels is None else sum(side < size_pixels for side in sides),
            caption_characters=Spread.of(self._characters),
            caption_pieces=Spread.of(self._pieces),
            num_long_captions=(
                sum(length > max_text_pieces for length in self._pieces)
                if self._text_tokenizer is not None and max_text_pieces is not None
                else None
            ),
            scripts={name: round(count / num_captions, 4) for name, count in self._scripts.most_common()},
            splits=dict(self._splits.most_common()),
            num_duplicates=len(self._duplicates),
            duplicates=tuple(self._duplicates[:MAX_LISTED]),
            num_problems=len(self._problems),
            problems=tuple(self._problems[:MAX_LISTED]),
        )


def main_script(text: str) -> str:
    """Return the script of most letters of a text: "Chinese", "Latin", "Arabic"; "none" without letters."""
    scripts = Counter(_script_of(character) for character in text if character.isalpha())
    return scripts.most_common(1)[0][0] if scripts else "none"


@lru_cache(maxsize=4096)
def _script_of(letter: str) -> str:
    name = unicodedata.name(letter, "unknown").split()[0]
    return SCRIPTS.get(name, name.capitalize())


def _counts(counts: dict[str, int], unnamed: str = "") -> str:
    shown = [f"{name or unnamed} {count:,}" for name, count in list(counts.items())[:MAX_SIZES]]
    return ", ".join(shown) + (f" and {len(counts) - MAX_SIZES} more" if len(counts) > MAX_SIZES else "")


def _rest(num_all: int, num_listed: int) -> list[str]:
    return [f"  and {num_all - num_listed:,} more"] if num_all > num_listed else []
