"""Recursive listing of pictures, captions and tars under a folder."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cogview.data.pairs import Problem, passed_over
from cogview.data.samples import CAPTION_ENDINGS, OTHER_ARCHIVES, TARS, FileName
from cogview.image.formats import HEAD_BYTES, looks_like_picture, verdict_on

METADATA = "metadata.jsonl"


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """Files of a data set under a folder, each kind sorted by path.

    Args:
        folder: the folder.
        pictures: files that are pictures by name or first bytes.
        captions: files that may hold captions.
        tars: tars by name, compressed or not.
        problems: files that look like one of these but are not read.
    """

    folder: Path
    pictures: tuple[Path, ...]
    captions: tuple[Path, ...]
    tars: tuple[Path, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, folder: Path) -> "FolderContents":
        """List a folder and its subfolders, following links, each folder once; skip hidden files."""
        pictures: list[Path] = []
        captions: list[Path] = []
        tars: list[Path] = []
        problems: list[Problem] = []
        for entry in _files_under(folder):
            if isinstance(entry, Problem):
                problems.append(entry)
                continue
            path = Path(entry.path)
            kind = _kind_of(entry, path, path.relative_to(folder).as_posix())
            if isinstance(kind, Problem):
                problems.append(kind)
            elif kind is not None:
                {"picture": pictures, "caption": captions, "tar": tars}[kind].append(path)
        return cls(
            folder=folder,
            pictures=tuple(sorted(pictures)),
            captions=tuple(sorted(captions)),
            tars=tuple(sorted(tars)),
            problems=tuple(sorted(problems, key=lambda problem: problem.where.split("/"))),
        )


def _kind_of(entry: "os.DirEntry[str]", path: Path, name: str) -> str | Problem | None:
    """Return "picture", "caption" or "tar", a problem if the file is not read, or None if it is unrelated."""
    parts, lower = FileName.of(name), name.lower()
    is_caption = parts.ending.lower() in CAPTION_ENDINGS
    is_tar, is_archive = lower.endswith(TARS), lower.endswith(OTHER_ARCHIVES)
    try:
        is_regular = entry.is_file()
    except OSError:  # for instance circular links
        is_regular = False
    if not is_regular:
        if parts.is_hidden or not (is_caption or is_tar or is_archive or looks_like_picture(parts.ending)):
            return None
        if entry.is_symlink() and not path.exists():
            return Problem(where=name, kind="missing", reason="a link that leads nowhere")
        return Problem(where=name, kind="unreadable", reason="a pipe or a device, no file")
    if parts.is_hidden:
        is_picture = verdict_on("", lambda: _head(path)) == "picture"
        return passed_over(name, "a hidden picture: its name begins with a dot") if is_picture else None
    if is_tar or is_caption:
        return "tar" if is_tar else "caption"
    if is_archive:
        return passed_over(name, "an archive of a kind that is not read: unpack it")
    if path.name == METADATA:
        if name == METADATA:
            return None
        return passed_over(
            name, f"read only at the top of a data set: give its folder, or write one {METADATA}"
        )
    verdict = verdict_on(parts.ending, lambda: _head(path))
    if verdict == "nothing":
        return None
    return "picture" if verdict == "picture" else passed_over(name, verdict)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""  # reading the whole file reports the error


def _files_under(top: Path) -> Iterator["os.DirEntry[str] | Problem"]:
    """Yield all files, and problems for unreadable folders.

    Each folder is entered once, by its own name before any link, so that circular links change nothing.
    """
    seen: set[tuple[int, int]] = set()
    folders, linked = deque([top]), deque[Path]()
    while folders or linked:
        folder = (folders or linked).popleft()
        try:
            status = folder.stat()
            if (key := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(key)
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            where = folder.relative_to(top).as_posix()
            reason = f"a folder that cannot be read ({error.strerror})"
            yield Problem(where=where, kind="unreadable", reason=reason)
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(folder / entry.name)
            elif entry.is_symlink() and (folder / entry.name).is_dir():
                linked.append(folder / entry.name)
            else:
                yield entry
