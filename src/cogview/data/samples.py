"""Matching of pictures and captions by file name, in folders and tars.

In WebDataset a sample's name ends at its first dot, so `7.seg.png` is a field of sample 7 beside `7.jpg`. Other data
sets have pictures like `2024.05.cat.jpg` with a caption `2024.05.cat.txt`. Both are supported: a picture with further
dots in its name counts if a caption has the same name. Otherwise, it is passed over if its sample has a picture, and
else it is a picture without caption.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogview.data.pairs import CaptionedImage, Captions, Entry, Problem, belongs, passed_over
from cogview.data.records import MAX_RECORD_BYTES, ImageMetadata, holds_captions, read_sidecars
from cogview.files import regular_file

CAPTION_ENDINGS = (".json", ".txt")
NO_CAPTION = 'has no caption: no .txt of its name, and no .json with "texts", "text" or "caption"'
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz")
OTHER_ARCHIVES = (".tar.zst", ".tzst", ".zip", ".7z", ".rar")
# Texts about a whole folder.
_ABOUT_ALL = re.compile(
    r"(readme|licen[cs]e|credits|copying|notice|changelog|authors)([-_.].*)?", re.IGNORECASE
)


@dataclass(frozen=True)
class FileName:
    """Parts of a file name.

    Args:
        folder: part before the last slash.
        stem: part up to the last dot; all of it without a dot.
        ending: the rest, with the dot.
    """

    folder: str
    stem: str
    ending: str

    @classmethod
    def of(cls, name: str) -> "FileName":
        """Split a name into its parts."""
        folder, _, file_name = name.rpartition("/")
        stem, dot, ending = file_name.rpartition(".")
        return cls(folder, stem if dot else ending, f".{ending}" if dot else "")

    @property
    def is_hidden(self) -> bool:
        """Whether it begins with a dot."""
        return not self.stem or self.stem.startswith(".")

    @property
    def sample(self) -> str:
        """WebDataset's name of the sample: up to the first dot."""
        return f"{self.folder}/{self.stem.partition('.')[0]}".lstrip("/")

    @property
    def group(self) -> str:
        """Name that a picture shares with its captions: up to the last dot."""
        return f"{self.folder}/{self.stem}".lstrip("/")


@dataclass(frozen=True)
class Member:
    """File of a picture or caption, in a folder or tar.

    Args:
        name: its name in the data set.
        source: its file, the file's bytes, or a function that reads them; None if it is too large.
    """

    name: str
    source: Path | bytes | Callable[[], bytes | None] | None


def entries_of_group(
    members: Sequence[Member],
    captions: Captions,
    split: str | None,
    sample_has_picture: Callable[[], bool],
    full_name: Callable[[str], str] = str,
) -> Iterator[Entry]:
    """Yield the pictures and problems of files that share a name up to the ending.

    If there are several pictures, all get the captions.

    Args:
        members: the files, each name once.
        captions: whether pictures need them.
        split: only pictures that name this split or none; None for all.
        sample_has_picture: whether a picture has the sample's own name; called for pictures without captions.
        full_name: turns a member's name into that of the entry.
    """
    files = [(FileName.of(member.name), member) for member in members]
    pictures = [each for each in files if each[0].ending.lower() not in CAPTION_ENDINGS]
    beside: dict[str, Member] = {}
    for name, member in files:
        ending = name.ending.lower()
        if ending in CAPTION_ENDINGS and beside.setdefault(ending, member) is not member:
            first = beside[ending].name.rpartition("/")[2]
            yield passed_over(full_name(member.name), f"{first} of the same name counts")
    if not pictures:
        for member in beside.values():
            if is_caption(member):
                yield passed_over(full_name(member.name), "a caption without a picture of its name")
        return
    try:
        metadata = read_sidecars(_content(beside.get(".json")), _content(beside.get(".txt")))
        problem = None
    except ValueError as error:
        metadata, problem = ImageMetadata(), str(error)
    for name, member in pictures:
        where = full_name(member.name)
        if captions == "required" and problem is not None:
            yield Problem(where=where, kind="bad caption", reason=problem)
            continue
        if metadata.texts is None and problem is None and name.group != name.sample and sample_has_picture():
            yield passed_over(
                where, f"a further picture beside that of {name.sample}, without a caption of its own"
            )
            continue
        if metadata.texts is None and captions == "required":
            yield Problem(where=where, kind="no caption", reason=NO_CAPTION)
            continue
        if not belongs(metadata.split, split):
            continue
        source = member.source() if callable(member.source) else member.source
        if source is None:
            yield Problem(where=where, kind="too large", reason="more bytes than a picture may have")
            continue
        yield CaptionedImage(
            name=where,
            source=source,
            texts=metadata.texts or (),
            split=metadata.split,
            orientation=metadata.orientation,
        )
        for doubt in (*metadata.doubts, *([problem] if problem else [])):
            yield passed_over(where, doubt)


def _content(member: Member | None) -> bytes | None:
    """Return the bytes of a caption's file.

    Raises:
        ValueError: it cannot be read, or is too long.
    """
    if member is None:
        return None
    ending = FileName.of(member.name).ending.lower()
    data = member.source() if callable(member.source) else member.source
    try:
        if isinstance(data, Path):
            with regular_file(data).open("rb") as file:
                data = file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise ValueError(f"its {ending} cannot be read ({error.strerror or error})") from error
    if data is None or len(data) > MAX_RECORD_BYTES:
        raise ValueError(f"its {ending} has more than {MAX_RECORD_BYTES:,} bytes")
    return data


def is_caption(member: Member) -> bool:
    """Return whether a .txt or .json without a picture looks like a caption."""
    name = FileName.of(member.name)
    if name.ending.lower() == ".txt":
        return not _ABOUT_ALL.fullmatch(name.stem)
    try:
        data = _content(member)
    except ValueError:
        return False
    return data is not None and holds_captions(data)
