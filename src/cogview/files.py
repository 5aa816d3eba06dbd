"""Files that are written whole or not at all."""

import codecs
import fnmatch
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from cogview.errors import CogViewError, UsageError
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


def read_bounded(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file that has to be a small one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file (a pipe may never end), or longer than `max_bytes`.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data


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


@contextmanager
def atomic_folder(path: Path, refuse: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends without an error.

    It lies hidden beside `path`. A process that is killed leaves it behind, and the next that makes `path` removes it.
    What was put there while it was made is kept, and the new files lie beside it; if a name is taken, the new folder
    gets another name.

    Args:
        path: the folder to make or to replace; of a link, what it points to.
        refuse: raises `CogViewError` for a folder that must not be replaced: by default one with anything in it. It is
            asked before the work, and again after it, since much may have been put there meanwhile.

    Raises:
        CogViewError: what lies there must not be replaced, before or after the work; or a disk is mounted there, which
            cannot be replaced.
    """
    path, refuse = path.resolve(), refuse or refuse_taken
    refuse_mount(path)
    if path.exists():
        refuse(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only this machine's own: locks of processes elsewhere are not seen on every shared disk.
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    prefix = f".{path.name}.unfinished-{machine}-"
    _remove_leftovers(path, prefix)
    with _locked_folder(path.parent, prefix) as workplace:
        try:
            new = workplace / "new"
            new.mkdir()
            yield new
            if path.exists() and not _may_be_replaced(path, refuse):
                _put_beside(new, path)
                return
            if path.exists():  # two renames, since a folder with content cannot be replaced by one
                path.replace(workplace / "old")
            new.replace(path)
        finally:
            _remove_workplace(workplace, path)


def _may_be_replaced(path: Path, refuse: Callable[[Path], object]) -> bool:
    try:
        refuse(path)
    except CogViewError:
        return False
    return True


def _put_beside(new: Path, path: Path) -> None:
    """Put what is in a new folder beside what was put into `path` meanwhile, or else the whole folder beside `path`.

    Raises:
        CogViewError: something has a name of the new folder's, so all of that is kept elsewhere.
    """
    taken = not path.is_dir() or any((path / each.name).exists() for each in new.iterdir())
    if not taken:
        for each in list(new.iterdir()):
            each.replace(path / each.name)
        return
    kept = unused_path(path)
    new.replace(kept)
    raise CogViewError(f"{path} was filled meanwhile, so it stays as it is, and what was made is {kept}.")


def unused_path(path: Path) -> Path:
    """Return the path, with a number behind it if something lies there already."""
    number, candidate = 1, path
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def refuse_taken(path: Path) -> None:
    """Refuse a path where there is anything but an empty folder.

    Raises:
        UsageError: there is.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists and isn't an empty folder: choose another path.")


def refuse_mount(path: Path) -> None:
    """Refuse a path that no folder can be renamed to.

    Raises:
        CogViewError: a disk is mounted there.
    """
    if os.path.ismount(path):  # Path.is_mount does not exist on Windows before Python 3.12
        raise CogViewError(
            f"{path} is where a disk is mounted and cannot be replaced: choose a folder in it."
        )


def refuse_unlike(
    folder: Path, read_config: Callable[[Path], object], files: Collection[str], what: str
) -> None:
    """Refuse to replace anything but a folder of a kind that holds nothing else: nothing else is ever deleted.

    Args:
        folder: a path that exists; an empty folder may be replaced.
        read_config: raises `CogViewError` for a folder that is not of that kind.
        files: all that a folder of that kind may hold: paths below it, with * for the name of a file or folder.
        what: the kind.

    Raises:
        CogViewError: naming what is in the way.
    """
    other = _first_unlike(folder, files) if folder.is_dir() else None
    if other is not None:
        raise CogViewError(
            f"{folder} holds {other}, which is not of {what}, so it is not replaced: choose another path, or take "
            "that out first."
        )
    if folder.is_dir() and not any(folder.iterdir()):
        return
    try:
        if not folder.is_dir():
            raise CogViewError(f"{folder} is no folder")
        read_config(folder)
    except CogViewError as error:
        raise CogViewError(
            f"{folder} exists and is not {what}, so it is not replaced: choose another path."
        ) from error


def _first_unlike(folder: Path, files: Collection[str]) -> str | None:
    """Return the first thing in a folder, at any depth, that is neither one of `files` nor a folder for some."""
    allowed = [PurePosixPath(each).parts for each in files]
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_folder = path.is_dir() and not path.is_symlink()
        for wanted in allowed:
            fits = all(fnmatch.fnmatchcase(*pair) for pair in zip(parts, wanted, strict=False))
            if fits and (len(parts) < len(wanted) if is_folder else len(parts) == len(wanted)):
                break
        else:
            return path.relative_to(folder).as_posix()
    return None


def _remove_leftovers(path: Path, prefix: str) -> None:
    """Remove the workplaces for `path` whose processes are gone; who still works holds a lock on its own."""
    for workplace in list(path.parent.glob(f"{glob.escape(prefix)}*")):
        try:
            lock = _lock(workplace)
        except (ImportError, OSError):
            continue
        try:
            _remove_workplace(workplace, path)
        finally:
            os.close(lock)


def _remove_workplace(workplace: Path, path: Path) -> None:
    """Remove a workplace, after putting back the old folder if nothing has taken its place."""
    old = workplace / "old"
    if old.exists() and not path.exists():
        old.replace(path)
    elif old.exists() and (workplace / "new").exists():
        return  # a kill came between the renames, and somebody has put something else there: the old one is theirs
    shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder and hold a lock on it; where folders cannot be locked, nobody takes it for a leftover either."""
    lock = None
    while lock is None:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process saw it before it was locked, and took it for a leftover
        except (ImportError, OSError):
            break
        if not folder.exists():  # likewise, and was faster
            os.close(lock)
            lock = None
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder until the descriptor is closed, which the system does however the process ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: this file system has no locks, or not for folders.
        ImportError: this operating system has none.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class SharedLock:
    """A lock on a file that many processes hold together, and that one of them can hold once the others let go.

    The system lets go for a process that ends, however it ends. Where files cannot be locked, everyone gets it at once.

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
        try:
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except (ImportError, OSError):
            pass
        return True

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)


def _umask() -> int:
    """Return which permissions new files lack; it can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
