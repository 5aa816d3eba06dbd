"""Files that are written whole or not at all."""

import dataclasses
import glob
import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_args, get_type_hints

from cogview.errors import CogViewError, UsageError

Made = TypeVar("Made")


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Args:
        path: the file; its folder is made if missing.
        data: the whole content.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write that takes the place of `path` when the block ends without an error.

    Args:
        path: the file; its folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files private; ours are ordinary files
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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CogViewError(
            f"{path} cannot be read as JSON ({error}): copy or export the {what} again."
        ) from error


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # A file name that is not UTF-8 has half surrogates in Python; JSON's escape for them is Python's.
    atomic_write_bytes(path, text.encode(errors="backslashreplace"))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends without an error.

    It lies hidden beside `path`. A process that is killed leaves it behind, and the next that makes `path` removes it.

    Args:
        path: the folder to make or to replace; of a link, what it points to.

    Raises:
        CogViewError: a disk is mounted there, which cannot be replaced.
    """
    path = path.resolve()
    refuse_mount(path)
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
            if path.exists():  # two renames, since a folder with content cannot be replaced by one
                path.replace(workplace / "old")
            new.replace(path)
        finally:
            _remove_workplace(workplace, path)


def dataclass_from_json(cls: type[Made], values: Mapping[str, Any], **more: Any) -> Made:
    """Return a dataclass of what a JSON file says of its fields, lists as tuples again.

    A file may say anything, so numbers and their kinds are checked here; what they may be is the class's to check.

    Args:
        cls: its fields are numbers, strings, tuples of numbers, dataclasses of such, or given by `more`.
        values: by the names of the fields.
        more: further fields.

    Raises:
        TypeError: a field is missing, unknown, of another type, or a number that is infinite or NaN.
    """
    hints = get_type_hints(cls)
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in made.items():
        if dataclasses.is_dataclass(inner := hints.get(name)):
            if not (isinstance(inner, type) and isinstance(value, Mapping)):
                raise TypeError(f"{name} is {value!r}, which is no section of its own")
            made[name] = dataclass_from_json(inner, value)
    for name, value in made.items():
        wanted = get_args(hints.get(name)) if isinstance(value, tuple) else (hints.get(name),)
        for each in value if isinstance(value, tuple) else (value,):
            is_number = isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
            if (int in wanted and not (is_number and isinstance(each, int))) or (
                float in wanted and not is_number
            ):
                raise TypeError(f"{name} is {each!r}, which is no number of its kind")
            if wanted == (bool,) and not isinstance(each, bool):
                raise TypeError(f"{name} is {each!r}, wanted true or false")
    return cls(**made, **more)


def section_from_json(
    cls: type[Made], config: Mapping[str, Any], section: str, source: Path, **more: Any
) -> Made:
    """Return a dataclass of one section of a JSON file.

    Args:
        cls: as `dataclass_from_json` takes it.
        config: the content of the file.
        section: its name in there.
        source: the file, for the message.
        more: further fields.

    Raises:
        CogViewError: the section is missing or not valid.
    """
    try:
        return dataclass_from_json(cls, config[section], **more)
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(
            f"{source} has no valid section '{section}' ({error}): export the model again."
        ) from error


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


def may_be_replaced(folder: Path, read_config: Callable[[Path], object], names: Collection[str]) -> bool:
    """Return whether a folder is empty or of a kind, and holds nothing else: nothing else is ever deleted.

    Args:
        folder: a path that exists.
        read_config: raises `CogViewError` for a folder that is not of that kind.
        names: of all that a folder of that kind holds.
    """
    if not folder.is_dir():
        return False
    if any(entry.name not in names for entry in folder.iterdir()):
        return False
    if not any(folder.iterdir()):
        return True
    try:
        read_config(folder)
    except CogViewError:
        return False
    return True


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


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed, and return False if another process holds it.

    Where files cannot be locked, everyone gets it.
    """
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


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
