"""Link to an engine in a replica of Ray Serve.

Does not import Ray: `launch/serve_ray.py` passes in an object that makes the calls.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar, runtime_checkable

from cogview.serving.engine_link import LinkListener
from cogview.serving.messages import (
    Command,
    Done,
    EngineLost,
    Failed,
    Heartbeat,
    JobEvent,
    JobReport,
    ModelFacts,
    Ready,
    Refused,
    ReplicaAlive,
    ReplicaReport,
    StartJob,
)

LAST_EVENTS = (Done, Refused, Failed)
"""Events that end a job."""

MAX_SILENT_SECONDS = 20.0
"""Replicas report each second; after so long without a report, one is given up."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0

Item = TypeVar("Item", covariant=True)


@runtime_checkable
class Stream(Protocol[Item]):
    """Streamed answers of a call."""

    def __aiter__(self) -> AsyncIterator[Item]:
        """Return the stream itself."""

    def __anext__(self) -> Awaitable[Item]:
        """Return the next answer."""

    def cancel(self) -> None:
        """Cancel the call."""


@runtime_checkable
class Replica(Protocol):
    """Remote calls of an `EngineReplica`."""

    def watch(self, session: str) -> Stream[ReplicaReport]:
        """Call `EngineReplica.watch`."""

    def work(self, session: str, command: StartJob) -> Stream[JobEvent]:
        """Call `EngineReplica.work`."""


class RayLink:
    """Link to a replica of Ray Serve, which Ray restarts if it dies.

    A session is a repeated call that streams the engine's reports, and one call per job that streams its events. When
    one of them breaks, a new session replaces it; the replica stops the jobs of the old one.

    Args:
        replica: with the engine.
        listener: receives the engine's reports.
        max_silent_seconds: time without a report after which the replica is given up.
    """

    def __init__(
        self, replica: Replica, listener: LinkListener, max_silent_seconds: float = MAX_SILENT_SECONDS
    ) -> None:
        self._replica = replica
        self._listener = listener
        self._max_silent_seconds = max_silent_seconds
        self._session = ""
        self._last_heard = 0.0
        self._failures = 0
        self._watch_task: asyncio.Task[None] | None = None
        self._job_tasks: dict[int, asyncio.Task[None]] = {}  # of unfinished jobs, by number
        self._tasks: set[asyncio.Task[None]] = set()
        self.facts: ModelFacts | None = None
        self.heartbeat: Heartbeat | None = None
        self.is_ready = False
        self.num_starts = 0

    @property
    def silent_seconds(self) -> float:
        """Return the time since the engine's last message; 0 while it loads."""
        return time.monotonic() - self._last_heard if self.is_ready else 0.0

    def start(self) -> None:
        """Call the replica; Ray Serve delivers the call once a replica runs."""
        self._watch_task = asyncio.get_running_loop().create_task(self._watch())

    def send(self, command: Command) -> None:
        """Send a command. If the engine is dead, it is lost, and `on_lost` is called."""
        if isinstance(command, StartJob):
            task = asyncio.get_running_loop().create_task(self._work(self._session, command))
            self._job_tasks[command.number] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._stop_job(command.number)

    def _stop_job(self, number: int) -> None:
        task = self._job_tasks.pop(number, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel all calls; the replica then stops its jobs."""
        self.is_ready = False
        self._job_tasks.clear()
        tasks = [*self._tasks, *([] if self._watch_task is None else [self._watch_task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._session = secrets.token_hex(8)
            try:
                while True:
                    await self._watch_once()
            except Exception as error:
                self._mark_lost(_one_line(error))
            await self._back_off()

    async def _watch_once(self) -> None:
        """Read reports until the call ends.

        Raises:
            TimeoutError: no report came in time.
            Exception: the call failed in Ray.
        """
        stream = self._replica.watch(self._session)
        with contextlib.closing(_Canceller(stream)) as canceller:
            while True:
                try:
                    async with asyncio.timeout(self._max_silent_seconds if self.is_ready else None):
                        report = await anext(stream)
                except StopAsyncIteration:
                    canceller.is_needed = False
                    return
                self._receive(report)

    async def _back_off(self) -> None:
        await asyncio.sleep(min(_FIRST_WAIT_SECONDS * 2**self._failures, _LONGEST_WAIT_SECONDS))
        self._failures += 1

    def _receive(self, report: ReplicaReport) -> None:
        if not isinstance(report, ReplicaAlive):
            self._last_heard = time.monotonic()
        if isinstance(report, Ready):
            self._mark_lost("its replica was replaced")
            self.facts, self.is_ready, self._failures = report.facts, True, 0
            self.num_starts += 1
            self._listener.on_ready()
        elif isinstance(report, Heartbeat):
            self.heartbeat = report
        elif isinstance(report, EngineLost):
            self._mark_lost(report.message)

    async def _work(self, session: str, command: StartJob) -> None:
        """Forward a job's events to the listener."""
        number, task = command.number, asyncio.current_task()
        try:
            stream = self._replica.work(session, command)
            with contextlib.closing(_Canceller(stream)) as canceller:
                async for event in stream:  # to its end: for Ray, an abandoned call goes on
                    if self._job_tasks.get(number) is not task:
                        continue
                    if isinstance(event, LAST_EVENTS):
                        canceller.is_needed = False
                        del self._job_tasks[number]
                    self._listener.on_report(JobReport(number=number, event=event))
            if self._job_tasks.get(number) is task:
                raise ConnectionError("a job's events ended early")
        except Exception as error:
            if self._job_tasks.get(number) is task:
                self._reconnect(_one_line(error))

    def _reconnect(self, why: str) -> None:
        """Start a new session, since a job's call broke before that of the reports."""
        if self._watch_task is not None:
            self._watch_task.cancel()
        self._mark_lost(why)
        self.start()

    def _mark_lost(self, why: str) -> None:
        """Drop all jobs; the listener reassigns them."""
        if not self.is_ready:
            return
        self.is_ready = False
        for number in list(self._job_tasks):
            self._stop_job(number)
        self._listener.log(f"an engine was lost ({why}); waiting for another")
        self._listener.on_lost()


class _Canceller:
    """Cancellation of a call on close, unless it has ended."""

    def __init__(self, stream: Stream[object]) -> None:
        self._stream = stream
        self.is_needed = True

    def close(self) -> None:
        if self.is_needed:
            self._stream.cancel()


def _one_line(error: Exception) -> str:
    """Summarize an error in one line; Ray's messages contain a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
