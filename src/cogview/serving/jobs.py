"""Jobs: what clients wait for, and which engine works on it."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cogview.generation.fair_queue import Client
from cogview.serving.engine_link import Link, LinkListener
from cogview.serving.engines import Engines
from cogview.serving.event_log import EventLog
from cogview.serving.messages import (
    Accepted,
    AnyJob,
    Broken,
    CannotBegin,
    DrawJob,
    Ended,
    JobEvent,
    Picture,
    Preview,
    Refused,
    given_pixels,
)
from cogview.serving.options import ServerOptions

LOG = logging.getLogger("cogview.serving")

State: TypeAlias = Literal["waiting", "drawing", "done", "refused", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A job waits.

    Args:
        position: jobs that begin before it.
        seconds: until it is done, as far as can be foretold; None if nothing is known yet.
    """

    position: int
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A job was stopped."""


LogEvent: TypeAlias = JobEvent | Queued | Cancelled
_LAST = (Ended, Refused, Broken, Cancelled)
_STATES: dict[type, State] = {Ended: "done", Refused: "refused", Broken: "failed", Cancelled: "cancelled"}


class Busy(Exception):
    """There is no room for one more job.

    Args:
        message: one line.
        retry_seconds: when to ask again.
    """

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Draining(Exception):
    """The server ends, and begins nothing any more."""


@dataclass(kw_only=True, eq=False)
class Job:
    """What a client waits for.

    Args:
        number: of it.
        client: who asks.
        work: for the engine.

    Attributes:
        state: how far it is.
        accepted: what was told when it was looked at.
        num_deaths: of engines while they had it.
        log: what is told of it.
    """

    number: int
    client: Client
    work: AnyJob
    state: State = "waiting"
    accepted: Accepted | None = None
    begun_at: float = field(default_factory=time.monotonic)
    num_previews: int = 0
    num_deaths: int = 0
    log: EventLog[LogEvent] = field(default_factory=lambda: EventLog(lambda event: isinstance(event, _LAST)))

    @property
    def cost(self) -> int:
        """Return how many requests it is for the engine."""
        return len(self.work.seeds) if isinstance(self.work, DrawJob) else 1

    @property
    def num_bytes(self) -> int:
        """Return how much memory its pictures take."""
        return sum(len(each.data) for each in given_pixels(self.work))

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will be told."""
        return self.state not in ("waiting", "drawing")

    def tell(self, event: LogEvent) -> bool:
        """Add to what is told of it, in the place of what is outdated by it; return whether it says anything new."""
        if self.is_over:
            return False
        if isinstance(event, Accepted):
            self.accepted = event
        elif isinstance(event, Preview):
            if self._is_drawn(event.candidate):
                return False  # drawn once more by another engine
            self.state = "drawing"
            self.num_previews += 1
            self.log.forget(lambda other: isinstance(other, Queued))
            self.log.forget(lambda other: isinstance(other, Preview) and other.candidate == event.candidate)
        elif isinstance(event, Queued):
            self.log.forget(lambda other: isinstance(other, Queued))
        elif isinstance(event, Picture):
            self.state = "drawing"
            if any(isinstance(other, Picture) and other.place == event.place for other in self.log):
                return False  # drawn once more by another engine: the same
        elif isinstance(event, _LAST):
            self.log.forget(lambda other: isinstance(other, Preview | Queued))
            self.state = _STATES[type(event)]
        self.log.add(event)
        return True

    def _is_drawn(self, candidate: int) -> bool:
        if not isinstance(self.work, DrawJob):
            return False
        seed = self.work.seeds[candidate]
        return any(isinstance(event, Picture) and event.seed == seed for event in self.log)


class Jobs:
    """All jobs that wait or are worked on, and the engines that work on them.

    Args:
        options: what is taken from clients.
        new_links: make the links to the engines, which tell a listener what becomes of them.
        on_ready: is told when all engines are warm, at first and after one was begun anew.
        on_hopeless: is told that an engine cannot begin, and why.
        log: takes what is worth a line.

    Attributes:
        links: to the engines.
        is_draining: whether nothing is taken any more.
        listeners: are told of all that is told of any job.
    """

    def __init__(
        self,
        options: ServerOptions,
        new_links: Sequence[Callable[[LinkListener], Link]],
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_hopeless: Callable[[CannotBegin], None] = lambda _: None,
        log: Callable[[str], None] = print,
    ) -> None:
        self._options = options
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._limits: dict[int, asyncio.TimerHandle] = {}
        self._num_of_client: Counter[str] = Counter()
        self._cost_of_client: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self.is_draining = False
        self.listeners: list[Callable[[Job, LogEvent], None]] = []
        self._engines = Engines(
            new_links,
            on_told=self._tell,
            on_given=self._tell_queue_soon,
            on_ready=on_ready,
            on_hopeless=on_hopeless,
            log=log,
        )
        self.links = self._engines.links

    @property
    def is_ready(self) -> bool:
        """Return whether jobs are worked on: one engine at least is warm."""
        return self._engines.is_ready

    @property
    def num_jobs(self) -> int:
        """Return how many jobs wait or are worked on."""
        return len(self._jobs)

    @property
    def num_waiting(self) -> int:
        """Return how many requests these are for the engines."""
        return sum(job.cost for job in self._jobs.values())

    def start(self) -> None:
        """Begin the engines."""
        for link in self.links:
            link.start()

    async def close(self) -> None:
        """Stop all jobs, and end the engines."""
        for job in list(self._jobs.values()):
            self.cancel(job)
        for link in self.links:
            await link.close()

    async def drain(self, seconds: float) -> None:
        """Begin nothing any more, and wait for what was begun."""
        self.is_draining = True
        end = time.monotonic() + seconds
        while self._jobs and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def begin(self, work: AnyJob, client: Client) -> Job:
        """Take a job.

        Raises:
            Draining: the server ends.
            Busy: there is no room.
        """
        if self.is_draining:
            raise Draining
        job = Job(number=next(self._numbers), client=client, work=work)
        self._check_room(job)
        self._jobs[job.number] = job
        self._num_of_client[client[0]] += 1
        self._cost_of_client[client[0]] += job.cost
        loop = asyncio.get_running_loop()
        self._limits[job.number] = loop.call_later(self._options.max_job_seconds, self._give_up, job)
        self._engines.add(job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; one that is over is left alone."""
        if job.is_over:
            return
        self._engines.stop(job)
        self._tell(job, Cancelled())

    def seconds_for(self, cost: int, link: Link | None = None) -> float | None:
        """Return how long an engine takes for what it has, and so many requests more; None if nothing is known."""
        link = link or self._engines.idlest()
        if link.alive is None or not link.alive.seconds_per_code or link.facts is None:
            return None
        rows, columns = link.facts.grid
        return (self._engines.load(link) + cost) * rows * columns * link.alive.seconds_per_code

    def _check_room(self, job: Job) -> None:
        options, (account, *_) = self._options, job.client
        share = options.max_client_share
        own_bytes = sum(each.num_bytes for each in self._jobs.values() if each.client[0] == account)
        num_bytes = sum(each.num_bytes for each in self._jobs.values())
        is_full = (
            self.num_jobs >= options.max_jobs
            or self.num_waiting + job.cost > options.max_waiting
            or num_bytes + job.num_bytes > options.max_job_bytes
        )
        has_enough = (
            self._num_of_client[account] >= options.max_jobs * share
            or self._cost_of_client[account] + job.cost > options.max_waiting * share
            or own_bytes + job.num_bytes > options.max_job_bytes * share
        )
        if is_full or has_enough:
            wait = self.seconds_for(0) or 5.0
            raise Busy(
                "the queue is full: try again later"
                if is_full
                else "you have as many pictures in the queue as one client may: wait for some of them",
                min(max(int(wait / 2), 1), 60),
            )

    def _give_up(self, job: Job) -> None:
        if not job.is_over:
            self._engines.stop(job)
            self._tell(job, Broken(message="it took longer than a job may"))

    def _tell(self, job: Job, event: LogEvent) -> None:
        if not job.tell(event):
            return
        for listener in self.listeners:
            listener(job, event)
        if job.is_over and self._jobs.pop(job.number, None) is not None:
            LOG.info(
                "job",
                extra={
                    "job": job.number,
                    "state": job.state,
                    "requests": job.cost,
                    "seconds": round(time.monotonic() - job.begun_at, 4),
                },
            )
            self._engines.remove(job)
            self._limits.pop(job.number).cancel()
            account = job.client[0]
            self._num_of_client[account] -= 1
            self._cost_of_client[account] -= job.cost
            if not self._num_of_client[account]:
                del self._num_of_client[account], self._cost_of_client[account]
            self._tell_queue_soon()

    def _tell_queue_soon(self) -> None:
        """Tell those that wait how many are before them, at most twice a second."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(0.5, self._tell_queue)

    def _tell_queue(self) -> None:
        self._telling = None
        for link in self.links:
            waiting = [job for job in self._engines.jobs_of(link) if job.state == "waiting"]
            seconds = self.seconds_for(0, link)
            for position, job in enumerate(waiting):
                share = (position + 1) / max(len(waiting), 1)
                self._tell(
                    job, Queued(position=position, seconds=None if seconds is None else seconds * share)
                )
