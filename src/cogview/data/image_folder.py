"""A folder of pictures with `metadata.jsonl`, or with a `.txt` file of the same name beside each picture."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from cogview.data.pairs import (
    IMAGE_ENDINGS,
    CaptionedImage,
    Problem,
    SourceState,
    belongs,
    captions_beside,
    split_in,
    texts_of,
    texts_of_lines,
)
from cogview.errors import CogViewError

METADATA = "metadata.jsonl"


class ImageFolder:
    """The pictures of a folder, in the order of its metadata or of their names.

    Each line of `metadata.jsonl` is an object with `file_name`, relative to the folder, and `texts`, a list of
    captions, or `text`, one; a field `split` is understood, others are free. Without that file, each line of a
    picture's `.txt` file is a caption of it, or else its `.json` file holds them as in a tar. All of it is one part.

    Args:
        folder: the folder.
        split: give only the pictures that name this split or none; None gives all.
        metadata: a file of such lines that lies elsewhere.

    Raises:
        CogViewError: there is no such folder, the metadata cannot be read, or there are no pictures with captions.
    """

    def __init__(self, folder: Path, split: str | None = None, metadata: Path | None = None) -> None:
        if not folder.is_dir():
            raise CogViewError(f"{folder} is no folder: give one that holds pictures and {METADATA}.")
        lines = metadata or folder / METADATA
        listed = list(_listed(lines, folder) if metadata or lines.is_file() else _with_text_files(folder))
        self._entries = [
            entry for entry in listed if isinstance(entry, Problem) or belongs(entry.split, split)
        ]
        if not any(isinstance(entry, CaptionedImage) for entry in self._entries):
            named = sorted(
                {entry.split for entry in listed if isinstance(entry, CaptionedImage) and entry.split}
            )
            if named:  # and all of them others, for a picture of no split belongs to each
                raise CogViewError(
                    f'{folder} holds no pictures of split "{split}": give --split one of {", ".join(named)}.'
                )
            of_split = f' of split "{split}"' if split else ""
            problems = [entry for entry in self._entries if isinstance(entry, Problem)]
            why = f" ({problems[0]})" if problems else ""
            raise CogViewError(
                f"{folder} holds no pictures{of_split} with captions{why}: write {METADATA} with lines like "
                '{"file_name": "a.png", "text": "a cat"}, or put a.txt beside a.png.'
            )

    @property
    def num_parts(self) -> int:
        """Return 1."""
        return 1

    def __len__(self) -> int:
        """Return how many pictures and problems there are."""
        return len(self._entries)

    def __iter__(self) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in order."""
        return iter(self._entries)

    def part(self, number: int) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in order."""
        assert number == 0
        return iter(self._entries)

    def expected(self) -> int:
        """Return how many pictures and problems there are."""
        return len(self._entries)

    def state(self) -> SourceState:
        """Return what tells whether the pictures and captions are still the same."""
        images = [entry for entry in self._entries if isinstance(entry, CaptionedImage)]
        told = [
            [entry.where, entry.reason]
            if isinstance(entry, Problem)
            else [entry.name, entry.split, *entry.texts]
            for entry in self._entries
        ]
        return SourceState.of((image.source for image in images if isinstance(image.source, Path)), told)


def _listed(metadata: Path, folder: Path) -> Iterator[CaptionedImage | Problem]:
    """Yield what the lines of the metadata name."""
    try:
        lines = metadata.read_text(encoding="utf-8-sig").split("\n")  # splitlines also cuts inside strings
    except (OSError, UnicodeDecodeError) as error:
        raise CogViewError(f"{metadata} cannot be read ({error}): write it as UTF-8 text.") from error
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{metadata.name} line {number}"
        try:
            image = _image_of_line(folder, line)
        except ValueError as error:
            yield Problem(where=where, kind="bad caption", reason=str(error))
            continue
        if image.name in first_lines:
            reason = f"{image.name} was named by line {first_lines[image.name]} already; give it all its texts there"
            yield Problem(where=where, kind="bad caption", reason=reason)
            continue
        first_lines[image.name] = number
        yield image


def _image_of_line(folder: Path, line: str) -> CaptionedImage:
    """Return the picture that a line of the metadata names.

    Raises:
        ValueError: the line names none, or one that cannot be used.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        raise ValueError('not a JSON object with a "file_name"')
    texts = texts_of(record)
    if texts is None:
        raise ValueError(f'{record["file_name"]} has neither "texts" nor "text"')
    name: str = record["file_name"]
    return CaptionedImage(name=name, source=folder / _checked_name(name), texts=texts, split=split_in(record))


def _checked_name(name: str) -> str:
    """Return a file name of the metadata if it stays inside the folder, as one from elsewhere might not.

    Raises:
        ValueError: it is absolute or goes up.
    """
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts or "\0" in name:
            raise ValueError(f"{name!r} leads out of the folder; file names are relative to it, without ..")
    return name


def _with_text_files(folder: Path) -> Iterator[CaptionedImage | Problem]:
    """Yield the pictures under a folder, each with the lines of the text file beside it."""
    pictures = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()
    )
    for path in pictures:
        name = path.relative_to(folder).as_posix()
        text_file, json_file = path.with_suffix(".txt"), path.with_suffix(".json")
        try:
            texts, split = _captions(text_file, json_file)
        except (OSError, ValueError) as error:
            yield Problem(where=name, kind="bad caption", reason=str(error))
            continue
        if texts is None:
            reason = f"has no caption: there is no {METADATA} and no {text_file.name}"
            yield Problem(where=name, kind="no caption", reason=reason)
        else:
            yield CaptionedImage(name=name, source=path, texts=texts, split=split)


def _captions(text_file: Path, json_file: Path) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the captions in the files beside a picture, None if there are none, and the split that they name.

    The .json counts only where there is no .txt: beside one it may be anything.

    Raises:
        OSError: the .json cannot be read.
        ValueError: the file that counts cannot be read.
    """
    if text_file.is_file():
        try:
            return texts_of_lines(text_file.read_bytes()), None
        except (OSError, ValueError) as error:
            raise ValueError(f"{text_file.name} cannot be read ({error})") from error
    if json_file.is_file():
        return captions_beside(json_file.read_bytes(), None)
    return None, None
