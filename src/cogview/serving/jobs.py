"""Queue of jobs, with limits per client."""

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
from cogview.serving.engine_pool import EnginePool
from cogview.serving.event_log import EventLog
from cogview.serving.messages import (
    Accepted,
    AnyJob,
    Done,
    DrawJob,
    Failed,
    JobEvent,
    Picture,
    Preview,
    Refused,
    StartFailed,
    job_pixels,
)
from cogview.serving.options import ServerOptions

LOG = logging.getLogger("cogview.serving")

State: TypeAlias = Literal["waiting", "drawing", "done", "refused", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A job's place in the queue.

    Args:
        position: jobs before it.
        seconds: estimated time until it is done; None if unknown.
    """

    position: int
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A job was stopped."""


LogEvent: TypeAlias = JobEvent | Queued | Cancelled
_LAST = (Done, Refused, Failed, Cancelled)
_STATES: dict[type, State] = {Done: "done", Refused: "refused", Failed: "failed", Cancelled: "cancelled"}


class Busy(Exception):
    """The queue is full.

    Args:
        message: one line.
        retry_seconds: when to retry.
    """

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Draining(Exception):
    """The server is shutting down and takes no jobs."""


@dataclass(kw_only=True, eq=False)
class Job:
    """A client's job.

    Args:
        number: identifies it.
        client: who asked.
        work: for the engine.

    Attributes:
        state: progress.
        accepted: event with which the engine accepted it.
        num_deaths: engines that died while they had it.
        log: its events.
    """

    number: int
    client: Client
    work: AnyJob
    state: State = "waiting"
    accepted: Accepted | None = None
    started_at: float = field(default_factory=time.monotonic)
    num_previews: int = 0
    num_deaths: int = 0
    log: EventLog[LogEvent] = field(default_factory=lambda: EventLog(lambda event: isinstance(event, _LAST)))

    @property
    def cost(self) -> int:
        """Return its number of engine requests."""
        return len(self.work.seeds) if isinstance(self.work, DrawJob) else 1

    @property
    def num_bytes(self) -> int:
        """Return the size of its input pictures in memory."""
        return sum(len(each.data) for each in job_pixels(self.work))

    @property
    def is_over(self) -> bool:
        """Return whether it has had its last event."""
        return self.state not in ("waiting", "drawing")

    def add_event(self, event: LogEvent) -> bool:
        """Log an event in place of those that it outdates; return whether it is new."""
        if self.is_over:
            return False
        if isinstance(event, Accepted):
            self.accepted = event
        elif isinstance(event, Preview):
            if self._is_drawn(event.candidate):
                return False  # redrawn by another engine
            self.state = "drawing"
            self.num_previews += 1
            self.log.forget(lambda other: isinstance(other, Queued))
            self.log.forget(lambda other: isinstance(other, Preview) and other.candidate == event.candidate)
        elif isinstance(event, Queued):
            self.log.forget(lambda other: isinstance(other, Queued))
        elif isinstance(event, Picture):
            self.state = "drawing"
            if any(isinstance(other, Picture) and other.place == event.place for other in self.log):
                return False  # the same picture, redrawn by another engine
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
    """All unfinished jobs.

    Args:
        options: limits for clients.
        new_links: create the links to the engines.
        on_ready: called when all engines are warm, at first and after a restart.
        on_start_failed: called when an engine cannot start.
        log: writes a line to the log.

    Attributes:
        links: to the engines.
        is_draining: whether new jobs are refused.
        listeners: called with each event of each job.
    """

    def __init__(
        self,
        options: ServerOptions,
        new_links: Sequence[Callable[[LinkListener], Link]],
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_start_failed: Callable[[StartFailed], None] = lambda _: None,
        log: Callable[[str], None] = print,
    ) -> None:
        self._options = options
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._timeouts: dict[int, asyncio.TimerHandle] = {}
        self._num_jobs_of: Counter[str] = Counter()
        self._num_requests_of: Counter[str] = Counter()
        self._queue_timer: asyncio.TimerHandle | None = None
        self.is_draining = False
        self.listeners: list[Callable[[Job, LogEvent], None]] = []
        self._engines = EnginePool(
            new_links,
            on_event=self._add_event,
            on_assigned=self._schedule_queue_report,
            on_ready=on_ready,
            on_start_failed=on_start_failed,
            log=log,
        )
        self.links = self._engines.links

    @property
    def is_ready(self) -> bool:
        """Return whether at least one engine is warm."""
        return self._engines.is_ready

    @property
    def num_jobs(self) -> int:
        """Return the number of unfinished jobs."""
        return len(self._jobs)

    @property
    def num_waiting(self) -> int:
        """Return the number of engine requests of all unfinished jobs."""
        return sum(job.cost for job in self._jobs.values())

    def start(self) -> None:
        """Start the engines."""
        for link in self.links:
            link.start()

    async def close(self) -> None:
        """Cancel all jobs and stop the engines."""
        for job in list(self._jobs.values()):
            self.cancel(job)
        for link in self.links:
            await link.close()

    async def drain(self, seconds: float) -> None:
        """Refuse new jobs and wait for the others, at most so many seconds."""
        self.is_draining = True
        end = time.monotonic() + seconds
        while self._jobs and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def submit(self, work: AnyJob, client: Client) -> Job:
        """Queue a job.

        Raises:
            Draining: the server is shutting down.
            Busy: the queue is full.
        """
        if self.is_draining:
            raise Draining
        job = Job(number=next(self._numbers), client=client, work=work)
        self._check_capacity(job)
        self._jobs[job.number] = job
        self._num_jobs_of[client[0]] += 1
        self._num_requests_of[client[0]] += job.cost
        loop = asyncio.get_running_loop()
        self._timeouts[job.number] = loop.call_later(self._options.max_job_seconds, self._time_out, job)
        self._engines.add(job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job, unless it is over."""
        if job.is_over:
            return
        self._engines.stop(job)
        self._add_event(job, Cancelled())

    def seconds_for(self, cost: int, link: Link | None = None) -> float | None:
        """Estimate how long an engine takes for its load and `cost` more requests; None if unknown."""
        link = link or self._engines.idlest()
        if link.heartbeat is None or not link.heartbeat.seconds_per_code or link.facts is None:
            return None
        rows, columns = link.facts.grid
        return (self._engines.load(link) + cost) * rows * columns * link.heartbeat.seconds_per_code

    def _check_capacity(self, job: Job) -> None:
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
            self._num_jobs_of[account] >= options.max_jobs * share
            or self._num_requests_of[account] + job.cost > options.max_waiting * share
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

    def _time_out(self, job: Job) -> None:
        if not job.is_over:
            self._engines.stop(job)
            self._add_event(job, Failed(message="it took longer than a job may"))

    def _add_event(self, job: Job, event: LogEvent) -> None:
        if not job.add_event(event):
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
                    "seconds": round(time.monotonic() - job.started_at, 4),
                },
            )
            self._engines.remove(job)
            self._timeouts.pop(job.number).cancel()
            account = job.client[0]
            self._num_jobs_of[account] -= 1
            self._num_requests_of[account] -= job.cost
            if not self._num_jobs_of[account]:
                del self._num_jobs_of[account], self._num_requests_of[account]
            self._schedule_queue_report()

    def _schedule_queue_report(self) -> None:
        """Report their positions to waiting jobs, at most twice a second."""
        if self._queue_timer is None:
            self._queue_timer = asyncio.get_running_loop().call_later(0.5, self._report_queue)

    def _report_queue(self) -> None:
        self._queue_timer = None
        for link in self.links:
            waiting = [job for job in self._engines.jobs_of(link) if job.state == "waiting"]
            seconds = self.seconds_for(0, link)
            for position, job in enumerate(waiting):
                share = (position + 1) / max(len(waiting), 1)
                self._add_event(
                    job, Queued(position=position, seconds=None if seconds is None else seconds * share)
                )
