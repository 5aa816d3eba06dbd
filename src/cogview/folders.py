"""Atomic creation and replacement of folders."""

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
    """Yield a temporary folder that replaces `path` when the block ends without an error.

    It is hidden beside `path`. After a kill, the next process that makes `path` removes it. If something was put into
    `path` meanwhile, the new files are added to it, or the new folder gets another name if file names clash.

    Args:
        path: the folder to make or to replace; of a link, its target.
        refuse: raises `CogViewError` for a folder that must not be replaced, by default a non-empty one; called before
            and after the block, since the folder may have changed.

    Raises:
        CogViewError: the folder must not be replaced, or is a mount point.
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
            if path.exists():  # two renames, since one cannot replace a non-empty folder
                path.replace(workplace / "old")
            new.replace(path)
        finally:
            _remove_workplace(workplace, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary folder beside a file; those of killed processes are removed.

    Args:
        path: the future file, or the beginning of its name.
    """
    remove_leftovers(path)
    with _locked_folder(path.parent, _workplace_prefix(path)) as workplace:
        try:
            yield workplace
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


def _workplace_prefix(path: Path) -> str:
    """Return the prefix of temporary folders for a path.

    It names this machine, since some shared disks do not show locks of other machines.
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
    """Move a new folder's content into `path`, filled meanwhile, or else the folder beside it.

    Raises:
        CogViewError: names clash, so the new folder is kept elsewhere.
    """
    taken = not path.is_dir() or any((path / each.name).exists() for each in new.iterdir())
    if not taken:
        for each in list(new.iterdir()):
            each.replace(path / each.name)
        return
    kept = unused_path(path)
    new.replace(kept)
    raise CogViewError(f"{path} was filled meanwhile, so it stays as it is: the new folder is {kept}.")


def refuse_taken(path: Path) -> None:
    """Refuse a path unless it is free or an empty folder.

    Raises:
        UsageError: it is not.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists and isn't an empty folder: choose another path.")


def refuse_mount(path: Path) -> None:
    """Refuse a mount point, which no folder can be renamed to.

    Raises:
        CogViewError: a disk is mounted there.
    """
    if os.path.ismount(path):  # Path.is_mount does not exist on Windows before Python 3.12
        raise CogViewError(f"{path} is a mount point and cannot be replaced: choose a folder in it.")


def refuse_unlike(
    folder: Path, read_config: Callable[[Path], object], files: Collection[str], what: str
) -> None:
    """Refuse to replace a folder unless it is of a kind and holds nothing else, so that nothing else is deleted.

    Args:
        folder: an existing path; an empty folder may be replaced.
        read_config: raises `CogViewError` for a folder of another kind.
        files: paths that such a folder may hold, with * for the name of a file or folder.
        what: the kind, for the message.

    Raises:
        CogViewError: something else is in the way.
    """
    other = _first_unlike(folder, files) if folder.is_dir() else None
    if other is not None:
        raise CogViewError(
            f"{folder} holds {other}, which is not part of {what}, so it is not replaced: choose another path, or move "
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
    """Return whether an entry of a folder of parts is one, whole or not; warn of other folders.

    Args:
        path: a file or folder; files and hidden folders are ignored.
        what: the kind of part, for the warning.
    """
    if not path.is_dir() or path.name.startswith("."):
        return False
    if any((path / name).exists() for name in ("config.json", "model.safetensors")):
        return True
    warnings.warn(f"{path} holds no {what}, it has no config.json: it is passed over", stacklevel=3)
    return False


def _first_unlike(folder: Path, files: Collection[str]) -> str | None:
    """Return the first path in a folder, at any depth, that is neither one of `files` nor a parent of some."""
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
    """Remove temporary folders for `path` of ended processes; running ones hold a lock."""
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
    """Remove a temporary folder, after restoring the old folder in it if `path` is missing."""
    old = workplace / "old"
    if old.exists() and not path.exists():
        old.replace(path)
    elif old.exists() and (workplace / "new").exists():
        return  # killed between the renames, and `path` is in use again: keep the old folder
    shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder and lock it; without locks for folders, none is ever taken for a leftover."""
    lock = None
    while lock is None:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process removed it as a leftover before it was locked
        except OSError:
            break
        if not folder.exists():  # likewise
            os.close(lock)
            lock = None
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder until the descriptor is closed, or the process ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the system cannot lock folders.
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
