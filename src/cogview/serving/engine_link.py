"""The server's end of an engine: it begins the engine's process, and another when that one is dead."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from cogview.serving.messages import Alive, CannotBegin, Command, ModelFacts, Ready, Report, Told
from cogview.serving.options import EngineOptions

_SILENT_SECONDS = 10.0  # beyond a pass that may take long: then an engine that says nothing is dead
_LAST_SECONDS = 0.5
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.2, 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkListener:
    """Who is told what becomes of an engine.

    Args:
        on_told: of jobs.
        on_ready: that it is warm, at first and after it was begun anew.
        on_lost: that it is dead: what it was given has to be given again, once it is ready.
        on_hopeless: that it could not begin even once, and why.
        log: takes what is worth a line.
    """

    on_told: Callable[[Told], None]
    on_ready: Callable[[], None]
    on_lost: Callable[[], None]
    on_hopeless: Callable[[CannotBegin], None]
    log: Callable[[str], None]


@runtime_checkable
class Link(Protocol):
    """The server's end of an engine, wherever that is. Its methods are called in the event loop.

    Attributes:
        facts: what is known of the model, since the engine was first ready.
        alive: what was told last of how it goes.
        is_ready: whether it is warm.
        num_begun: how often an engine was begun.
    """

    facts: ModelFacts | None
    alive: Alive | None
    is_ready: bool
    num_begun: int

    @property
    def silent_seconds(self) -> float:
        """Return for how long the engine has said nothing; 0 while it loads, which may take long."""

    def start(self) -> None:
        """Begin the engine."""

    def send(self, command: Command) -> None:
        """Tell the engine something; what a dead one is told is lost, and its listener knows."""

    async def close(self) -> None:
        """End the engine."""


class EngineLink:
    """An engine in a process of its own, which is begun anew if it ends or hangs.

    Args:
        options: of the engine.
        listener: is told what becomes of it.
    """

    def __init__(self, options: EngineOptions, listener: LinkListener) -> None:
        self._options = options
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._outbox: SimpleQueue[Command | EngineOptions | None] = SimpleQueue()
        self._heard = 0.0
        self._is_closed = False
        self._failures = 0
        self._watching: asyncio.Task[None] | None = None
        self.facts: ModelFacts | None = None
        self.alive: Alive | None = None
        self.is_ready = False
        self.num_begun = 0

    @property
    def pid(self) -> int | None:
        """Return the number of the engine's process."""
        return None if self._process is None else self._process.pid

    @property
    def silent_seconds(self) -> float:
        """Return for how long the engine has said nothing; 0 while it loads, which may take long."""
        return time.monotonic() - self._heard if self.is_ready else 0.0

    def start(self) -> None:
        """Begin the engine's process, and watch it."""
        self._begin()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def send(self, command: Command) -> None:
        """Tell the engine something; what a dead one is told is lost, and `on_lost` says so."""
        self._outbox.put(command)

    async def close(self) -> None:
        """End the engine's process."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._end()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cogview.serving.engine_process", str(number)],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends the engine when it may
                env=self._environment(),
            )
        self._socket, self._outbox = ours, SimpleQueue()
        self._outbox.put(self._options)
        self._heard = time.monotonic()
        self.num_begun += 1
        loop = asyncio.get_running_loop()
        for work in (self._write, self._read):
            threading.Thread(
                target=work, args=[Connection(os.dup(ours.fileno())), ours, self._outbox, loop], daemon=True
            ).start()

    def _environment(self) -> dict[str, str]:
        num = self._options.num_threads
        return dict(os.environ) | ({} if num is None else {"OMP_NUM_THREADS": str(num)})

    @staticmethod
    def _write(connection: Connection, _: object, outbox: "SimpleQueue[object]", __: object) -> None:
        """Hand over what the engine is told: a pipe that is full must not hold up the event loop."""
        with connection, contextlib.suppress(OSError):
            while (command := outbox.get()) is not None:
                connection.send(command)

    def _read(
        self,
        connection: Connection,
        owner: socket.socket,
        _: object,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Hand over what the engine says to the event loop, until it says no more."""
        with connection:
            report: Report | None = None
            while True:
                try:
                    report = connection.recv()
                except (EOFError, OSError):
                    report = None
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._take, owner, report)
                if report is None:
                    return

    def _take(self, owner: socket.socket, report: Report | None) -> None:
        if owner is not self._socket:  # of one that was given up
            return
        self._heard = time.monotonic()
        if isinstance(report, Told):
            self._listener.on_told(report)
        elif isinstance(report, Alive):
            self.alive = report
        elif isinstance(report, Ready):
            self.facts, self.is_ready, self._failures = report.facts, True, 0
            self._listener.on_ready()
        elif isinstance(report, CannotBegin):
            if self.facts is None:
                self._is_closed = True  # another would fare no better
                self._listener.on_hopeless(report)
            else:  # it ran before, and is tried again: its device may come back
                self._listener.log(f"the engine cannot begin: {report.message}")
        else:
            self._let_end()
            self._lose()

    def _let_end(self) -> None:
        """Give a process that says no more a moment to end by itself, so that the log tells how it ended."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)

    def _lose(self) -> None:
        """Give the process up, and begin another after a while that grows from failure to failure."""
        self._end()
        if self._is_closed:
            return
        self._listener.log(f"the engine has ended ({self._status()}); another is begun")
        self._listener.on_lost()
        wait = min(_FIRST_WAIT_SECONDS * 2**self._failures, _LONGEST_WAIT_SECONDS)
        self._failures += 1
        asyncio.get_running_loop().call_later(wait, self._begin_again)

    def _begin_again(self) -> None:
        if not self._is_closed:
            self._begin()

    def _end(self) -> None:
        self.is_ready = False
        self._outbox.put(None)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # the threads read its end, and let go of it
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _status(self) -> str:
        code = None if self._process is None else self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    async def _watch(self) -> None:
        """Give an engine up that says nothing, and one that has ended without a word."""
        while True:
            await asyncio.sleep(1)
            if self._socket is None:
                continue
            assert self._process is not None
            limit = self._options.stuck_seconds + _SILENT_SECONDS
            if self._process.poll() is not None or (self.is_ready and self.silent_seconds > limit):
                self._lose()
