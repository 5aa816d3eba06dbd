"""Captions, split and orientation of a picture, from its `.txt` and `.json` files."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cogview.image.orientation import orientation_told

MAX_RECORD_BYTES = 16 * 2**20
"""Largest text or JSON file of one picture."""

# Not splitlines, which also cuts at form feeds, U+2028 and others that a caption may hold.
_NEWLINE = re.compile(r"\r\n|\r|\n")
_CAPTION_FIELDS = ("texts", "text", "caption")


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """Content of the files beside a picture.

    Args:
        texts: captions; None if there are none.
        split: split, if named.
        orientation: EXIF orientation, 1 to 8, if given.
        doubts: messages about unusable fields.
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

    `text` counts if `texts` is empty.

    Raises:
        ValueError: a field has another type.
    """
    if "texts" in record:
        texts = record["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('"texts" is not a list of strings')
        if _say_anything(texts) or not isinstance(record.get("text"), str):
            return tuple(texts)
    return None if "text" not in record else (_one_text(record, "text"),)


def _say_anything(texts: Iterable[str] | None) -> bool:
    """Return whether there is a caption that is not empty."""
    return texts is not None and any(text.strip() for text in texts)


def _one_text(record: dict[str, Any], field: str) -> str:
    """Return the string in a field.

    Raises:
        ValueError: it is no string.
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
    """Return the split of a JSON record, None without one.

    Raises:
        ValueError: the field is no string.
    """
    split = record.get("split")
    if split is not None and not isinstance(split, str):
        raise ValueError('"split" is not a string')
    return split


def read_sidecars(json_data: bytes | None, text_data: bytes | None) -> ImageMetadata:
    """Parse the files beside a picture.

    Captions are the first non-empty of: `texts` or `text` of the .json, the lines of the .txt, `caption` of the .json.
    img2dataset writes the same `caption` into both files; it is one caption even with several lines. Beside a .txt,
    the .json may hold anything.

    Args:
        json_data: content of the .json, if there is one.
        text_data: content of the .txt, if there is one.

    Raises:
        ValueError: they cannot be read.
    """
    metadata, caption = ImageMetadata(), None
    if json_data is not None:
        try:
            metadata, caption = _read_json_sidecar(json_data, text_data is not None)
        except ValueError as error:
            if text_data is None:
                raise
            metadata = ImageMetadata(doubts=(f"{error}; its .txt is read",))
    if not _say_anything(metadata.texts) and text_data is not None:
        try:
            lines = texts_of_lines(text_data)
        except ValueError as error:
            raise ValueError(f"its .txt is not UTF-8 ({error})") from error
        metadata = replace(metadata, texts=lines)
    if isinstance(caption, str):
        is_better = caption.strip() and not _say_anything(metadata.texts)
        is_same = metadata.texts == texts_of_lines(caption.encode(errors="replace"))
        if metadata.texts is None or is_better or is_same:
            metadata = replace(metadata, texts=(caption,))
    elif caption is not None and metadata.texts is None:
        try:
            _one_text({"caption": caption}, "caption")
        except ValueError as error:
            raise ValueError(f"its .json cannot be used ({error})") from error
    return metadata


def _read_json_sidecar(json_data: bytes, may_be_anything: bool) -> tuple[ImageMetadata, object]:
    """Return the metadata of a .json, and its `caption` apart.

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
        metadata = ImageMetadata(texts=texts, split=split, orientation=orientation_told(record.get("exif")))
    except ValueError as error:
        metadata = ImageMetadata(
            texts=texts, split=split, doubts=(f"its .json: {error}; the picture is taken as it lies",)
        )
    return metadata, record.get("caption")


def holds_captions(json_data: bytes) -> bool:
    """Return whether a JSON file holds captions of one picture."""
    try:
        record = json.loads(json_data)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and any(record.get(field) is not None for field in _CAPTION_FIELDS)
