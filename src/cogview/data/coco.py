"""Reader of MS COCO captions, optionally with translations by id."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cogview.data.pairs import CaptionedImage, Problem
from cogview.errors import CogViewError

TranslationIds: TypeAlias = Literal["captions", "pictures"]
"""Kind of the ids in a file of translations."""


class Coco:
    """The pictures and captions of an annotation file, in its order.

    Args:
        annotations: JSON file in the format of `captions_val2014.json`: `images` with `id` and `file_name`,
            `annotations` with `id`, `image_id` and `caption`.
        folder: folder of the picture files.
        translations: captions that replace those of `annotations`, as `read_translations` reads them. Pictures
            without one become problems.
        translation_ids: whether these ids are of captions or of pictures.

    Attributes:
        entries: a picture with its captions, or its problem.
        originals: caption in the annotation file, by the picture's name and the translation.

    Raises:
        CogViewError: a file cannot be read, has another format, or the files do not match.
    """

    def __init__(
        self,
        annotations: Path,
        folder: Path,
        translations: Path | None = None,
        translation_ids: TranslationIds = "captions",
    ) -> None:
        content = _read_json(annotations)
        try:
            listed = [(_id(image["id"]), _text(image["file_name"])) for image in content["images"]]
            captions = [
                (_id(each["id"]), _id(each["image_id"]), _text(each["caption"]))
                for each in content["annotations"]
            ]
        except (KeyError, TypeError) as error:
            raise CogViewError(
                f"{annotations} is not an annotation file in MS COCO's format ({type(error).__name__}: {error}): "
                "give one like captions_val2014.json"
            ) from error
        names = dict(listed)
        if len(names) < len(listed):
            ((duplicate, number),) = Counter(image for image, _ in listed).most_common(1)
            raise CogViewError(
                f"{annotations}: {number:,} images have the id {duplicate}, but ids must be unique: get the file again"
            )
        stray = [image for _, image, _ in captions if image not in names]
        if stray:
            raise CogViewError(
                f"{annotations}: {len(stray):,} captions are of pictures that it does not list, the first of "
                f"image_id {stray[0]}: get the file again"
            )
        translated = None if translations is None else read_translations(translations)
        texts: dict[Any, list[str]] = defaultdict(list)
        self.originals: dict[tuple[str, str], str] = {}
        for caption, image, text in captions:
            if translated is None:
                texts[image].append(text.strip())
                continue
            for translation in translated.get(str(caption if translation_ids == "captions" else image), ()):
                if translation not in texts[image]:
                    texts[image].append(translation)
                    self.originals.setdefault((names[image], translation), text.strip())
        if not any(texts.values()):
            raise CogViewError(
                f"{translations or annotations} has no caption of a picture in {annotations}"
                + (f", by ids of {translation_ids}: try the other --translation-ids" if translations else "")
            )
        self.entries: list[CaptionedImage | Problem] = [
            CaptionedImage(name=name, source=folder / name, texts=tuple(texts[image]))
            if texts[image]
            else Problem(where=name, kind="no caption", reason="no caption is given for it")
            for image, name in names.items()
        ]


def _id(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is not an id")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def read_translations(path: Path) -> dict[str, tuple[str, ...]]:
    """Return texts by id.

    Args:
        path: a JSON object of id and text, or of id and list of texts, or lines of objects with `id` and `text`.

    Raises:
        CogViewError: it cannot be read, or has another format.
    """
    translations: dict[str, list[str]] = defaultdict(list)
    for number, (key, value) in enumerate(_pairs(path), start=1):
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text.strip():
                raise CogViewError(
                    f"{path}: text {number}, of id {key}, is empty or not a string: correct it"
                )
            translations[str(key)].append(text.strip())
    return {key: tuple(texts) for key, texts in translations.items()}


def _pairs(path: Path) -> list[tuple[Any, Any]]:
    """Return ids and texts of a JSON object or of JSON lines."""
    data = _read_text(path)
    lines = [line for line in data.split("\n") if line.strip()]
    try:
        first = json.loads(lines[0]) if lines else None
    except ValueError:
        first = None  # an object over several lines
    if not isinstance(first, dict) or not {"id", "text"} <= first.keys():
        content = _read_json(path)
        if not isinstance(content, dict):
            raise CogViewError(
                f"{path} is neither a JSON object of ids and texts nor JSON lines with id and text: check the path"
            )
        return list(content.items())
    pairs = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            pairs.append((record["id"], record["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CogViewError(
                f'{path} line {number} is not {{"id": ..., "text": ...}} ({type(error).__name__}: {error})'
            ) from error
    return pairs


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): check the path") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CogViewError(f"{path} is not JSON ({error}): check the path, or get the file again") from error
