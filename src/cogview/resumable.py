"""Work in shards that a kill does not undo, and that several processes may share."""

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
_ATTEMPTS = 100  # to join work that others may be removing


class ResumableWork:
    """A folder of shards, and in `request.json` the settings that they are made with.

    A shard is a file that is written whole or not at all, so it is done if it is there. Where the shards are to become
    another folder, each process holds a lock until it closes the work, and the last calls `finish`.

    Args:
        folder: of the work; made if missing.
        settings: all that the shards depend on, as plain data.
        said_of: what is said of a setting that differs, in place of its values: by its name, `object.name` if it lies
            in an object; None if it may differ.
        becomes: the folder that the shards become, when that of the work goes; None if they stay where they are.

    Raises:
        UsageError: the folder holds something else, or work that was begun with other settings.
        CogViewError: the folder cannot be written, or the settings that it keeps cannot be read.
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
        """Return whether a shard is there, under the name of its file below the folder."""
        return (self.folder / shard).is_file()

    def write(self, shard: str, data: bytes) -> None:
        """Keep a shard, under the name of its file below the folder.

        Raises:
            CogViewError: it cannot be written.
        """
        path = self.folder / shard
        try:
            atomic_write_bytes(path, data)
        except OSError as error:
            raise CogViewError(
                f"{path} cannot be written ({error.strerror}): make room or give access; what is there already is "
                "kept, and the same command goes on"
            ) from error

    def refusal(self, differing: str) -> UsageError:
        """Return the error for work that cannot go on, since something is not as it was."""
        return UsageError(
            f"{self.folder} holds work that was begun with something else: {differing}. Ask for the same again to go "
            "on, delete it to start afresh, or choose another folder with --out"
        )

    def is_left_alone(self) -> bool:
        """Return whether nobody else is at work, nor will be before this process ends."""
        return self._lock is not None and self._lock.try_alone() and self._lock.is_current()

    def finish(self, made: Path) -> None:
        """Let a folder of shards take its place, and remove the rest of the work.

        Raises:
            CogViewError: something was put there meanwhile.
        """
        out = self._becomes
        assert out is not None
        if out.exists():
            try:
                out.rmdir()  # it was empty
            except OSError as error:
                raise CogViewError(
                    f"{out} was filled meanwhile, so it stays as it is: move it away and run the same command again, "
                    "what is done is kept."
                ) from error
        made.replace(out)
        self.discard()

    def discard(self) -> None:
        """Remove the work, unless somebody else is at it."""
        if self.is_left_alone():
            # Renamed first: what lies under the name of the work is always whole.
            with temporary_folder(self.folder) as away:
                self.folder.replace(away / self.folder.name)

    def close(self) -> None:
        """Let others finish."""
        if self._lock is not None:
            self._lock.close()

    def _join(self) -> None:
        """Begin the work or go on, and hold its lock; who finishes may be removing it."""
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                self._begin()
                (self.folder / "lock").touch()
                lock = SharedLock(self.folder / "lock")
                if lock.is_current():
                    self._lock = lock
                    return
                lock.close()
        raise CogViewError(f"{self.folder} is removed again and again: wait for the processes at work on it")

    def _begin(self) -> None:
        """Write the settings, unless they are there; of processes that begin at once, one does."""
        path = self.folder / SETTINGS
        if path.exists():
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file: choose another folder with --out")
        others = self.folder.iterdir() if self.folder.exists() else ()
        # Another process that began just now may be further already.
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
        if told := [each for each in differing if each]:
            raise self.refusal("; ".join(told))


def _flat(settings: Any) -> dict[str, Any]:
    """Return settings by name, those of an object with its name before theirs."""
    flat: dict[str, Any] = {}
    for name, value in dict(settings).items():
        flat |= (
            {f"{name}.{key}": each for key, each in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return flat
