"""Replica of Ray Serve with an engine, for a web server in another process. Does not import Ray."""

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial

from cogview.errors import CogViewError, UsageError
from cogview.serving.engine_link import EngineLink, Link, LinkListener
from cogview.serving.messages import (
    CancelJob,
    EngineLost,
    JobEvent,
    JobReport,
    Ready,
    ReplicaAlive,
    ReplicaReport,
    StartFailed,
    StartJob,
)
from cogview.serving.options import EngineOptions
from cogview.serving.ray_link import LAST_EVENTS

_HEARTBEAT_SECONDS = 1.0
TURN_SECONDS = 30.0
"""Duration of a watch, which the caller then repeats: Ray does not report that a caller's process died."""
_GRACE_SECONDS = 30.0  # within which a caller must repeat its watch
_MAX_FAILURES = 3  # failed starts of the process before the replica asks to be replaced
_FAILED = f"the engine's process ended {_MAX_FAILURES} times before it was ready"


class _Session:
    """Queued reports and events for one server."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[ReplicaReport] = asyncio.Queue()
        self.events_of: dict[int, asyncio.Queue[JobEvent | None]] = {}
        self.expiry: asyncio.TimerHandle | None = None


class EngineReplica:
    """Engine's process whose reports and job events are streamed to servers.

    Args:
        options: of the engine.
        new_link: creates the link to the engine's process.
        turn_seconds: duration of a watch.
        grace_seconds: within which a watch must be repeated.
    """

    def __init__(
        self,
        options: EngineOptions,
        new_link: Callable[[EngineOptions, LinkListener], Link] = EngineLink,
        *,
        turn_seconds: float = TURN_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._turn_seconds, self._grace_seconds = turn_seconds, grace_seconds
        self._numbers = itertools.count(1)  # of jobs; those of two servers may collide
        self._sessions: dict[str, _Session] = {}
        self._start_result: asyncio.Future[StartFailed | None] = asyncio.get_running_loop().create_future()
        self._num_starts_before = 0  # when it was last ready
        self._link = new_link(
            options,
            LinkListener(
                on_report=self._forward,
                on_ready=self._report_ready,
                on_lost=self._report_lost,
                on_start_failed=self._set_failure,
                log=partial(print, "cogview:", file=sys.stderr, flush=True),
            ),
        )

    async def start(self) -> None:
        """Start the engine and wait until it is warm.

        Raises:
            CogViewError: the model cannot be loaded.
        """
        self._link.start()
        failure = await self._start_result
        if failure is not None:
            await self._link.close()
            raise (UsageError if failure.is_usage else CogViewError)(failure.message)

    def _report(self, report: ReplicaReport) -> None:
        for session in self._sessions.values():
            session.reports.put_nowait(report)

    def _report_ready(self) -> None:
        assert self._link.facts is not None
        self._num_starts_before = self._link.num_starts
        self._report(Ready(facts=self._link.facts))
        if not self._start_result.done():
            self._start_result.set_result(None)

    def _report_lost(self) -> None:
        self._report(EngineLost(message="its process has ended"))
        if self._has_failed:
            self._set_failure(StartFailed(message=_FAILED, is_usage=False))

    @property
    def _has_failed(self) -> bool:
        return self._link.num_starts - self._num_starts_before >= _MAX_FAILURES and not self._link.is_ready

    def _set_failure(self, failure: StartFailed) -> None:
        if not self._start_result.done():
            self._start_result.set_result(failure)

    def _forward(self, report: JobReport) -> None:
        for session in self._sessions.values():
            if report.number in session.events_of:
                session.events_of[report.number].put_nowait(report.event)

    async def watch(self, name: str) -> AsyncGenerator[ReplicaReport, None]:
        """Yield the engine's reports for a while; another call with the same name continues.

        The session's jobs are stopped if the call is cancelled, or not repeated in time.

        Args:
            name: unique name of the session.
        """
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session()
            if self._link.is_ready and self._link.facts is not None:
                session.reports.put_nowait(Ready(facts=self._link.facts))
        elif session.expiry is not None:
            session.expiry.cancel()
        loop = asyncio.get_running_loop()
        end, heartbeat = loop.time() + self._turn_seconds, None
        try:
            yield ReplicaAlive()
            while (seconds := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(seconds, _HEARTBEAT_SECONDS)):
                        report = await session.reports.get()
                except TimeoutError:
                    # An engine that hangs sends no new heartbeat.
                    report = (
                        ReplicaAlive() if self._link.heartbeat in (None, heartbeat) else self._link.heartbeat
                    )
                    heartbeat = self._link.heartbeat
                yield report
        except BaseException:
            self._end_session(name)
            raise
        session.expiry = loop.call_later(self._grace_seconds, self._end_session, name)

    def _end_session(self, name: str) -> None:
        session = self._sessions.pop(name)
        for events in session.events_of.values():
            events.put_nowait(None)

    async def work(self, name: str, command: StartJob) -> AsyncGenerator[JobEvent, None]:
        """Run a job and yield its events; the job is stopped if the call is cancelled.

        Args:
            name: of the caller's session.
            command: the job.
        """
        session = self._sessions.get(name)
        if session is None:
            return
        number = next(self._numbers)
        events = session.events_of[number] = asyncio.Queue()
        self._link.send(replace(command, number=number))
        is_over = False
        try:
            while not is_over:
                event = await events.get()
                if event is None:
                    return
                is_over = isinstance(event, LAST_EVENTS)
                yield event
        finally:
            del session.events_of[number]
            if not is_over:
                self._link.send(CancelJob(number=number))

    def check_health(self) -> None:
        """Check that the engine's process can be restarted.

        Raises:
            CogViewError: it cannot: the replica has to be replaced.
        """
        if self._has_failed:
            raise CogViewError(_FAILED)
