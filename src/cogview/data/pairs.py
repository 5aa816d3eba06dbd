"""A user's pictures with their captions, whatever form they come in: one reader for all that follows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

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


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a data set that cannot be used.

    Args:
        where: the file, or the file and line.
        reason: what is wrong with it.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@runtime_checkable
class PairSource(Protocol):
    """Gives the pictures of a data set one by one, and what stands in the way of others."""

    def __len__(self) -> int:
        """Return how many things will be given, problems among them."""
        ...

    def __iter__(self) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in the order of the data set."""
        ...


def belongs(image_split: str | None, split: str | None) -> bool:
    """Say whether a picture is asked for: pictures that name no split belong to each.

    Args:
        image_split: what the picture says.
        split: what is asked for; None asks for all.
    """
    return split is None or image_split is None or image_split == split


def texts_of(record: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the captions in a JSON record, `"texts": [...]` or `"text": "..."`, or None if it has none.

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


def split_in(record: dict[str, Any]) -> str | None:
    """Return the split that a JSON record names.

    Raises:
        ValueError: the field is there and is no string.
    """
    split = record.get("split")
    if split is not None and not isinstance(split, str):
        raise ValueError('"split" is not a string')
    return split
