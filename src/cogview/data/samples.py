"""The one reader of pairs: files that share a name up to the ending are a picture and what is said of it.

It is the same for the files of a folder and the members of a tar. WebDataset lets a sample's name end at its first dot,
so that of `7.jpg`, `7.seg.png` and `7.txt` the second is one more field of sample 7 and no picture in its own right.
But people name files `2024.05.cat.jpg` too, each with a caption of the same name. Both are read: a picture whose name
has dots before the ending counts if a caption of that very name lies beside it. Without one it is a field that nobody
asked for if its sample has a picture of its own name, and else a picture without caption. What is not taken is told.
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
# Texts that tell of a whole folder.
_ABOUT_ALL = re.compile(
    r"(readme|licen[cs]e|credits|copying|notice|changelog|authors)([-_.].*)?", re.IGNORECASE
)


@dataclass(frozen=True)
class FileName:
    """A name in a data set, taken apart.

    Args:
        folder: what stands before the last slash.
        stem: up to the last dot; all of it if there is none.
        ending: the rest, with the dot.
    """

    folder: str
    stem: str
    ending: str

    @classmethod
    def of(cls, name: str) -> "FileName":
        """Take a name apart."""
        folder, _, file_name = name.rpartition("/")
        stem, dot, ending = file_name.rpartition(".")
        return cls(folder, stem if dot else ending, f".{ending}" if dot else "")

    @property
    def is_hidden(self) -> bool:
        """Whether it begins with a dot."""
        return not self.stem or self.stem.startswith(".")

    @property
    def sample(self) -> str:
        """What WebDataset calls the sample: up to the first dot."""
        return f"{self.folder}/{self.stem.partition('.')[0]}".lstrip("/")

    @property
    def group(self) -> str:
        """What a picture shares with its captions: up to the last dot."""
        return f"{self.folder}/{self.stem}".lstrip("/")


@dataclass(frozen=True)
class Member:
    """A picture or a caption of a data set.

    Args:
        name: what the data set calls it.
        source: its file, the file's bytes, or what reads them when they are wanted; None if it is too large to be read.
    """

    name: str
    source: Path | bytes | Callable[[], bytes | None] | None


def entries_of_group(
    members: Sequence[Member],
    captions: Captions,
    split: str | None,
    sample_has_picture: Callable[[], bool],
    told_name: Callable[[str], str] = str,
) -> Iterator[Entry]:
    """Yield the pictures of some files that share a name up to the ending, and what is wrong with them.

    Several pictures have the same captions.

    Args:
        members: the files, each name once.
        captions: whether pictures need them.
        split: give only pictures that name this split or none; None gives all.
        sample_has_picture: asked for pictures without captions: whether another picture bears the sample's own name.
        told_name: makes of a member's name what messages and pictures are called by.
    """
    files = [(FileName.of(member.name), member) for member in members]
    pictures = [each for each in files if each[0].ending.lower() not in CAPTION_ENDINGS]
    beside: dict[str, Member] = {}
    for name, member in files:
        ending = name.ending.lower()
        if ending in CAPTION_ENDINGS and beside.setdefault(ending, member) is not member:
            first = beside[ending].name.rpartition("/")[2]
            yield passed_over(told_name(member.name), f"{first} of the same name counts")
    if not pictures:
        for member in beside.values():
            if is_caption(member):
                yield passed_over(told_name(member.name), "a caption without a picture of its name")
        return
    try:
        told = read_sidecars(_content(beside.get(".json")), _content(beside.get(".txt")))
        problem = None
    except ValueError as error:
        told, problem = ImageMetadata(), str(error)
    for name, member in pictures:
        where = told_name(member.name)
        if captions == "required" and problem is not None:
            yield Problem(where=where, kind="bad caption", reason=problem)
            continue
        if told.texts is None and problem is None and name.group != name.sample and sample_has_picture():
            yield passed_over(
                where, f"a further picture beside that of {name.sample}, without a caption of its own"
            )
            continue
        if told.texts is None and captions == "required":
            yield Problem(where=where, kind="no caption", reason=NO_CAPTION)
            continue
        if not belongs(told.split, split):
            continue
        source = member.source() if callable(member.source) else member.source
        if source is None:
            yield Problem(where=where, kind="too large", reason="more bytes than a picture may have")
            continue
        yield CaptionedImage(
            name=where,
            source=source,
            texts=told.texts or (),
            split=told.split,
            orientation=told.orientation,
        )
        for doubt in (*told.doubts, *([problem] if problem else [])):
            yield passed_over(where, doubt)


def _content(member: Member | None) -> bytes | None:
    """Return what is in a caption's file.

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
    """Return whether a .txt or .json that is not read with a picture is meant to be a caption."""
    name = FileName.of(member.name)
    if name.ending.lower() == ".txt":
        return not _ABOUT_ALL.fullmatch(name.stem)
    try:
        data = _content(member)
    except ValueError:
        return False
    return data is not None and holds_captions(data)
