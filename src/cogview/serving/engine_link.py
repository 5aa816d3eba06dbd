"""Links to engines; `EngineLink` starts an engine's process and restarts it when it dies."""

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

from cogview.serving.messages import Command, Heartbeat, JobReport, ModelFacts, Ready, Report, StartFailed
from cogview.serving.options import EngineOptions

_SILENT_SECONDS = 10.0  # silence beyond the longest pass after which an engine counts as dead
_LAST_SECONDS = 0.5
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.2, 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkListener:
    """Callbacks for what happens to an engine.

    Args:
        on_report: a job had an event.
        on_ready: the engine is warm, at first or after a restart.
        on_lost: the engine died; its jobs have to be sent again once it is ready.
        on_start_failed: the first start failed.
        log: writes a line to the log.
    """

    on_report: Callable[[JobReport], None]
    on_ready: Callable[[], None]
    on_lost: Callable[[], None]
    on_start_failed: Callable[[StartFailed], None]
    log: Callable[[str], None]


@runtime_checkable
class Link(Protocol):
    """Connection to an engine. Methods are called in the event loop.

    Attributes:
        facts: properties of the model; None until the engine is first ready.
        heartbeat: the last one.
        is_ready: whether the engine is warm.
        num_starts: of the engine.
    """

    facts: ModelFacts | None
    heartbeat: Heartbeat | None
    is_ready: bool
    num_starts: int

    @property
    def silent_seconds(self) -> float:
        """Return the time since the engine's last message; 0 while it loads."""

    def start(self) -> None:
        """Start the engine."""

    def send(self, command: Command) -> None:
        """Send a command. If the engine is dead, it is lost, and `on_lost` is called."""

    async def close(self) -> None:
        """Stop the engine."""


class EngineLink:
    """Link to an engine in a child process, restarted if it ends or hangs.

    Args:
        options: of the engine.
        listener: receives the engine's reports.
    """

    def __init__(self, options: EngineOptions, listener: LinkListener) -> None:
        self._options = options
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._commands: SimpleQueue[Command | EngineOptions | None] = SimpleQueue()
        self._last_heard = 0.0
        self._is_closed = False
        self._failures = 0
        self._watch_task: asyncio.Task[None] | None = None
        self.facts: ModelFacts | None = None
        self.heartbeat: Heartbeat | None = None
        self.is_ready = False
        self.num_starts = 0

    @property
    def pid(self) -> int | None:
        """Return the process id of the engine."""
        return None if self._process is None else self._process.pid

    @property
    def silent_seconds(self) -> float:
        """Return the time since the engine's last message; 0 while it loads."""
        return time.monotonic() - self._last_heard if self.is_ready else 0.0

    def start(self) -> None:
        """Start the engine's process and watch it."""
        self._start_process()
        self._watch_task = asyncio.get_running_loop().create_task(self._watch())

    def send(self, command: Command) -> None:
        """Send a command. If the engine is dead, it is lost, and `on_lost` is called."""
        self._commands.put(command)

    async def close(self) -> None:
        """Stop the engine's process."""
        self._is_closed = True
        if self._watch_task is not None:
            self._watch_task.cancel()
        self._kill()

    def _start_process(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cogview.serving.engine_process", str(number)],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C must reach the server alone
                env=self._environment(),
            )
        self._socket, self._commands = ours, SimpleQueue()
        self._commands.put(self._options)
        self._last_heard = time.monotonic()
        self.num_starts += 1
        loop = asyncio.get_running_loop()
        for work in (self._write, self._read):
            threading.Thread(
                target=work, args=[Connection(os.dup(ours.fileno())), ours, self._commands, loop], daemon=True
            ).start()

    def _environment(self) -> dict[str, str]:
        num = self._options.num_threads
        return dict(os.environ) | ({} if num is None else {"OMP_NUM_THREADS": str(num)})

    @staticmethod
    def _write(connection: Connection, _: object, outbox: "SimpleQueue[object]", __: object) -> None:
        """Write queued commands, in a thread: a full pipe must not block the event loop."""
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
        """Pass the engine's reports to the event loop until the connection ends."""
        with connection:
            report: Report | None = None
            while True:
                try:
                    report = connection.recv()
                except (EOFError, OSError):
                    report = None
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._receive, owner, report)
                if report is None:
                    return

    def _receive(self, owner: socket.socket, report: Report | None) -> None:
        if owner is not self._socket:  # from a previous process
            return
        self._last_heard = time.monotonic()
        if isinstance(report, JobReport):
            self._listener.on_report(report)
        elif isinstance(report, Heartbeat):
            self.heartbeat = report
        elif isinstance(report, Ready):
            self.facts, self.is_ready, self._failures = report.facts, True, 0
            self._listener.on_ready()
        elif isinstance(report, StartFailed):
            if self.facts is None:
                self._is_closed = True  # a restart would fail, too
                self._listener.on_start_failed(report)
            else:  # it ran before: its device may come back
                self._listener.log(f"the engine cannot start: {report.message}")
        else:
            self._await_exit()
            self._handle_death()

    def _await_exit(self) -> None:
        """Give a silent process a moment to exit by itself, so that the log has its exit status."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)

    def _handle_death(self) -> None:
        """Kill the process, and start another with exponential backoff."""
        self._kill()
        if self._is_closed:
            return
        self._listener.log(f"the engine has ended ({self._status()}); starting another")
        self._listener.on_lost()
        wait = min(_FIRST_WAIT_SECONDS * 2**self._failures, _LONGEST_WAIT_SECONDS)
        self._failures += 1
        asyncio.get_running_loop().call_later(wait, self._restart)

    def _restart(self) -> None:
        if not self._is_closed:
            self._start_process()

    def _kill(self) -> None:
        self.is_ready = False
        self._commands.put(None)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # lets the threads end and close it
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _status(self) -> str:
        code = None if self._process is None else self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    async def _watch(self) -> None:
        """Restart an engine that has exited or is silent for too long."""
        while True:
            await asyncio.sleep(1)
            if self._socket is None:
                continue
            assert self._process is not None
            limit = self._options.stuck_seconds + _SILENT_SECONDS
            if self._process.poll() is not None or (self.is_ready and self.silent_seconds > limit):
                self._handle_death()
