"""Captioned pictures, problems, and the protocol of their sources."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from cogview.image.picture_reading import Change, Fault

Captions: TypeAlias = Literal["required", "optional"]
"""Whether a picture without captions is a problem."""


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """Undecoded picture with its captions.

    Args:
        name: its name in the data set.
        source: its file, or the file's bytes.
        texts: its captions, empty ones included; may be () where captions are optional.
        split: its split, if the data set names one.
        orientation: its EXIF orientation, 1 to 8, if the data set stores it outside the file.
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
    """Entry of a data set that is unusable or was changed.

    Args:
        where: the file, or the file and line.
        kind: category, for counting. "passed over" files look like a picture or caption but belong to no pair.
        reason: what is wrong.
    """

    where: str
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"

    @property
    def is_passed_over(self) -> bool:
        """Whether it is extra, rather than in place of a pair."""
        return self.kind == "passed over"


Entry: TypeAlias = CaptionedImage | Problem


def passed_over(where: str, reason: str) -> Problem:
    """Create the problem of a file that belongs to no pair."""
    return Problem(where=where, kind="passed over", reason=reason)


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """Fingerprints that tell quickly that a data set has changed; equal ones do not prove that it has not.

    Args:
        fingerprint: 16 hexadecimal digits of file names, file sizes and known captions.
        times: 16 hexadecimal digits of the files' modification times, which copying may change.
    """

    fingerprint: str
    times: str

    @classmethod
    def of(cls, files: Iterable[Path], fields: Iterable[Any] = ()) -> "SourceState":
        """Compute the state of files.

        Args:
            files: the files, in order; some may be missing.
            fields: other plain data to include: names, captions, problems.
        """
        fingerprint, times = hashlib.sha256(), hashlib.sha256()
        for field in fields:
            fingerprint.update(f"{json.dumps(field)}\n".encode())
        for path in files:
            size = changed = None
            with suppress(OSError, ValueError):  # ValueError: an impossible file name
                status = path.stat()
                size, changed = status.st_size, status.st_mtime_ns
            fingerprint.update(f"{path.name!r} {size}\n".encode())
            times.update(f"{changed}\n".encode())
        return cls(fingerprint=fingerprint.hexdigest()[:16], times=times.hexdigest()[:16])

    def joined(self, other: "SourceState") -> "SourceState":
        """Return the state of two data sets that are read one after the other."""
        digests = [self.fingerprint, other.fingerprint], [self.times, other.times]
        fingerprint, times = (hashlib.sha256("".join(each).encode()).hexdigest()[:16] for each in digests)
        return SourceState(fingerprint=fingerprint, times=times)


@runtime_checkable
class PairSource(Protocol):
    """Iterable of a data set's pictures and problems, in parts that can be read independently."""

    @property
    def num_parts(self) -> int:
        """Return the number of parts, at least 1."""
        ...

    def __len__(self) -> int:
        """Return an upper bound of the number of pictures, including unusable ones."""
        ...

    def __iter__(self) -> Iterator[Entry]:
        """Yield pictures and problems in the order of the data set."""
        ...

    def part(self, number: int) -> Iterator[Entry]:
        """Yield the pictures and problems of one part; all parts in order are the data set."""
        ...

    def expected(self) -> int:
        """Estimate the number of pictures, quickly."""
        ...

    def state(self) -> SourceState:
        """Return the state of the data set, to detect changes."""
        ...


def belongs(image_split: str | None, split: str | None) -> bool:
    """Return whether a picture is of the requested split; pictures without a split belong to each.

    Args:
        image_split: split of the picture.
        split: requested split; None for all.
    """
    return split is None or image_split is None or image_split == split
