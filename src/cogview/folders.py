"""Folders that are made whole or not at all, and what may take the place of what."""

import fnmatch
import glob
import hashlib
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cogview.errors import CogViewError, UsageError
from cogview.files import unused_path


@contextmanager
def atomic_folder(path: Path, refuse: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends without an error.

    It lies hidden beside `path`. A process that is killed leaves it behind, and the next that makes `path` removes it.
    What was put there while it was made is kept, and the new files lie beside it; if one of their names is taken, the
    new folder gets another name.

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
    remove_leftovers(path)
    with _locked_folder(path.parent, _workplace_prefix(path)) as workplace:
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


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a folder for the work on a file, hidden beside it; what killed processes left of theirs is removed.

    Args:
        path: the file to be, or the beginning of its name.
    """
    remove_leftovers(path)
    with _locked_folder(path.parent, _workplace_prefix(path)) as workplace:
        try:
            yield workplace
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


def _workplace_prefix(path: Path) -> str:
    """Return how the names of workplaces for a path begin.

    Only this machine's own: locks of processes elsewhere are not seen on every shared disk.
    """
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f".{path.name}.unfinished-{machine}-"


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


def is_part(path: Path, what: str) -> bool:
    """Return whether something in a folder of parts is one, whole or not; of another folder, warn.

    Args:
        path: a file or folder; hidden ones and files are nobody's business.
        what: such a part is.
    """
    if not path.is_dir() or path.name.startswith("."):
        return False
    if any((path / name).exists() for name in ("config.json", "model.safetensors")):
        return True
    warnings.warn(f"{path} holds no {what}, it has no config.json: it is passed over", stacklevel=3)
    return False


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


def remove_leftovers(path: Path) -> None:
    """Remove the workplaces for `path` whose processes are gone; who still works holds a lock on its own."""
    for workplace in list(path.parent.glob(f"{glob.escape(_workplace_prefix(path))}*")):
        try:
            lock = _lock(workplace)
        except OSError:
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
        except OSError:
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
        OSError: this system has no locks, or not for folders.
    """
    from filelock import lock_descriptor

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise BlockingIOError
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
