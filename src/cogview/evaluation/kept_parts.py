"""Work in parts that outlives its process: each part is an array in a file of its own, written whole or not at all."""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from cogview.data.ranks import Ranks
from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_bytes, atomic_write_json, read_bounded, regular_file
from cogview.plain_json import parse_json

REQUEST = "request.json"


def begin_or_go_on(folder: Path, request: Mapping[str, Any]) -> None:
    """Make a folder for some work, or make sure that what it holds was begun for the same.

    Several processes may do so at once.

    Args:
        folder: of the work.
        request: all that the work depends on, as plain data.

    Raises:
        UsageError: the folder holds something else, or work on another request.
        CogViewError: the request that is kept cannot be read.
    """
    wanted = json.loads(json.dumps(request))
    path = folder / REQUEST
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another folder with --out")
    if not path.exists():
        if (
            folder.exists()
            and any(not each.name.startswith(".") for each in folder.iterdir() if each != path)
            and not path.exists()
        ):  # another process that began just now may be further already
            raise UsageError(f"{folder} holds something else than an evaluation: choose another with --out")
        atomic_write_json(path, wanted)
    try:
        kept = dict(parse_json(read_bounded(path)))
    except (OSError, ValueError, TypeError) as error:
        raise CogViewError(f"{path} is damaged ({error}): delete {folder} to start afresh") from error
    differing = [
        f"{name} was {kept.get(name)}, now {wanted.get(name)}"
        for name in wanted | kept
        if kept.get(name) != wanted.get(name)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds work that was begun with something else: {'; '.join(differing)}. Ask for the same again "
            "to go on, or choose another folder with --out"
        )


@dataclass(frozen=True, kw_only=True)
class KeptParts:
    """The parts of some work, dealt out in turn to the processes that share it.

    Args:
        folder: where the files lie.
        num_items: things that the work is about; each is a row of a part's array.
        items_per_part: things in a part; the last may have fewer.
    """

    folder: Path
    num_items: int
    items_per_part: int

    @property
    def num_parts(self) -> int:
        """How many parts there are."""
        return -(-self.num_items // self.items_per_part)

    def items(self, part: int) -> range:
        """Return the things that a part is about."""
        first = part * self.items_per_part
        return range(first, min(first + self.items_per_part, self.num_items))

    def lacking(self, ranks: Ranks | None = None) -> list[int]:
        """Return the parts that are not there yet, of a process or of all."""
        return [
            part
            for part in range(self.num_parts)
            if (ranks is None or ranks.takes(part)) and not self._path(part).is_file()
        ]

    def write(self, part: int, rows: Shaped[np.ndarray, "_ ..."]) -> None:
        """Keep a part.

        Raises:
            CogViewError: it cannot be written.
        """
        assert len(rows) == len(self.items(part)), "a part has a row for each of its things"
        data = io.BytesIO()
        np.save(data, rows, allow_pickle=False)
        try:
            atomic_write_bytes(self._path(part), data.getvalue())
        except OSError as error:
            raise CogViewError(
                f"{self._path(part)} cannot be written ({error.strerror}): make room or give access; what is there "
                "already is kept, and the same command goes on"
            ) from error

    def read(self, part: int) -> Shaped[np.ndarray, "_ ..."]:
        """Return a part that is there.

        Raises:
            CogViewError: its file is damaged.
        """
        path = self._path(part)
        try:
            rows = np.load(regular_file(path), allow_pickle=False)
            if len(rows) != len(self.items(part)):
                raise ValueError(f"{len(rows)} rows, wanted {len(self.items(part))}")
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise CogViewError(
                f"{path} is damaged ({error}): delete it and give the same command again"
            ) from error
        return np.asarray(rows)

    def read_all(self) -> Shaped[np.ndarray, "_ ..."]:
        """Return the rows of all parts, all of which are there."""
        return np.concatenate([self.read(part) for part in range(self.num_parts)])

    def await_all(self, waiting: Callable[[int], None], seconds_between: float = 1.0) -> None:
        """Return when all parts are there, which other processes may be at.

        Args:
            waiting: called with the number of parts that are not.
            seconds_between: looks.
        """
        while lacking := self.lacking():
            waiting(len(lacking))
            time.sleep(seconds_between)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.npy"
