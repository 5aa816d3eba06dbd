"""WebDataset tars: members with the same name up to the ending are one picture and its captions.

WebDataset lets a sample's name end at its first dot, so that of `7.jpg`, `7.seg.png` and `7.txt` the second is one more
field of sample 7 and no picture in its own right. But people pack files like `2024.05.cat.jpg` too, each with a caption
of the same name. Both are read: a picture whose name has dots before the ending counts if a caption of that very name
lies beside it. Without one it is a field that nobody asked for if its sample has a picture of its own name, and else
a picture without caption, which is told.
"""

import tarfile
import warnings
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
    SourceState,
    belongs,
    captions_beside,
)
from cogview.errors import CogViewError

MAX_MEMBER_BYTES = 256 * 2**20
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
READ_ENDINGS = (*IMAGE_ENDINGS, ".json", ".txt")
COUNTED_IMAGES = 1000
APART = "its members don't lie side by side"
# ValueError: Python's reader takes the numbers of some headers as they come.
DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, LZMAError)
_ZEROS_AT_A_TIME = 2**20
NO_CAPTION = 'has no caption: no .txt of its name, and no .json with "texts", "text" or "caption"'

Members: TypeAlias = dict[str, bytes | None]
"""Content by ending; None where it is too large to be read."""


class Tars:
    """The pictures of one or more tars, in the order in which they lie there.

    A picture is one of `.png`, `.jpg` and so on; its captions are `texts` or `text` of the `.json` beside it, or else
    the lines of the `.txt`, or else `caption` of the `.json`. Each tar is a part of the data set. Members are read one
    by one and never unpacked, so a tar cannot write anywhere.

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
        self._num_images: int | None = None
        if others := _not_read(source):
            listed = ", ".join(sorted(others)[:3])
            warnings.warn(
                f"{source} holds {len(others)} files beside its tars that are not read ({listed}, ...): unpack what is "
                "compressed, and tokenize loose pictures from a folder of their own.",
                stacklevel=2,
            )
        if not any(_count_images(path, 1)[0] for path in self._paths):
            endings = ", ".join(IMAGE_ENDINGS)
            raise CogViewError(
                f"The tars of {source} hold no pictures ({endings}) that can be read: give others."
            )

    @property
    def num_parts(self) -> int:
        """Return the number of tars."""
        return len(self._paths)

    def __len__(self) -> int:
        """Return how many pictures the tars hold, those of other splits among them; all headers are read for it."""
        if self._num_images is None:
            self._num_images = sum(_count_images(path)[0] for path in self._paths)
        return self._num_images

    def __iter__(self) -> Iterator[CaptionedImage | Problem]:
        """Yield pictures and problems in order."""
        for number in range(self.num_parts):
            yield from self.part(number)

    def part(self, number: int) -> Iterator[CaptionedImage | Problem]:
        """Yield the pictures and problems of a tar in order."""
        path = self._paths[number]
        try:
            yield from self._entries(path)
        except DAMAGE as error:
            reason = f"damaged, what follows in it is lost ({error})"
            yield Problem(where=path.name, kind="damaged tar", reason=reason)

    def expected(self) -> int:
        """Return about how many pictures the tars hold, by the first of the first tar that has any."""
        counts = (_count_images(path, COUNTED_IMAGES) for path in self._paths)
        num_images, num_bytes = next(count for count in counts if count[0])
        return round(num_images * sum(path.stat().st_size for path in self._paths) / num_bytes)

    def state(self) -> SourceState:
        """Return what tells whether the tars are still the same."""
        return SourceState.of(self._paths)

    def _entries(self, path: Path) -> Iterator[CaptionedImage | Problem]:
        seen: set[str] = set()
        captionless: list[Problem] = []
        for sample, name, members in _groups(path):
            entry = _entry(path.name, name, members)
            if members and name in seen:
                yield Problem(where=f"{path.name} {name}", kind="bad caption", reason=APART)
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


def _not_read(source: Path) -> list[str]:
    """Return the names of the pictures and compressed tars that lie beside tars."""
    if source.is_file():
        return []
    names = (path.name for path in source.iterdir())
    return [name for name in names if name.lower().endswith((*COMPRESSED, *IMAGE_ENDINGS))]


def _count_images(path: Path, most: int | None = None) -> tuple[int, int]:
    """Return the number of pictures in a tar and the bytes that they take, from its headers as far as they can be read.

    Args:
        path: the tar.
        most: pictures after which to stop; None counts all.
    """
    num_images = num_bytes = 0
    # Damage is told of when the pictures are read.
    with suppress(*DAMAGE), tarfile.open(path) as tar:
        for _, _, ending, info in _members(tar):
            num_images += ending in IMAGE_ENDINGS
            num_bytes = info.offset_data + info.size
            if num_images == most:
                break
        else:
            num_bytes = path.stat().st_size
    return num_images, num_bytes


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, str, tarfile.TarInfo]]:
    """Yield the sample, the name without the ending, and the ending of each picture and caption, with its header.

    Raises:
        ReadError: the tar goes on after the last member with something that is no header, or a member has a size
            below 0.
    """
    for info in tar:
        if info.size < 0:  # it would lead back to itself, for ever
            raise tarfile.ReadError("a header makes no sense")
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


def _refuse_more(tar: tarfile.TarFile) -> None:
    """Look at what follows the end of a tar.

    Raises:
        ReadError: it isn't zeros.
    """
    assert tar.fileobj is not None
    while rest := tar.fileobj.read(_ZEROS_AT_A_TIME):
        if any(rest):
            raise tarfile.ReadError("it goes on after its end, like tars that were joined or partly zeroed")


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
        _refuse_more(tar)


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
        return Problem(where=name, kind="too large", reason=f"more than {MAX_MEMBER_BYTES:,} bytes")
    try:
        texts, split = captions_beside(members.get(".json"), members.get(".txt"))
    except ValueError as error:
        return Problem(where=name, kind="bad caption", reason=str(error))
    if texts is None:
        return Problem(where=name, kind="no caption", reason=NO_CAPTION)
    return CaptionedImage(name=name, source=data, texts=texts, split=split)
