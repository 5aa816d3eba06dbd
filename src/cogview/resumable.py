"""Resumable work in shards, shared by several processes."""

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cogview.errors import CogViewError, UsageError
from cogview.files import SharedLock, atomic_write_bytes, atomic_write_json, read_bounded
from cogview.folders import temporary_folder
from cogview.plain_json import parse_json

SETTINGS = "request.json"
_ATTEMPTS = 100  # at joining work that others may be removing


class ResumableWork:
    """A folder of shards, with the settings they are made with in `request.json`.

    A shard is a file that is written atomically, so it is done if it exists. If the shards become another folder, each
    process holds a lock until it closes the work, and the last one calls `finish`.

    Args:
        folder: of the work; made if missing.
        settings: all that the shards depend on, as plain data.
        said_of: messages for settings that differ, instead of their values, by name (`object.name` if nested); None for
            those that may differ.
        becomes: the folder that the shards become at the end; None if they stay.

    Raises:
        UsageError: the folder holds something else, or work with other settings.
        CogViewError: the folder cannot be written, or its settings cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        said_of: Mapping[str, str | None] | None = None,
        becomes: Path | None = None,
    ) -> None:
        self.folder, self._becomes = folder, becomes
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._lock: SharedLock | None = None
        try:
            self._begin() if becomes is None else self._join()
            self._refuse_other_settings(said_of or {})
        except OSError as error:
            raise CogViewError(
                f"{folder} cannot be written ({error.strerror}): give another with --out"
            ) from error
        except CogViewError:
            self.close()
            raise

    def is_done(self, shard: str) -> bool:
        """Return whether a shard exists, by file name in the folder."""
        return (self.folder / shard).is_file()

    def write(self, shard: str, data: bytes) -> None:
        """Write a shard, by file name in the folder.

        Raises:
            CogViewError: it cannot be written.
        """
        path = self.folder / shard
        try:
            atomic_write_bytes(path, data)
        except OSError as error:
            raise CogViewError(
                f"{path} cannot be written ({error.strerror}): free space or give access; finished work is "
                "kept, and the same command goes on"
            ) from error

    def refusal(self, differing: str) -> UsageError:
        """Return the error for work that was begun with other settings."""
        return UsageError(
            f"{self.folder} holds work that was begun with something else: {differing}. Give the same settings to "
            "resume, delete it to start afresh, or choose another folder with --out"
        )

    def is_left_alone(self) -> bool:
        """Return whether no other process works here, or will before this one ends."""
        return self._lock is not None and self._lock.try_alone() and self._lock.is_current()

    def finish(self, made: Path) -> None:
        """Move the finished folder of shards to its place, and remove the rest of the work.

        Raises:
            CogViewError: the place was filled meanwhile.
        """
        out = self._becomes
        assert out is not None
        if out.exists():
            try:
                out.rmdir()  # fails unless empty
            except OSError as error:
                raise CogViewError(
                    f"{out} was filled meanwhile and stays as it is: move it away and run the same command again; "
                    "finished work is kept."
                ) from error
        made.replace(out)
        self.discard()

    def discard(self) -> None:
        """Remove the work, unless other processes are at it."""
        if self.is_left_alone():
            # Renamed first, so that a folder of this name is always whole.
            with temporary_folder(self.folder) as away:
                self.folder.replace(away / self.folder.name)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    def _join(self) -> None:
        """Begin or resume the work and lock it, while a finishing process may be removing it."""
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                self._begin()
                (self.folder / "lock").touch()
                lock = SharedLock(self.folder / "lock")
                if lock.is_current():
                    self._lock = lock
                    return
                lock.close()
        raise CogViewError(f"{self.folder} keeps being removed: wait for the other processes to end")

    def _begin(self) -> None:
        """Write the settings unless they exist; of processes that begin at once, one does."""
        path = self.folder / SETTINGS
        if path.exists():
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file: choose another folder with --out")
        others = self.folder.iterdir() if self.folder.exists() else ()
        # Another process may have begun just now.
        if any(each != path and each.name[0] != "." for each in others) and not path.exists():
            raise UsageError(f"{self.folder} holds something else: choose another folder with --out")
        own = path.with_name(f".{SETTINGS}.{uuid.uuid4().hex[:8]}")
        try:
            atomic_write_json(own, self.settings)
            os.link(own, path)
        except FileExistsError:
            pass
        except OSError:  # some file systems have no links
            own.replace(path)
        finally:
            own.unlink(missing_ok=True)

    def _refuse_other_settings(self, said_of: Mapping[str, str | None]) -> None:
        path = self.folder / SETTINGS
        try:
            kept, wanted = _flat(parse_json(read_bounded(path))), _flat(self.settings)
            if not kept.keys() & wanted.keys():
                raise ValueError("it holds other things")
        except (OSError, ValueError, TypeError) as error:
            raise CogViewError(
                f"{path} is damaged ({error}): delete {self.folder} to start afresh"
            ) from error
        names = [name for name in wanted | kept if kept.get(name) != wanted.get(name)]
        names = [name for name in names if name in ("format", "version")] or names
        differing = dict.fromkeys(
            said_of.get(name, f"{name.rpartition('.')[2]} was {kept.get(name)}, now {wanted.get(name)}")
            for name in names
        )
        if messages := [message for message in differing if message]:
            raise self.refusal("; ".join(messages))


def _flat(settings: Any) -> dict[str, Any]:
    """Flatten settings one level, to names `object.name`."""
    flat: dict[str, Any] = {}
    for name, value in dict(settings).items():
        flat |= (
            {f"{name}.{key}": each for key, each in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return flat
