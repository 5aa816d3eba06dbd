"""A user's pictures with their captions, whatever form they come in: one reader for all that follows."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from cogview.image.pixels import Change, Fault

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """A picture that nobody has decoded yet, with what is said of it.

    Args:
        name: what the data set calls it.
        source: its file, or the file's bytes.
        texts: its captions; empty ones are still among them.
        split: the split that it belongs to, if the data set says so.
    """

    name: str
    source: Path | bytes
    texts: tuple[str, ...]
    split: str | None = None


ProblemKind: TypeAlias = Literal[Fault, Change, "unreadable", "no caption", "bad caption", "damaged tar"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a data set that cannot be used, or not as it is.

    Args:
        where: the file, or the file and line.
        kind: what sort of thing is wrong with it, to count by.
        reason: what is wrong with it.
    """

    where: str
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """What tells whether a data set is still the same, without reading its pictures.

    Args:
        fingerprint: 16 hexadecimal digits of the names and sizes of its files, and of the captions that are at hand.
        times: 16 of when its files were changed, which a copy need not keep.
        newest_seconds: when the youngest of its files was changed, in seconds since 1970; the future doesn't count.
    """

    fingerprint: str
    times: str
    newest_seconds: float

    @classmethod
    def of(cls, files: Iterable[Path], told: Iterable[Any] = ()) -> "SourceState":
        """Look at files.

        Args:
            files: those that count, in order; one that is not there counts as such.
            told: what else counts, as plain data: names, captions, problems.
        """
        fingerprint, times = hashlib.sha256(), hashlib.sha256()
        newest, now = 0.0, time.time()
        for thing in told:
            fingerprint.update(f"{json.dumps(thing)}\n".encode())
        for path in files:
            size = changed = None
            with suppress(OSError, ValueError):  # ValueError: a name that no file can have
                found = path.stat()
                size, changed = found.st_size, found.st_mtime_ns
                if newest < found.st_mtime <= now:
                    newest = found.st_mtime
            fingerprint.update(f"{path.name!r} {size}\n".encode())
            times.update(f"{changed}\n".encode())
        return cls(
            fingerprint=fingerprint.hexdigest()[:16], times=times.hexdigest()[:16], newest_seconds=newest
        )


@runtime_checkable
class PairSource(Protocol):
    """Gives the pictures of a data set one by one, and what stands in the way of others.

    It consists of parts that can be read by themselves, as those of a row of tars.
    """

    @property
    def num_parts(self) -> int:
        """Return the number of parts, at least 1."""
        ...

    def __len__(self) -> int:
        """Return how many things will be given at most, problems among them."""
        ...

    def __iter__(self) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in the order of the data set."""
        ...

    def part(self, number: int) -> Iterator[CaptionedImage | Problem]:
        """Yield the pictures and problems of one part; all parts in order are the data set."""
        ...

    def expected(self) -> int:
        """Return about how many things will be given, after a short look."""
        ...

    def state(self) -> SourceState:
        """Return what tells whether the data set is still the same."""
        ...


def belongs(image_split: str | None, split: str | None) -> bool:
    """Say whether a picture is asked for: pictures that name no split belong to each.

    Args:
        image_split: what the picture says.
        split: what is asked for; None asks for all.
    """
    return split is None or image_split is None or image_split == split


def texts_of(record: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the captions in a JSON record, `"texts": [...]` or `"text": "..."`, or None if it has neither.

    Raises:
        ValueError: the field is there and holds something else.
    """
    if "texts" in record:
        texts = record["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('"texts" is not a list of strings')
        return tuple(texts)
    if "text" in record:
        if not isinstance(record["text"], str):
            raise ValueError('"text" is not a string')
        return (record["text"],)
    return None


def texts_of_lines(data: bytes) -> tuple[str, ...]:
    """Return the captions in a text file: its lines, or one empty caption.

    Raises:
        ValueError: it is not UTF-8.
    """
    lines = data.decode("utf-8-sig").splitlines()
    return tuple(line for line in lines if line.strip()) or ("",)


def captions_beside(
    json_data: bytes | None, text_data: bytes | None
) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the captions in the files beside a picture, None if they hold none, and the split that they name.

    `texts` or `text` of the .json come first, then the lines of the .txt, then `caption` of the .json, as img2dataset
    writes it. It writes the same into the .txt; such a caption is one, however many lines it has.

    Args:
        json_data: content of the .json, if there is one.
        text_data: content of the .txt, if there is one.

    Raises:
        ValueError: they cannot be read.
    """
    texts: tuple[str, ...] | None = None
    split: str | None = None
    caption: object = None
    try:
        if json_data is not None:
            record = json.loads(json_data)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            texts, split, caption = texts_of(record), split_in(record), record.get("caption")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be used ({error})") from error
    if texts is None and text_data is not None:
        try:
            texts = texts_of_lines(text_data)
        except ValueError as error:
            raise ValueError(f"its .txt is not UTF-8 ({error})") from error
    if isinstance(caption, str) and (
        texts is None or texts == texts_of_lines(caption.encode(errors="replace"))
    ):
        texts = (caption,)
    return texts, split


def split_in(record: dict[str, Any]) -> str | None:
    """Return the split that a JSON record names.

    Raises:
        ValueError: the field is there and is no string.
    """
    split = record.get("split")
    if split is not None and not isinstance(split, str):
        raise ValueError('"split" is not a string')
    return split
