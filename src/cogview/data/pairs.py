"""A user's pictures with their captions, whatever form they come in: one reader for all that follows."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from cogview.image.picture_reading import Change, Fault

Captions: TypeAlias = Literal["required", "optional"]
"""Whether a picture without captions is a problem, or a picture that does without them."""


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """A picture that nobody has decoded yet, with what is said of it.

    Args:
        name: what the data set calls it.
        source: its file, or the file's bytes.
        texts: its captions; empty ones are still among them. None at all where captions are optional.
        split: the split that it belongs to, if the data set says so.
        orientation: its EXIF orientation, 1 to 8, if the data set tells it beside the file.
    """

    name: str
    source: Path | bytes
    texts: tuple[str, ...]
    split: str | None = None
    orientation: int | None = None


ProblemKind: TypeAlias = Literal[
    Fault, Change, "unreadable", "no caption", "bad caption", "damaged tar", "passed over"
]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a data set that cannot be used, or not as it is.

    Args:
        where: the file, or the file and line.
        kind: what sort of thing is wrong with it, to count by. "passed over" is what looks like a picture or a caption
            and is none of the data set's pairs.
        reason: what is wrong with it.
    """

    where: str
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"

    @property
    def is_passed_over(self) -> bool:
        """Whether it is told of beside the pairs, rather than standing in the place of one."""
        return self.kind == "passed over"


Entry: TypeAlias = CaptionedImage | Problem


def passed_over(where: str, reason: str) -> Problem:
    """Return what tells of something that is not taken."""
    return Problem(where=where, kind="passed over", reason=reason)


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """What tells in a moment that a data set is another, without reading its pictures; that it is the same, only these.

    Args:
        fingerprint: 16 hexadecimal digits of the names and sizes of its files, and of the captions that are at hand.
        times: 16 of when its files were changed, which a copy need not keep.
    """

    fingerprint: str
    times: str

    @classmethod
    def of(cls, files: Iterable[Path], told: Iterable[Any] = ()) -> "SourceState":
        """Look at files.

        Args:
            files: those that count, in order; one that is not there counts as such.
            told: what else counts, as plain data: names, captions, problems.
        """
        fingerprint, times = hashlib.sha256(), hashlib.sha256()
        for thing in told:
            fingerprint.update(f"{json.dumps(thing)}\n".encode())
        for path in files:
            size = changed = None
            with suppress(OSError, ValueError):  # ValueError: a name that no file can have
                found = path.stat()
                size, changed = found.st_size, found.st_mtime_ns
            fingerprint.update(f"{path.name!r} {size}\n".encode())
            times.update(f"{changed}\n".encode())
        return cls(fingerprint=fingerprint.hexdigest()[:16], times=times.hexdigest()[:16])

    def joined(self, other: "SourceState") -> "SourceState":
        """Return the state of two data sets that are read one after the other."""
        told = [self.fingerprint, other.fingerprint], [self.times, other.times]
        fingerprint, times = (hashlib.sha256("".join(each).encode()).hexdigest()[:16] for each in told)
        return SourceState(fingerprint=fingerprint, times=times)


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
        """Return how many pictures will be given at most, with the problems that stand in the place of one."""
        ...

    def __iter__(self) -> Iterator[Entry]:
        """Yield pictures and problems in the order of the data set."""
        ...

    def part(self, number: int) -> Iterator[Entry]:
        """Yield the pictures and problems of one part; all parts in order are the data set."""
        ...

    def expected(self) -> int:
        """Return about how many things will be given, after a short look."""
        ...

    def state(self) -> SourceState:
        """Return what tells that the data set has become another."""
        ...


def belongs(image_split: str | None, split: str | None) -> bool:
    """Say whether a picture is asked for: pictures that name no split belong to each.

    Args:
        image_split: what the picture says.
        split: what is asked for; None asks for all.
    """
    return split is None or image_split is None or image_split == split
