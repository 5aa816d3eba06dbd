"""The server's end of an engine on another machine of a cluster, to which Ray Serve carries calls.

Ray itself is not imported here: `launch/serve_ray.py` hands in what makes the calls.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar, runtime_checkable

from cogview.serving.engine_link import LinkListener
from cogview.serving.messages import (
    Alive,
    Begin,
    Broken,
    Command,
    Ended,
    Here,
    JobEvent,
    Lost,
    ModelFacts,
    Ready,
    Refused,
    ReplicaReport,
    Told,
)

LAST_EVENTS = (Ended, Refused, Broken)
"""After one of these nothing more is told of a job."""

MAX_SILENT_SECONDS = 20.0
"""A replica says each second that it is there; after so long without that it is lost."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0

Item = TypeVar("Item", covariant=True)


@runtime_checkable
class Stream(Protocol[Item]):
    """The answers to a call, as they come."""

    def __aiter__(self) -> AsyncIterator[Item]:
        """Return itself."""

    def __anext__(self) -> Awaitable[Item]:
        """Return the next answer."""

    def cancel(self) -> None:
        """Tell the other end that nobody listens any more."""


@runtime_checkable
class Replica(Protocol):
    """Calls of the methods of an `EngineReplica`, wherever that is."""

    def watch(self, session: str) -> Stream[ReplicaReport]:
        """Call `EngineReplica.watch`."""

    def work(self, session: str, command: Begin) -> Stream[JobEvent]:
        """Call `EngineReplica.work`."""


class RayLink:
    """An engine in a replica of Ray Serve, which begins another replica if it dies.

    A call tells of the engine, and is made again whenever it ends: a session. One call a job tells of that. When one of
    them breaks, all are begun anew in another session; the replica stops what was asked for in one that is over.

    Args:
        replica: of the engine.
        listener: is told what becomes of it.
        max_silent_seconds: after so long without a word the replica counts as dead.
    """

    def __init__(
        self, replica: Replica, listener: LinkListener, max_silent_seconds: float = MAX_SILENT_SECONDS
    ) -> None:
        self._replica = replica
        self._listener = listener
        self._max_silent_seconds = max_silent_seconds
        self._session = ""
        self._heard = 0.0
        self._failures = 0
        self._watching: asyncio.Task[None] | None = None
        self._working: dict[int, asyncio.Task[None]] = {}  # those whose end is not told yet
        self._tasks: set[asyncio.Task[None]] = set()
        self.facts: ModelFacts | None = None
        self.alive: Alive | None = None
        self.is_ready = False
        self.num_begun = 0

    @property
    def silent_seconds(self) -> float:
        """Return for how long the engine has said nothing; 0 while it loads, which may take long."""
        return time.monotonic() - self._heard if self.is_ready else 0.0

    def start(self) -> None:
        """Call the replica; Ray Serve hands the call over once there is one."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def send(self, command: Command) -> None:
        """Tell the engine something; what a dead one is told is lost, and `on_lost` says so."""
        if isinstance(command, Begin):
            task = asyncio.get_running_loop().create_task(self._work(self._session, command))
            self._working[command.number] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._stop(command.number)

    def _stop(self, number: int) -> None:
        task = self._working.pop(number, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Let go of the replica, which stops what it was asked for."""
        self.is_ready = False
        self._working.clear()
        tasks = [*self._tasks, *([] if self._watching is None else [self._watching])]
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
                self._lose(_told_of(error))
            await self._pause()

    async def _watch_once(self) -> None:
        """Take what is told until the call ends.

        Raises:
            TimeoutError: nothing is told any more.
            Exception: whatever Ray has against the call.
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
                self._take(report)

    async def _pause(self) -> None:
        await asyncio.sleep(min(_FIRST_WAIT_SECONDS * 2**self._failures, _LONGEST_WAIT_SECONDS))
        self._failures += 1

    def _take(self, report: ReplicaReport) -> None:
        if not isinstance(report, Here):
            self._heard = time.monotonic()
        if isinstance(report, Ready):
            self._lose("its replica is another one")
            self.facts, self.is_ready, self._failures = report.facts, True, 0
            self.num_begun += 1
            self._listener.on_ready()
        elif isinstance(report, Alive):
            self.alive = report
        elif isinstance(report, Lost):
            self._lose(report.message)

    async def _work(self, session: str, command: Begin) -> None:
        """Hand over what is told of a job."""
        number, task = command.number, asyncio.current_task()
        try:
            stream = self._replica.work(session, command)
            with contextlib.closing(_Canceller(stream)) as canceller:
                async for event in stream:  # to its end: Ray counts a call that was left as one that goes on
                    if self._working.get(number) is not task:
                        continue
                    if isinstance(event, LAST_EVENTS):
                        canceller.is_needed = False
                        del self._working[number]
                    self._listener.on_told(Told(number=number, event=event))
            if self._working.get(number) is task:
                raise ConnectionError("a job was told of no more")
        except Exception as error:
            if self._working.get(number) is task:
                self._begin_again(_told_of(error))

    def _begin_again(self, why: str) -> None:
        """Call the replica anew, since a call broke though the one that tells of the engine did not yet."""
        if self._watching is not None:
            self._watching.cancel()
        self._lose(why)
        self.start()

    def _lose(self, why: str) -> None:
        """Give up what the engine was asked for; its listener gives it again."""
        if not self.is_ready:
            return
        self.is_ready = False
        for number in list(self._working):
            self._stop(number)
        self._listener.log(f"an engine was lost ({why}); another is awaited")
        self._listener.on_lost()


class _Canceller:
    """Ends a call that nobody listens to any more.

    Args:
        stream: of the call.
    """

    def __init__(self, stream: Stream[object]) -> None:
        self._stream = stream
        self.is_needed = True

    def close(self) -> None:
        if self.is_needed:
            self._stream.cancel()


def _told_of(error: Exception) -> str:
    """Return one line of an error; those of Ray have a whole trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
