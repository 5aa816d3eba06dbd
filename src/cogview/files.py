"""Files that are written whole or not at all."""

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


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Args:
        path: the file; its folder is made if missing.
        data: the whole content.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, existing: Literal["replace", "refuse"] = "replace") -> Iterator[BinaryIO]:
    """Yield a file to write that takes the place of `path` when the block ends without an error.

    Args:
        path: the file; its folder is made if missing.
        existing: what happens to a file that lies there by then; beside one that is not replaced, the new one is kept.

    Raises:
        CogViewError: a file lies there and is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files private; ours are ordinary files
        if existing == "refuse" and path.exists():
            kept = unused_path(path)
            Path(temporary).replace(kept)
            raise CogViewError(f"{path} was put there meanwhile and stays; what was made is {kept}.")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unused_path(path: Path) -> Path:
    """Return the path, with a number behind it if something lies there already."""
    number, candidate = 1, path
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    atomic_write_bytes(path, text.encode())


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        what: the thing whose file it is, which would have to be copied or exported again.

    Raises:
        CogViewError: it cannot be read, or holds something else.
    """
    try:
        return parse_json(read_bounded(path))
    except (OSError, ValueError) as error:
        raise CogViewError(
            f"{path} cannot be read as JSON ({error}): copy or export the {what} again."
        ) from error


def regular_file(path: Path) -> Path:
    """Return the path of a file to be opened: a pipe may keep its reader waiting for ever, and a device has no end.

    Raises:
        OSError: it is one of these, or not there.
        ValueError: it is a name that no file can have.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, no file", str(path))
    return path


def read_bounded(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file that has to be a small one.

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
        folder: of something that is ours.
        what: it should be, with its article: "an image tokenizer".
        known_format: that the file has to name.
        known_version: likewise.

    Raises:
        CogViewError: it is missing, damaged, something else, or of another version.
    """
    path = folder / "config.json"
    try:
        content = parse_json(read_bounded(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        name = what.partition(" ")[2]
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

    A card is for people and decides nothing, so another encoding than UTF-8 does not keep a model from being loaded:
    UTF-16 is known by its byte order mark, and anything else is taken for Windows' Western European.

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
    """Write `value` to `path` as indented JSON, whole or not at all."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # A file name that is not UTF-8 has half surrogates in Python; JSON's escape for them is Python's.
    atomic_write_bytes(path, text.encode(errors="backslashreplace"))


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, and return False if another process holds it.

    The system lets go for a process that ends, however it ends. Where files cannot be locked, everyone gets it.

    Args:
        descriptor: of the file; on Windows nobody else can read its first byte meanwhile.
    """
    from filelock import lock_descriptor  # here, since help answers at once

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:
        return True


class SharedLock:
    """A lock on a file that many processes hold together, and that one of them can hold once the others let go.

    Where files cannot be locked, everyone gets it at once. Not filelock's lock of many readers: that is a database of
    SQLite, which makes a missing file anew and does not tell whether the file has its path still.

    Args:
        path: a file.

    Raises:
        FileNotFoundError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_current(self) -> bool:
        """Return whether the file has its path still: who held the lock alone may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def try_alone(self) -> bool:
        """Let go, and hold the lock alone if nobody else holds it: of those who let go, the last succeeds."""
        from filelock import unlock_descriptor

        with suppress(OSError):
            unlock_descriptor(self._descriptor)
        return try_lock(self._descriptor)

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)


def _umask() -> int:
    """Return which permissions new files lack; it can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
