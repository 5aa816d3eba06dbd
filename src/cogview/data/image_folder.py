"""Folder of pictures with captions in `metadata.jsonl`, or in `.txt` or `.json` files beside the pictures."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from cogview.data.folder_contents import METADATA, FolderContents
from cogview.data.pairs import (
    CaptionedImage,
    Captions,
    Entry,
    Problem,
    SourceState,
    belongs,
    passed_over,
)
from cogview.data.records import split_in, texts_of
from cogview.data.samples import FileName, Member, entries_of_group, is_caption
from cogview.errors import CogViewError


class ImageFolder:
    """Pictures of a folder, in the order of its metadata or of their names.

    Each line of `metadata.jsonl` is an object with `file_name`, relative to the folder, and `texts`, a list of
    captions, or `text`, one caption. `split` is optional; other fields are ignored. Without that file, the `.txt` and
    `.json` beside a picture hold its captions, as in a tar. The folder is one part.

    Args:
        folder: the folder.
        split: only pictures that name this split or none; None for all.
        metadata: a metadata file elsewhere; pictures that it does not list are then not reported.
        captions: whether pictures need them.
        contents: the folder's listing, if there is one already; its tars are ignored.

    Raises:
        CogViewError: the folder or the metadata cannot be read, or there are no pictures (with captions).
    """

    def __init__(
        self,
        folder: Path,
        split: str | None = None,
        metadata: Path | None = None,
        captions: Captions = "required",
        contents: FolderContents | None = None,
    ) -> None:
        if not folder.is_dir():
            raise CogViewError(f"{folder} is no folder: give one that holds pictures and {METADATA}.")
        lines = metadata or folder / METADATA
        is_listed = metadata is not None or lines.is_file()
        if is_listed:
            listed = list(_listed(lines, folder, captions))
            if metadata is None:
                listed += _unlisted(listed, contents or FolderContents.of(folder))
        else:
            listed = with_files_beside(contents or FolderContents.of(folder), captions)
        # Pictures of other splits are dropped together with their problems.
        others = {
            entry.name
            for entry in listed
            if isinstance(entry, CaptionedImage) and not belongs(entry.split, split)
        }
        self._entries = [
            entry
            for entry in listed
            if (entry.where if isinstance(entry, Problem) else entry.name) not in others
        ]
        if not any(isinstance(entry, CaptionedImage) for entry in self._entries):
            raise CogViewError(_nothing_in(folder, split, listed, self._entries, captions))

    @property
    def num_parts(self) -> int:
        """Return 1."""
        return 1

    def __len__(self) -> int:
        """Return the number of pictures, including unusable ones."""
        return sum(isinstance(entry, CaptionedImage) or not entry.is_passed_over for entry in self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Yield pictures and problems in order."""
        return iter(self._entries)

    def part(self, number: int) -> Iterator[Entry]:
        """Yield pictures and problems in order."""
        assert number == 0
        return iter(self._entries)

    def expected(self) -> int:
        """Return the number of pictures, including unusable ones."""
        return len(self)

    def state(self) -> SourceState:
        """Return the state of the files and captions, to detect changes."""
        images = [entry for entry in self._entries if isinstance(entry, CaptionedImage)]
        fields = [
            [entry.where, entry.reason]
            if isinstance(entry, Problem)
            else [entry.name, entry.split, *entry.texts]
            for entry in self._entries
        ]
        return SourceState.of((image.source for image in images if isinstance(image.source, Path)), fields)


def _nothing_in(
    folder: Path, split: str | None, listed: list[Entry], taken: list[Entry], captions: Captions
) -> str:
    """Return the error message for a folder without usable pictures."""
    splits = sorted({entry.split for entry in listed if isinstance(entry, CaptionedImage) and entry.split})
    if splits:  # all of other splits, since a picture without a split belongs to each
        return f'{folder} holds no pictures of split "{split}": give --split one of {", ".join(splits)}.'
    of_split = f' of split "{split}"' if split else ""
    problems = sorted(
        (entry for entry in taken if isinstance(entry, Problem)), key=lambda p: p.is_passed_over
    )
    why = f" ({problems[0]})" if problems else ""
    if captions == "optional":
        return f"{folder} holds no pictures{of_split}{why}: give a folder of pictures, or WebDataset tars."
    return (
        f"{folder} holds no pictures{of_split} with captions{why}: write {METADATA} with lines like "
        '{"file_name": "a.png", "text": "a cat"}, or put a.txt beside a.png.'
    )


def _listed(metadata: Path, folder: Path, captions: Captions) -> Iterator[Entry]:
    """Yield the pictures of the metadata's lines, and problems for bad lines."""
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
            image = _image_of_line(folder, line, captions)
        except ValueError as error:
            yield Problem(where=where, kind="bad caption", reason=str(error))
            continue
        if image.name in first_lines:
            reason = f"{image.name} was named by line {first_lines[image.name]} already; give it all its texts there"
            yield Problem(where=where, kind="bad caption", reason=reason)
            continue
        first_lines[image.name] = number
        yield image


def _image_of_line(folder: Path, line: str, captions: Captions) -> CaptionedImage:
    """Return the picture of a line of metadata.

    Raises:
        ValueError: the line is malformed, or its file name is not allowed.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        raise ValueError('not a JSON object with a "file_name"')
    name: str = record["file_name"]
    texts = None
    try:
        texts = texts_of(record)
        if texts is None:
            raise ValueError(f'{name} has neither "texts" nor "text"')
    except ValueError:
        if captions == "required":
            raise
    source = folder / _checked_name(name)
    return CaptionedImage(name=name, source=source, texts=texts or (), split=split_in(record))


def _checked_name(name: str) -> str:
    """Return a file name of the metadata if it is valid and stays inside the folder.

    Raises:
        ValueError: it is absolute, contains "..", or is no possible file name.
    """
    try:
        is_possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ValueError(f"{name!r} is a name that no file can have")
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of the folder; file names are relative to it, without ..")
    return name


def _unlisted(listed: Iterable[Entry], contents: FolderContents) -> list[Entry]:
    """Return problems for the files that the metadata does not list."""
    folder = contents.folder
    names = {os.path.normpath(folder / entry.name) for entry in listed if isinstance(entry, CaptionedImage)}
    others = [path for path in contents.pictures if os.path.normpath(path) not in names]
    if others:  # a file may have other names, by links
        real = {os.path.realpath(name) for name in names}
        others = [path for path in others if os.path.realpath(path) not in real]
    problems: list[Entry] = [
        passed_over(path.relative_to(folder).as_posix(), f"{METADATA} does not list it") for path in others
    ]
    stems = {path.with_suffix("") for path in contents.pictures}
    beside = [
        path
        for path in contents.captions
        if path.with_suffix("") in stems and is_caption(Member(path.name, path))
    ]
    if beside:
        first = beside[0].relative_to(folder).as_posix()
        endings = " and ".join(sorted({path.suffix.lower() for path in beside}, reverse=True))
        reason = f"{len(beside):,} {endings} beside pictures are not read, since there is a {METADATA}; "
        problems.append(passed_over(METADATA, f"{reason}the first is {first}"))
    reason = f"a tar beside {METADATA} is not read here: give it by itself"
    problems += [passed_over(path.relative_to(folder).as_posix(), reason) for path in contents.tars]
    return [*problems, *contents.problems]


def with_files_beside(contents: FolderContents, captions: Captions) -> list[Entry]:
    """Return the pictures under a folder with the captions in the files beside them, sorted by path."""
    groups: dict[str, list[Member]] = defaultdict(list)
    for path in (*contents.pictures, *contents.captions):
        name = path.relative_to(contents.folder).as_posix()
        groups[FileName.of(name).group].append(Member(name, path))
    pictures = {path.relative_to(contents.folder).as_posix() for path in contents.pictures}
    own = {name.group for name in map(FileName.of, pictures)}
    entries: list[Entry] = list(contents.problems)
    for members in groups.values():
        sample = FileName.of(members[0].name).sample
        entries += entries_of_group(members, captions, None, lambda sample=sample: sample in own)
    return sorted(entries, key=_place)


def _place(entry: Entry) -> tuple[str, ...]:
    """Return the parts of an entry's path, as a sorting key."""
    return PurePosixPath(entry.where if isinstance(entry, Problem) else entry.name).parts
