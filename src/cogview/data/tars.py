"""WebDataset tars: members with the same name up to the ending are one picture and its captions.

WebDataset lets a sample's name end at its first dot, so that of `7.jpg`, `7.seg.png` and `7.txt` the second is one more
field of sample 7 and no picture in its own right. But people pack files like `2024.05.cat.jpg` too, each with a caption
of the same name. Both are read: a picture whose name has dots before the ending counts if a caption of that very name
lies beside it. Without one it is a field that nobody asked for if its sample has a picture of its own name, and else
a picture without caption, which is told.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from lzma import LZMAError
from pathlib import Path
from typing import TypeAlias

from cogview.data.pairs import (
    IMAGE_ENDINGS,
    CaptionedImage,
    Problem,
    belongs,
    split_in,
    texts_of,
    texts_of_lines,
)
from cogview.errors import CogViewError

MAX_MEMBER_BYTES = 256 * 2**20
READ_ENDINGS = (*IMAGE_ENDINGS, ".json", ".txt")
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError)
NO_CAPTION = 'has no caption: no .txt of its name, and no .json with "texts" or "text"'

Members: TypeAlias = dict[str, bytes | None]
"""Content by ending; None where it is too large to be read."""


class Tars:
    """The pictures of one or more tars, in the order in which they lie there.

    A picture is one of `.png`, `.jpg` and so on; its captions are `texts` or `text` of the `.json` beside it, or else
    the lines of the `.txt`. Members are read one by one and never unpacked, so a tar cannot write anywhere.

    Args:
        source: a tar, or a folder that holds tars.
        split: give only the pictures that name this split or none; None gives all.

    Raises:
        CogViewError: there are no tars, or none holds a picture.
    """

    def __init__(self, source: Path, split: str | None = None) -> None:
        self._paths = [source] if source.is_file() else sorted(source.glob("*.tar"))
        self._split = split
        if not self._paths:
            raise CogViewError(f"{source} holds no .tar files: give a tar, or the folder where they lie.")
        self._num_images = sum(map(_count_images, self._paths))
        if not self._num_images:
            endings = ", ".join(IMAGE_ENDINGS)
            raise CogViewError(
                f"The tars of {source} hold no pictures ({endings}) that can be read: give others."
            )

    def __len__(self) -> int:
        """Return how many pictures the tars hold, those of other splits among them."""
        return self._num_images

    def __iter__(self) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in order."""
        for path in self._paths:
            try:
                yield from self._entries(path)
            except DAMAGE as error:
                yield Problem(where=path.name, reason=f"damaged, what follows in it is lost ({error})")

    def _entries(self, path: Path) -> Iterator[CaptionedImage | Problem]:
        seen: set[str] = set()
        captionless: list[Problem] = []
        for sample, name, members in _groups(path):
            entry = _entry(path.name, name, members)
            if members and name in seen:
                yield Problem(where=f"{path.name} {name}", reason="its members don't lie side by side")
            elif name != sample and isinstance(entry, Problem) and entry.reason == NO_CAPTION:
                captionless.append(entry)
            elif isinstance(entry, Problem) or (entry and belongs(entry.split, self._split)):
                yield entry
            if members:
                seen.add(name)
            if name == sample:
                if entry is None:  # else they are fields beside the sample's picture
                    yield from captionless
                captionless.clear()


def _count_images(path: Path) -> int:
    """Return the number of pictures in a tar from its headers alone, as far as they can be read."""
    num_images = 0
    # Damage is told of when the pictures are read.
    with suppress(*DAMAGE), tarfile.open(path) as tar:
        for _, _, ending, _ in _members(tar):
            num_images += ending in IMAGE_ENDINGS
    return num_images


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, str, tarfile.TarInfo]]:
    """Yield the sample, the name without the ending, and the ending of each picture and caption, with its header.

    Raises:
        ReadError: the tar goes on after the last member with something that is no header.
    """
    for info in tar:
        folder, _, file_name = info.name.rpartition("/")
        stem, _, ending = file_name.rpartition(".")
        key = stem.partition(".")[0]
        if info.isreg() and key and (ending := f".{ending.lower()}") in READ_ENDINGS:
            yield f"{folder}/{key}".lstrip("/"), f"{folder}/{stem}".lstrip("/"), ending, info
    # Of any header but the first that makes no sense, Python's reader thinks that it is the end.
    assert tar.fileobj is not None  # it has just been read
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("a header makes no sense")


def _groups(path: Path) -> Iterator[tuple[str, str, Members]]:
    """Yield each run of members that share a name up to the ending, with the sample that they belong to.

    A sample's own group, the one of its name, closes it and may be empty. Before it come the groups of longer names,
    `sample.more`, each as soon as the next begins: a sample may be a whole tar of `2024.one.jpg`, `2024.two.jpg`
    and so on, which must not be held in memory.
    """
    sample = ""
    groups: dict[str, Members] = {}  # the sample's own and at most one more behind it
    with tarfile.open(path) as tar:
        for found, name, ending, info in _members(tar):
            if found != sample:
                yield from _closed(sample, groups)
                sample, groups = found, {found: {}}
            elif name not in groups and len(groups) == 2:
                yield sample, *groups.popitem()
            file = tar.extractfile(info)
            assert file is not None  # a regular file has content
            groups.setdefault(name, {})[ending] = file.read() if info.size <= MAX_MEMBER_BYTES else None
    yield from _closed(sample, groups)


def _closed(sample: str, groups: dict[str, Members]) -> Iterator[tuple[str, str, Members]]:
    """Yield what is left of a sample, its own group last."""
    for name, members in reversed(groups.items()):
        yield sample, name, members


def _entry(tar_name: str, stem: str, members: Members) -> CaptionedImage | Problem | None:
    """Return the picture of a group, what is wrong with it, or None if it holds no picture."""
    images = [ending for ending in members if ending in IMAGE_ENDINGS]
    if not images:
        return None
    name = f"{tar_name} {stem}{images[0]}"
    data = members[images[0]]
    if data is None:
        return Problem(where=name, reason=f"more than {MAX_MEMBER_BYTES:,} bytes")
    try:
        texts, split = _captions(members)
    except ValueError as error:
        return Problem(where=name, reason=str(error))
    if texts is None:
        return Problem(where=name, reason=NO_CAPTION)
    return CaptionedImage(name=name, source=data, texts=texts, split=split)


def _captions(members: Members) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the captions of a group, None if it has none, and the split that it names.

    Raises:
        ValueError: they cannot be read.
    """
    texts: tuple[str, ...] | None = None
    split: str | None = None
    try:
        if (data := members.get(".json")) is not None:
            record = json.loads(data)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            texts, split = texts_of(record), split_in(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be used ({error})") from error
    if texts is None and (data := members.get(".txt")) is not None:
        try:
            texts = texts_of_lines(data)
        except ValueError as error:
            raise ValueError(f"its .txt is not UTF-8 ({error})") from error
    return texts, split
