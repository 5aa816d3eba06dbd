"""WebDataset tars: members with the same name up to the ending are one picture and its captions."""

import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)


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
        for key, members in _groups(path):
            entry = _entry(path.name, key, members)
            if key in seen:
                yield Problem(where=f"{path.name} {key}", reason="its members don't lie side by side")
            elif isinstance(entry, Problem) or (entry and belongs(entry.split, self._split)):
                yield entry
            seen.add(key)


def _count_images(path: Path) -> int:
    """Return the number of pictures in a tar from its headers alone, as far as they can be read."""
    num_images = 0
    # Damage is told of when the pictures are read.
    with suppress(*DAMAGE), tarfile.open(path) as tar:
        for member in tar:
            num_images += member.isreg() and member.name.lower().endswith(IMAGE_ENDINGS)
    return num_images


def _groups(path: Path) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Yield each run of members that share a name up to the ending; a member that is too large is None."""
    key: str | None = None
    members: dict[str, bytes | None] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            if not info.isreg():
                continue
            folder, _, name = info.name.rpartition("/")
            stem, dot, ending = name.partition(".")
            if not stem or not dot:
                continue
            if (found := f"{folder}/{stem}".lstrip("/")) != key:
                if key is not None:
                    yield key, members
                key, members = found, {}
            if (kind := f".{ending.lower()}") not in READ_ENDINGS:
                continue
            file = tar.extractfile(info)
            assert file is not None  # a regular file has content
            members[kind] = file.read() if info.size <= MAX_MEMBER_BYTES else None
    if key is not None:
        yield key, members


def _entry(tar_name: str, key: str, members: dict[str, bytes | None]) -> CaptionedImage | Problem | None:
    """Return the picture of a group, what is wrong with it, or None if it holds no picture."""
    images = [ending for ending in members if ending in IMAGE_ENDINGS]
    if not images:
        return None
    name = f"{tar_name} {key}{images[0]}"
    data = members[images[0]]
    if data is None:
        return Problem(where=name, reason=f"more than {MAX_MEMBER_BYTES:,} bytes")
    try:
        texts, split = _captions(members)
    except ValueError as error:
        return Problem(where=name, reason=str(error))
    if texts is None:
        return Problem(where=name, reason='has no caption: no .txt, and no .json with "texts" or "text"')
    return CaptionedImage(name=name, source=data, texts=texts, split=split)


def _captions(members: dict[str, bytes | None]) -> tuple[tuple[str, ...] | None, str | None]:
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
