"""What is written about a picture: captions, split and orientation, in lines of text and in JSON."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cogview.image.orientation import orientation_told

MAX_RECORD_BYTES = 16 * 2**20
"""How long a text or a JSON record of one picture may be."""

# What ends a line: Python's splitlines also cuts at form feeds, U+2028 and others that a caption may hold.
_NEWLINE = re.compile(r"\r\n|\r|\n")
_CAPTION_FIELDS = ("texts", "text", "caption")


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """What the files beside a picture say.

    Args:
        texts: captions; None if they hold none.
        split: which the picture belongs to, if they say so.
        orientation: its EXIF orientation, 1 to 8, if they say so.
        doubts: what of them cannot be used.
    """

    texts: tuple[str, ...] | None = None
    split: str | None = None
    orientation: int | None = None
    doubts: tuple[str, ...] = ()


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, cut at newlines only."""
    return _NEWLINE.split(text)


def texts_of(record: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the captions in a JSON record, `"texts": [...]` or `"text": "..."`, or None if it has neither.

    Where the first says nothing, the second counts.

    Raises:
        ValueError: the field is there and holds something else.
    """
    if "texts" in record:
        texts = record["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('"texts" is not a list of strings')
        if _say_anything(texts) or not isinstance(record.get("text"), str):
            return tuple(texts)
    return None if "text" not in record else (_one_text(record, "text"),)


def _say_anything(texts: Iterable[str] | None) -> bool:
    """Return whether there are captions, and not all of them empty."""
    return texts is not None and any(text.strip() for text in texts)


def _one_text(record: dict[str, Any], field: str) -> str:
    """Return a caption.

    Raises:
        ValueError: it is none.
    """
    text = record[field]
    if isinstance(text, list):
        raise ValueError(f'"{field}" is not a string but a list: several captions are "texts": [...]')
    if not isinstance(text, str):
        raise ValueError(f'"{field}" is not a string')
    return text


def texts_of_lines(data: bytes) -> tuple[str, ...]:
    """Return the captions in a text file: its lines, or one empty caption.

    Raises:
        ValueError: it is not UTF-8.
    """
    lines = lines_of(data.decode("utf-8-sig"))
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


def read_sidecars(json_data: bytes | None, text_data: bytes | None) -> ImageMetadata:
    """Return what the files beside a picture say.

    `texts` or `text` of the .json come first, then the lines of the .txt, then `caption` of the .json, as img2dataset
    writes it. It writes the same into the .txt; such a caption is one, however many lines it has. Where one of them is
    empty, the next counts. Beside a .txt, the .json may hold anything.

    Args:
        json_data: content of the .json, if there is one.
        text_data: content of the .txt, if there is one.

    Raises:
        ValueError: they cannot be read.
    """
    told, caption = ImageMetadata(), None
    if json_data is not None:
        try:
            told, caption = _read_json_sidecar(json_data, text_data is not None)
        except ValueError as error:
            if text_data is None:
                raise
            told = ImageMetadata(doubts=(f"{error}; its .txt is read",))
    if not _say_anything(told.texts) and text_data is not None:
        try:
            lines = texts_of_lines(text_data)
        except ValueError as error:
            raise ValueError(f"its .txt is not UTF-8 ({error})") from error
        told = replace(told, texts=lines)
    if isinstance(caption, str):
        is_better = caption.strip() and not _say_anything(told.texts)
        is_same = told.texts == texts_of_lines(caption.encode(errors="replace"))
        if told.texts is None or is_better or is_same:
            told = replace(told, texts=(caption,))
    elif caption is not None and told.texts is None:
        try:
            _one_text({"caption": caption}, "caption")
        except ValueError as error:
            raise ValueError(f"its .json cannot be used ({error})") from error
    return told


def _read_json_sidecar(json_data: bytes, may_be_anything: bool) -> tuple[ImageMetadata, object]:
    """Return what a .json says, without the captions that count last, and those.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        record = json.loads(json_data)
        if not isinstance(record, dict):
            if may_be_anything:
                return ImageMetadata(), None
            raise ValueError("not an object")
        texts, split = texts_of(record), split_in(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be used ({error})") from error
    try:
        told = ImageMetadata(texts=texts, split=split, orientation=orientation_told(record.get("exif")))
    except ValueError as error:
        told = ImageMetadata(
            texts=texts, split=split, doubts=(f"its .json: {error}; the picture is taken as it lies",)
        )
    return told, record.get("caption")


def holds_captions(json_data: bytes) -> bool:
    """Return whether a JSON file holds captions of one picture, rather than anything else."""
    try:
        record = json.loads(json_data)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and any(record.get(field) is not None for field in _CAPTION_FIELDS)
