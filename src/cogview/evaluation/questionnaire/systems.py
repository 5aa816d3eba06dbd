"""Captions and systems of a questionnaire, and their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cogview.data.folder_contents import METADATA, FolderContents
from cogview.data.pairs import CaptionedImage
from cogview.data.records import texts_of
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError, UsageError
from cogview.image.formats import FORMATS, looks_like_picture
from cogview.plain_json import parse_json


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Caption of a question.

    Args:
        text: text for the raters.
        name: name of its pictures, without an ending; None to match them by text.
    """

    text: str
    name: str | None = None

    def __str__(self) -> str:
        return f"'{self.name}'" if self.name is not None else f'"{self.text}"'


@dataclass(frozen=True, kw_only=True)
class System:
    """System that drew pictures.

    Args:
        name: its name in charts; raters never see it.
        folder: folder of its pictures.
    """

    name: str
    folder: Path


def parse_systems(words: Sequence[str]) -> list[System]:
    """Parse systems in the form NAME=FOLDER, or FOLDER, which is then also the name.

    Raises:
        UsageError: there are fewer than two, or names are missing or equal.
    """
    systems: list[System] = []
    for word in words:
        label, _, folder = word.rpartition("=")
        name = (label or Path(folder).resolve().name).strip()
        if not name or not folder:
            raise UsageError(f"'{word}' names no system: give NAME=FOLDER")
        if name in {system.name for system in systems}:
            raise UsageError(f"two systems are called '{name}': name them with NAME=FOLDER")
        systems.append(System(name=name, folder=Path(folder)))
    if len(systems) < 2:
        raise UsageError(f"give two systems or more to compare, got {len(systems)}")
    return systems


def read_captions(path: Path) -> list[Caption]:
    """Read the captions of a file.

    Each line of a `.jsonl` file is an object with `text` or `texts`, whose first counts, and optionally `file_name`, as
    in `metadata.jsonl`. Each line of any other file is a caption, or a name of pictures, a tab and their caption.

    Args:
        path: the file, UTF-8.

    Raises:
        CogViewError: it cannot be read, or a line is no caption or a duplicate.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): give captions as UTF-8 text") from error
    captions: list[Caption] = []
    known: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            caption = _caption_of_json(line) if path.suffix.lower() == ".jsonl" else _caption_of_line(line)
            identity = caption.text if caption.name is None else f"\t{caption.name}"
            if identity in known:
                raise ValueError(f"{caption} is a duplicate")
        except (ValueError, RecursionError) as error:
            raise CogViewError(
                f"{path} line {number} is no caption ({error}): correct or remove it"
            ) from error
        known.add(identity)
        captions.append(caption)
    if not captions:
        raise CogViewError(f"{path} holds no captions: write one per line")
    return captions


def find_pictures(system: System, captions: Sequence[Caption]) -> tuple[list[Path], int]:
    """Return a system's picture of each caption, and the number of its other pictures.

    Pictures are matched by their path in the folder without the ending, or else by their text in `metadata.jsonl` or in
    the picture's file (`cogview generate`).

    Raises:
        CogViewError: the folder is missing, or a caption has no picture or several.
    """
    by_name = _pictures_by_name(system)
    by_text: dict[str, list[Path]] | None = None
    pictures: list[Path] = []
    missing: list[Caption] = []
    for caption in captions:
        candidates = by_name.get(caption.name, []) if caption.name is not None else []
        if not candidates:
            if by_text is None:
                by_text = _pictures_by_text(system, by_name)
            candidates = by_text.get(caption.text, [])
        if len(candidates) > 1:
            names = ", ".join(path.name for path in candidates[:2])
            raise CogViewError(
                f"system '{system.name}' has {len(candidates)} pictures for {caption} ({names}): "
                f"keep one in {system.folder}"
            )
        pictures += candidates
        missing += [] if candidates else [caption]
    if missing:
        raise CogViewError(
            f"system '{system.name}' has no picture for {len(missing):,} of {len(captions):,} captions, the first "
            f"{missing[0]}: name its pictures in {system.folder} like the captions, or list them in {METADATA}"
        )
    return pictures, sum(map(len, by_name.values())) - len(set(pictures))


def _caption_of_line(line: str) -> Caption:
    """Parse a caption from a line of text.

    Raises:
        ValueError: the caption or the name before it is empty.
    """
    name, tab, text = line.rpartition("\t")
    return _caption(text, name if tab else None)


def _caption_of_json(line: str) -> Caption:
    """Parse a caption from a line of JSON.

    Raises:
        ValueError: there is none.
    """
    record = parse_json(line)
    if not isinstance(record, dict) or not (texts := texts_of(record)):
        raise ValueError('not a JSON object with a "text"')
    name = record.get("file_name")
    if name is not None and not isinstance(name, str):
        raise ValueError('"file_name" is not a string')
    return _caption(texts[0], name)


def _caption(text: str, name: str | None) -> Caption:
    text = " ".join(text.split())
    if not text:
        raise ValueError("the text is empty")
    if name is None:
        return Caption(text=text)
    name = name.strip()
    if not (bare := _without_ending(name)):
        raise ValueError("the name is empty")
    return Caption(text=text, name=bare)


def _without_ending(name: str) -> str:
    """Remove the ending of a picture's file from a name; other dots are part of the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if looks_like_picture(f"{dot}{ending}") else name


def _pictures_by_name(system: System) -> dict[str, list[Path]]:
    """Return the pictures of a folder by their paths in it, without endings."""
    if not system.folder.is_dir():
        raise CogViewError(f"system '{system.name}': {system.folder} is no folder of pictures")
    pictures: dict[str, list[Path]] = {}
    for path in FolderContents.of(system.folder).pictures:
        name = _without_ending(path.relative_to(system.folder).as_posix())
        pictures.setdefault(name, []).append(path)
    return pictures


def _pictures_by_text(system: System, by_name: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return the pictures of a folder by their texts."""
    pictures: dict[str, list[Path]] = {}
    if (system.folder / METADATA).is_file():
        for entry in open_pairs(system.folder):
            if isinstance(entry, CaptionedImage) and isinstance(entry.source, Path):
                for text in dict.fromkeys(" ".join(text.split()) for text in entry.texts):
                    pictures.setdefault(text, []).append(entry.source)
        return pictures
    for path in (path for paths in by_name.values() for path in paths if path.suffix.lower() == ".png"):
        try:
            with Image.open(path, formats=FORMATS) as opened:
                description = opened.info.get("Description")
        except Exception:  # a damaged picture has no text; reading it later reports the error
            continue
        if isinstance(description, str):
            pictures.setdefault(" ".join(description.split()), []).append(path)
    return pictures
