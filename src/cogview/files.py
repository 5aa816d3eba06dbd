"""Atomic writes, bounded reads and locks of files."""

import codecs
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cogview.errors import CogViewError
from cogview.plain_json import MAX_BYTES, parse_json

CONVERT_FIRST = "convert another project's checkpoint first, with cogview convert"


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Args:
        path: the file; its folder is made if missing.
        data: the whole content.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, existing: Literal["replace", "refuse"] = "replace") -> Iterator[BinaryIO]:
    """Yield a file to write that replaces `path` when the block ends without an error.

    Args:
        path: the file; its folder is made if missing.
        existing: whether a file there is replaced; with "refuse", the new file is kept under another name.

    Raises:
        CogViewError: a file exists and must not be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's files are private
        if existing == "refuse" and path.exists():
            kept = unused_path(path)
            Path(temporary).replace(kept)
            raise CogViewError(f"{path} was created meanwhile and stays: the new file is {kept}.")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unused_path(path: Path) -> Path:
    """Return the path, with a number appended if it exists."""
    number, candidate = 1, path
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    atomic_write_bytes(path, text.encode())


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        what: the object that the file belongs to, for the message.

    Raises:
        CogViewError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_bounded(path))
    except (OSError, ValueError) as error:
        raise CogViewError(
            f"{path} cannot be read as JSON ({error}): copy or export the {what} again."
        ) from error


def regular_file(path: Path) -> Path:
    """Return a path to open, if it is a regular file: a pipe could block, and a device has no end.

    Raises:
        OSError: it is no regular file, or missing.
        ValueError: no file can have this name.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, no file", str(path))
    return path


def read_bounded(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a small file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is longer than `max_bytes`.
    """
    with regular_file(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data


def read_versioned(folder: Path, what: str, known_format: str, known_version: int) -> dict[str, Any]:
    """Return the content of a folder's `config.json` after checking its format and version.

    Args:
        folder: written by this program.
        what: the expected object, with its article: "an image tokenizer".
        known_format: required format.
        known_version: required version.

    Raises:
        CogViewError: it is missing, damaged, of another format or version.
    """
    path = folder / "config.json"
    try:
        content = parse_json(read_bounded(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        name = what.partition(" ")[2]
        if folder.is_file():
            raise CogViewError(f"{folder} is a file, not the folder of {what}: {CONVERT_FIRST}") from error
        raise CogViewError(f"{folder}: no {name} there (config.json is missing); check the path") from error
    except (OSError, ValueError) as error:
        raise CogViewError(f"{path}: cannot be read ({error}); copy the folder again") from error
    if not isinstance(content, dict) or content.get("format") != known_format:
        raise CogViewError(f'{path}: not {what} (its "format" is not "{known_format}"); check the path')
    if content.get("version") != known_version:
        raise CogViewError(
            f"{path}: version {content.get('version')}, this program reads version {known_version}; "
            "use the program that wrote it or one of the same version"
        )
    return content


def read_card(path: Path) -> str:
    """Return the text of a model card, "" if there is none.

    A card affects nothing, so other encodings are accepted: UTF-16 with a byte order mark, else Windows-1252.

    Raises:
        CogViewError: it cannot be read.
    """
    if not path.exists():
        return ""
    try:
        data = read_bounded(path)
    except (OSError, ValueError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): put another card there, or none.") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def atomic_write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # File names that are not UTF-8 hold lone surrogates, which JSON escapes as Python does.
    atomic_write_bytes(path, text.encode(errors="backslashreplace"))


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; return False if another process holds the lock.

    The system releases the lock of a process that ends in any way. Where files cannot be locked, everyone gets the
    lock.

    Args:
        descriptor: of the file; on Windows others cannot read its first byte while it is locked.
    """
    from filelock import lock_descriptor  # imported here, to keep --help fast

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:
        return True


class SharedLock:
    """A lock on a file, shared by several processes or held by one alone.

    Where files cannot be locked, everyone gets it at once. Filelock's read-write lock is an SQLite database: it
    recreates a missing file, and cannot tell whether the file still has its path.

    Args:
        path: a file.

    Raises:
        FileNotFoundError: it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_current(self) -> bool:
        """Return whether the file still has its path: an exclusive holder may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def try_alone(self) -> bool:
        """Release the shared lock, and try to get an exclusive one; the last process to release succeeds."""
        from filelock import unlock_descriptor

        with suppress(OSError):
            unlock_descriptor(self._descriptor)
        return try_lock(self._descriptor)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _umask() -> int:
    """Return the permissions that new files lack; it can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
