"""Storage of the page's jobs: SQLite database, pictures as files."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import lock_descriptor
from PIL import Image

from cogview.errors import CogViewError
from cogview.files import atomic_write_bytes
from cogview.image.picture_file import picture_file
from cogview.image.picture_reading import read_image
from cogview.serving.jobs import State
from cogview.serving.messages import DrawJob, Pixels

VERSION = 1
_GIVEN = ("image", "mask")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, number INTEGER UNIQUE, owner TEXT NOT NULL, created REAL NOT NULL, text TEXT NOT NULL,
  work TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL DEFAULT '', accepted TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS jobs_of_owner ON jobs (owner, number);
CREATE TABLE IF NOT EXISTS pictures (
  job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, place INTEGER NOT NULL, seed INTEGER NOT NULL,
  facts TEXT NOT NULL, PRIMARY KEY (job, place)
);
"""


@dataclass(frozen=True, kw_only=True)
class StoredPicture:
    """Stored picture.

    Args:
        place: index among the pictures of its job.
        seed: reproduces it.
        facts: metadata of its file.
    """

    place: int
    seed: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """Stored job.

    Args:
        id: unguessable id.
        number: orders jobs by age.
        owner: who may list and stop it.
        created: seconds since 1970.
        work: the job; `JobStore.load_work` adds its input pictures.
        state: progress.
        message: why it was refused or failed.
        accepted: data of its `Accepted` event.
        pictures: finished pictures.
    """

    id: str
    number: int
    owner: str
    created: float
    work: DrawJob
    state: State
    message: str = ""
    accepted: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[StoredPicture, ...] = ()


class JobStore:
    """Jobs and pictures in a folder. Pictures are complete on disk before their events are sent.

    It may be used by several threads.

    Args:
        folder: made if missing.
        max_jobs: more that are over are forgotten, the oldest of the owners who have the most.

    Raises:
        CogViewError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_jobs: int = 5_000) -> None:
        self._folder = folder
        self._max_jobs = max_jobs
        self._lock = threading.Lock()
        with ExitStack() as held:
            try:
                (folder / "pictures").mkdir(parents=True, exist_ok=True)
                # Two servers would draw each other's jobs, and delete pictures.
                lock = held.enter_context((folder / "lock").open("a"))
                if not lock_descriptor(lock.fileno(), blocking=False):
                    raise CogViewError(f"another server uses {folder}: end it, or give another --data")
                self._database = sqlite3.connect(folder / "jobs.sqlite3", check_same_thread=False)
                held.callback(self._database.close)
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA foreign_keys = ON")
                (version,) = self._database.execute("PRAGMA user_version").fetchone()
                if version not in (0, VERSION):
                    raise CogViewError(f"{folder} is of another version, {version}: give another --data")
                self._database.executescript(_SCHEMA)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
                self._database.commit()
            except (OSError, sqlite3.Error) as error:
                raise CogViewError(f"{folder} cannot hold jobs ({error}): give another --data") from error
            self._held = held.pop_all()

    def close(self) -> None:
        """Let go of the folder."""
        with self._lock:
            self._held.close()

    def add(self, owner: str, work: DrawJob) -> StoredJob:
        """Store a new job."""
        job = StoredJob(
            id=secrets.token_urlsafe(16),
            number=time.time_ns(),
            owner=owner,
            created=time.time(),
            work=work,
            state="waiting",
        )
        folder = self._folder_of(job.id)
        folder.mkdir()
        inputs: dict[str, Any] = {}
        for name in _GIVEN:
            value = getattr(work, name)
            if isinstance(value, Pixels):
                atomic_write_bytes(folder / f"{name}.png", picture_file(value.image()))
                inputs[name] = "file"
            else:
                inputs[name] = value
        plain = asdict(replace(work, image=None, mask=None)) | inputs
        with self._lock, self._database:
            (last,) = self._database.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
            job = replace(job, number=max(job.number, last + 1))
            self._database.execute(
                "INSERT INTO jobs (id, number, owner, created, text, work, state) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.number, owner, job.created, work.text, json.dumps(plain), job.state),
            )
        self._forget_old()
        return replace(job, work=_work(plain))

    def keep(self, job_id: str, picture: StoredPicture, file: bytes) -> None:
        """Store a finished picture; an existing one is replaced by its equal."""
        folder = self._folder_of(job_id)
        if not folder.is_dir():  # the job was deleted
            return
        atomic_write_bytes(folder / f"{picture.place}.png", file)
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO pictures (job, place, seed, facts) "
                "SELECT id, ?, ?, ? FROM jobs WHERE id = ?",
                (picture.place, picture.seed, json.dumps(dict(picture.facts)), job_id),
            )

    def set_accepted(self, job_id: str, accepted: Mapping[str, Any]) -> None:
        """Store the data of a job's `Accepted` event."""
        with self._lock, self._database:
            self._database.execute(
                "UPDATE jobs SET accepted = ? WHERE id = ?", (json.dumps(dict(accepted)), job_id)
            )

    def set_state(self, job_id: str, state: State, message: str = "") -> None:
        """Store a job's state; when it is over, delete its input pictures."""
        with self._lock, self._database:
            self._database.execute(
                "UPDATE jobs SET state = ?, message = ? WHERE id = ?", (state, message, job_id)
            )
        if state not in ("waiting", "drawing"):
            for name in _GIVEN:
                (self._folder_of(job_id) / f"{name}.png").unlink(missing_ok=True)

    def job(self, job_id: str) -> StoredJob | None:
        """Return a job; None if unknown."""
        jobs = self._jobs("WHERE id = ?", (job_id,))
        return jobs[0] if jobs else None

    def unfinished(self) -> list[StoredJob]:
        """Return unfinished jobs, oldest first."""
        return self._jobs("WHERE state IN ('waiting', 'drawing') ORDER BY number", ())

    def history(
        self, owner: str, search: str = "", before: int | None = None, limit: int = 50
    ) -> list[StoredJob]:
        """Return jobs of an owner, newest first.

        Args:
            owner: of the jobs.
            search: words that the text must contain, case-insensitively.
            before: return only jobs with smaller numbers.
            limit: most jobs to return.
        """
        where, values = ["owner = ?"], [owner]
        for word in search.split():
            where.append("text LIKE ? ESCAPE '!'")
            escaped = word.replace("!", "!!").replace("%", "!%").replace("_", "!_")
            values.append(f"%{escaped}%")
        if before is not None:
            where.append("number < ?")
        numbers = () if before is None else (before,)
        clause = f"WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        return self._jobs(clause, (*values, *numbers, limit))

    def delete(self, job_id: str) -> None:
        """Delete a job and its pictures."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        folder = self._folder_of(job_id)
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink(missing_ok=True)
            folder.rmdir()

    def file(self, job_id: str, place: int) -> bytes | None:
        """Return a picture's file; None if unknown."""
        with self._lock:
            row = self._database.execute(
                "SELECT 1 FROM pictures WHERE job = ? AND place = ?", (job_id, place)
            ).fetchone()
        path = self._folder_of(job_id) / f"{place}.png"
        return path.read_bytes() if row and path.is_file() else None

    def load_work(self, job: StoredJob) -> DrawJob:
        """Return a job's work with its input pictures."""
        folder, work = self._folder_of(job.id), job.work
        image = None if work.image is None else Pixels.of(read_image(folder / "image.png"))
        mask = work.mask
        if isinstance(mask, Pixels):
            with Image.open(folder / "mask.png") as opened:
                mask = Pixels.of(opened.convert("L"))
        return replace(work, image=image, mask=mask)

    def _jobs(self, clause: str, values: tuple[Any, ...]) -> list[StoredJob]:
        with self._lock:
            rows = self._database.execute(
                f"SELECT id, number, owner, created, work, state, message, accepted FROM jobs {clause}",
                values,
            ).fetchall()
            pictures = {
                row[0]: self._database.execute(
                    "SELECT place, seed, facts FROM pictures WHERE job = ? ORDER BY place", (row[0],)
                ).fetchall()
                for row in rows
            }
        return [
            StoredJob(
                id=row[0],
                number=row[1],
                owner=row[2],
                created=row[3],
                work=_work(json.loads(row[4])),
                state=row[5],
                message=row[6],
                accepted=json.loads(row[7]),
                pictures=tuple(
                    StoredPicture(place=place, seed=seed, facts=json.loads(facts))
                    for place, seed, facts in pictures[row[0]]
                ),
            )
            for row in rows
        ]

    def _forget_old(self) -> None:
        """Delete the oldest jobs of the owners who have the most, so that a long list does not evict others' jobs."""
        with self._lock:
            old = self._database.execute(
                "SELECT id FROM (SELECT id, number, "
                "row_number() OVER (PARTITION BY owner ORDER BY number DESC) AS place "
                "FROM jobs WHERE state NOT IN ('waiting', 'drawing')) ORDER BY place, number DESC LIMIT -1 OFFSET ?",
                (self._max_jobs,),
            ).fetchall()
        for (job_id,) in old:
            self.delete(job_id)

    def _folder_of(self, job_id: str) -> Path:
        return self._folder / "pictures" / job_id


_ABSENT = Pixels(mode="L", size=(0, 0), data=b"")


def _work(plain: dict[str, Any]) -> DrawJob:
    """Decode a stored job, with placeholders for its input pictures."""
    seeds = tuple(plain["seeds"])
    inputs = {name: _ABSENT if plain[name] == "file" else plain[name] for name in ("image", "mask")}
    return DrawJob(**plain | {"seeds": seeds} | inputs)
