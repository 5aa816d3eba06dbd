"""An engine for a server elsewhere: what a replica of Ray Serve does. Ray itself is not imported here."""

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial

from cogview.errors import CogViewError, UsageError
from cogview.serving.engine_link import EngineLink, Link, LinkListener
from cogview.serving.messages import (
    Begin,
    Cancel,
    CannotBegin,
    Here,
    JobEvent,
    Lost,
    Ready,
    ReplicaReport,
    Told,
)
from cogview.serving.options import EngineOptions
from cogview.serving.ray_link import LAST_EVENTS

_HEARTBEAT_SECONDS = 1.0
TURN_SECONDS = 30.0
"""After so long a watch ends, to be called again; Ray tells nobody that a caller's process has died."""
_GRACE_SECONDS = 30.0  # in which a session is taken up again
_MAX_FAILURES = 3  # to begin an engine's process; then another machine may be better
_FAILED = f"the engine's process ended {_MAX_FAILURES} times before it was ready"


class _Session:
    """What a server asked for, and is to be told."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[ReplicaReport] = asyncio.Queue()
        self.events_of: dict[int, asyncio.Queue[JobEvent | None]] = {}
        self.expiry: asyncio.TimerHandle | None = None


class EngineReplica:
    """Holds an engine's process, and tells servers of it and of their jobs.

    Args:
        options: of the engine.
        new_link: makes the link to the engine's process.
        turn_seconds: after which a watch ends.
        grace_seconds: in which it has to be called again.
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
        self._numbers = itertools.count(1)  # of jobs, since two servers may give the same one
        self._sessions: dict[str, _Session] = {}
        self._began: asyncio.Future[CannotBegin | None] = asyncio.get_running_loop().create_future()
        self._num_begun_before = 0  # when it was ready last
        self._link = new_link(
            options,
            LinkListener(
                on_told=self._take,
                on_ready=self._tell_ready,
                on_lost=self._tell_lost,
                on_hopeless=self._cannot,
                log=partial(print, "cogview:", file=sys.stderr, flush=True),
            ),
        )

    async def start(self) -> None:
        """Begin the engine, and wait until it is warm.

        Raises:
            CogViewError: the model cannot be loaded.
        """
        self._link.start()
        failure = await self._began
        if failure is not None:
            await self._link.close()
            raise (UsageError if failure.is_usage else CogViewError)(failure.message)

    def _tell(self, report: ReplicaReport) -> None:
        for session in self._sessions.values():
            session.reports.put_nowait(report)

    def _tell_ready(self) -> None:
        assert self._link.facts is not None
        self._num_begun_before = self._link.num_begun
        self._tell(Ready(facts=self._link.facts))
        if not self._began.done():
            self._began.set_result(None)

    def _tell_lost(self) -> None:
        self._tell(Lost(message="its process has ended"))
        if self._has_failed:
            self._cannot(CannotBegin(message=_FAILED, is_usage=False))

    @property
    def _has_failed(self) -> bool:
        return self._link.num_begun - self._num_begun_before >= _MAX_FAILURES and not self._link.is_ready

    def _cannot(self, failure: CannotBegin) -> None:
        if not self._began.done():
            self._began.set_result(failure)

    def _take(self, told: Told) -> None:
        for session in self._sessions.values():
            if told.number in session.events_of:
                session.events_of[told.number].put_nowait(told.event)

    async def watch(self, name: str) -> AsyncGenerator[ReplicaReport, None]:
        """Yield what becomes of the engine, for a while; called again with the same name, it goes on.

        If nobody calls again, or listens any more, what was asked for in the session is stopped.

        Args:
            name: of the session; no other has it.
        """
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session()
            if self._link.is_ready and self._link.facts is not None:
                session.reports.put_nowait(Ready(facts=self._link.facts))
        elif session.expiry is not None:
            session.expiry.cancel()
        loop = asyncio.get_running_loop()
        end, alive = loop.time() + self._turn_seconds, None
        try:
            yield Here()
            while (seconds := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(seconds, _HEARTBEAT_SECONDS)):
                        report = await session.reports.get()
                except TimeoutError:
                    # Of an engine that hangs nothing new is told.
                    report = Here() if self._link.alive in (None, alive) else self._link.alive
                    alive = self._link.alive
                yield report
        except BaseException:
            self._end(name)
            raise
        session.expiry = loop.call_later(self._grace_seconds, self._end, name)

    def _end(self, name: str) -> None:
        session = self._sessions.pop(name)
        for events in session.events_of.values():
            events.put_nowait(None)

    async def work(self, name: str, command: Begin) -> AsyncGenerator[JobEvent, None]:
        """Yield what the engine tells of a job, which is stopped when nobody listens any more.

        Args:
            name: of the session in which it is asked for.
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
                self._link.send(Cancel(number=number))

    def check_health(self) -> None:
        """Say whether the engine's process can be begun anew.

        Raises:
            CogViewError: it cannot: the replica has to be replaced.
        """
        if self._has_failed:
            raise CogViewError(_FAILED)
