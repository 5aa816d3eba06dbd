"""Safe reading of untrusted tars, member by member.

Nothing is unpacked to disk, so a tar cannot write anywhere. All sizes are bounded: a header may claim terabytes, and a
compressed tar or sparse member may expand to terabytes of zeros.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cogview.data.folder_contents import METADATA
from cogview.data.pairs import Problem, passed_over
from cogview.data.records import MAX_RECORD_BYTES
from cogview.data.samples import CAPTION_ENDINGS, OTHER_ARCHIVES, TARS, FileName
from cogview.image.formats import HEAD_BYTES, looks_like_picture, verdict_on

MAX_MEMBER_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 2**20
"""Largest name or extended header of a member."""

# Pictures hardly compress further; zeros compress by a factor of a thousand to a million.
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_UNPACKED_RATIO = 200
MAX_SPARSE_RATIO = 16

# ValueError: tarfile does not check all numbers; RecursionError: nested headers.
DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error, lzma.LZMAError)
_AT_A_TIME = 2**20
_PACKED: Final = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TarMember:
    """Picture or caption in a tar.

    Args:
        name: path in the tar.
        is_picture: whether it is a picture.
        end: offset of its content's end in the uncompressed tar.
        read: returns its content, None if it is too large; to be called before the next member is read.
    """

    name: str
    is_picture: bool
    end: int
    read: Callable[[], bytes | None]


class _BoundedFile:
    """Uncompressed bytes of a tar, with limits on their total and on single reads.

    Args:
        file: the uncompressed file.
        most: limit on all bytes; None if the tar is not compressed.
    """

    def __init__(self, file: io.BufferedIOBase, most: int | None) -> None:
        self._file, self._most = file, most
        self.longest_read: int | None = None

    def seekable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes.

        Raises:
            ReadError: a limit is exceeded.
        """
        if self.longest_read is not None and size > self.longest_read:
            raise tarfile.ReadError(f"a header claims to be {size:,} bytes long")
        data = self._file.read(size)
        self._refuse_endless()
        return data

    def seek(self, place: int) -> int:
        """Seek to an offset.

        Raises:
            ReadError: it is beyond the limit.
        """
        if self._most is not None:
            while place - self._file.tell() > _AT_A_TIME:
                if not self._file.read(_AT_A_TIME):
                    break
                self._refuse_endless()
        return self._file.seek(place)

    def tell(self) -> int:
        """Return the offset."""
        return self._file.tell()

    def _refuse_endless(self) -> None:
        if self._most is not None and self._file.tell() > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {self._most:,} bytes: unpack it yourself")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, _BoundedFile]]:
    """Open a tar, compressed or not.

    Raises:
        ReadError: it is no tar or no regular file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe may block forever
        raise tarfile.ReadError("a pipe or a device, no file")
    with ExitStack() as stack:
        raw: Any = stack.enter_context(path.open("rb"))
        head = raw.read(6)
        raw.seek(0)
        unpack = next((each for magic, each in _PACKED if head.startswith(magic)), None)
        most = None
        if unpack is not None:
            raw = stack.enter_context(unpack(raw))
            most = MAX_UNPACKED_BYTES + MAX_UNPACKED_RATIO * status.st_size
        file = _BoundedFile(raw, most)
        file.longest_read = MAX_HEADER_BYTES
        as_file: Any = file  # has all methods that tarfile calls
        yield stack.enter_context(tarfile.open(fileobj=as_file, mode="r:")), file


def members_of(path: Path) -> Iterator[TarMember | Problem | None]:
    """Yield the pictures, captions and problems of a tar in order, and None at a proper end.

    Raises:
        DAMAGE: any of these errors; the rest cannot be read, or data follow the end.
    """
    with _opened(path) as (tar, file):
        while True:
            file.longest_read = MAX_HEADER_BYTES
            info = tar.next()
            if info is None:
                break
            members: list[tarfile.TarInfo] = vars(tar)["members"]
            members.clear()  # to bound memory
            if info.size < 0:  # would loop forever
                raise tarfile.ReadError("a header makes no sense")
            file.longest_read = None
            if (member := _member(tar, info)) is not None:
                yield member
        file.longest_read = None
        # tarfile takes any invalid header but the first for the end.
        file.seek(tar.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("a header makes no sense")
        yield None
        while rest := file.read(_AT_A_TIME):
            if any(rest):
                raise tarfile.ReadError(
                    "it goes on after its end, like tars that were joined or partly zeroed"
                )


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> TarMember | Problem | None:
    """Return a picture or caption, a problem if the member is not read, or None if it is unrelated."""
    name = info.name.lstrip("/")
    parts, lower = FileName.of(name), name.lower()
    is_caption, is_archive = parts.ending.lower() in CAPTION_ENDINGS, lower.endswith((*TARS, *OTHER_ARCHIVES))
    if info.isdir():
        return None
    if not info.isreg():
        if parts.is_hidden or not (is_caption or looks_like_picture(parts.ending)):
            return None
        if info.islnk() or info.issym():
            reason = (
                f"a link in the tar, to {info.linkname}: pack files (tar --dereference --hard-dereference)"
            )
            return passed_over(name, reason)
        return passed_over(name, "a pipe or a device, no file")
    if not _mend_map(info):
        is_ours = not parts.is_hidden and (is_caption or looks_like_picture(parts.ending))
        reason = "the map of a sparse member makes no sense: pack it without holes"
        return Problem(where=name, kind="damaged", reason=reason) if is_ours else None
    content = tar.extractfile(info)
    assert content is not None  # a regular file has content
    head = b""

    def first_bytes() -> bytes:
        nonlocal head
        head = content.read(HEAD_BYTES)
        return head

    if parts.is_hidden:
        is_picture = verdict_on("", first_bytes) == "picture"
        return passed_over(name, "a hidden picture: its name begins with a dot") if is_picture else None
    if is_archive:
        return passed_over(
            name, "an archive inside the tar is not read: unpack the tar, and give what was in it"
        )
    if lower.rpartition("/")[2] == METADATA:
        return passed_over(name, "read in a folder only: unpack the tar, and give the folder")
    verdict = "nothing" if is_caption else verdict_on(parts.ending, first_bytes)
    if not is_caption and verdict == "nothing":
        return None
    if not is_caption and verdict != "picture":
        return passed_over(name, verdict)
    if (holes := _too_sparse(info)) is not None:
        return passed_over(name, holes)

    most = MAX_RECORD_BYTES if is_caption else MAX_MEMBER_BYTES

    def read() -> bytes | None:
        return head + content.read() if info.size <= most else None

    return TarMember(name=name, is_picture=not is_caption, end=info.offset_data + info.size, read=read)


def _mend_map(info: tarfile.TarInfo) -> bool:
    """Remove the empty blocks, GNU tar's padding, from a sparse member's map, and return whether the rest is valid."""
    if not info.issparse():
        return True
    fields: Any = info
    fields.sparse = [(start, size) for start, size in fields.sparse if size]
    end = 0
    for start, size in fields.sparse:
        if start < end or size < 0 or start + size > info.size:
            return False
        end = start + size
    return True


def _too_sparse(info: tarfile.TarInfo) -> str | None:
    """Return a message if a sparse member consists nearly only of holes, else None."""
    if not info.issparse():
        return None
    fields: Any = info
    stored = sum(size for _, size in fields.sparse)
    if info.size <= MAX_HEADER_BYTES + MAX_SPARSE_RATIO * stored:
        return None
    return f"claims {info.size:,} bytes and has {stored:,}, the rest are holes: no picture or text is so"
