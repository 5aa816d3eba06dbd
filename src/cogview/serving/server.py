"""HTTP server process: listens, reports readiness, and shuts down gracefully."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from functools import partial
from math import inf
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cogview.errors import CogViewError, UsageError
from cogview.serving.app import application
from cogview.serving.engine_link import EngineLink
from cogview.serving.jobs import Jobs
from cogview.serving.messages import StartFailed
from cogview.serving.options import EngineOptions, ServerOptions

_LOG = logging.getLogger("cogview.serving")
_HEAD_SECONDS = 20.0  # within which a request's headers must arrive
_KEEP_ALIVE_SECONDS = 30
_UNSENT_SECONDS = 30.0  # within which a client must read some of a finished answer
_MAX_HEAD_BYTES = 32 * 1024


class _Protocol(H11Protocol):
    """HTTP/1.1 with time limits for headers and slow readers.

    At the connection limit, new connections replace idle ones, so that a few clients cannot occupy all.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _num_unsent: float = inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) >= limit:
            self._make_room()
        if limit is not None and len(self.connections) > 2 * limit:
            transport.abort()
            return
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._close_if_idle)
        self._reader_timer = self.loop.call_later(_UNSENT_SECONDS, self._check_reader)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is None and self._is_idle:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._close_if_idle)

    def on_response_complete(self) -> None:
        self._idle_since, self._num_unsent = self.loop.time(), inf
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        """Close the connection that has been idle for longest."""
        others = [each for each in self.connections if isinstance(each, _Protocol) and each is not self]
        idle = [each for each in others if each._is_idle]
        if idle:
            longest = min(idle, key=lambda each: each._idle_since)
            self.connections.discard(longest)
            longest.transport.abort()

    def _close_if_idle(self) -> None:
        self._head_timer = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()

    def _check_reader(self) -> None:
        """Abort a connection whose client reads nothing of a finished answer; `close` would wait for it."""
        self._reader_timer = self.loop.call_later(_UNSENT_SECONDS, self._check_reader)
        num_unsent = self.transport.get_write_buffer_size()
        if num_unsent and num_unsent >= self._num_unsent and (self._is_idle or self.transport.is_closing()):
            self.transport.abort()
        self._num_unsent = num_unsent


class Server(uvicorn.Server):
    """Uvicorn server without signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not install signal handlers."""
        yield


def listening_socket(host: str, port: int) -> socket.socket:
    """Bind a socket.

    Raises:
        CogViewError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        raise CogViewError(
            f"cannot listen at {host}:{port} ({error}): choose another --port or --host"
        ) from error
    return sock


def serve(sock: socket.socket, options: ServerOptions, engines: list[EngineOptions]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        sock: bound socket.
        options: limits for clients.
        engines: options of each engine.

    Raises:
        CogViewError: the model cannot be loaded.
    """
    asyncio.run(_serve(sock, options, engines))


async def _serve(sock: socket.socket, options: ServerOptions, engines: list[EngineOptions]) -> None:
    loop = asyncio.get_running_loop()
    failure: asyncio.Future[StartFailed] = loop.create_future()
    asked_to_end = asyncio.Event()
    host, port = sock.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    is_told = False

    def tell_ready() -> None:
        nonlocal is_told
        if not is_told:
            print(f"cogview: ready at http://{shown_host}:{port}/", flush=True)
        is_told = True

    def set_failure(event: StartFailed) -> None:
        if not failure.done():
            failure.set_result(event)

    jobs = Jobs(
        options,
        [partial(EngineLink, each) for each in engines],
        on_ready=tell_ready,
        on_start_failed=set_failure,
        log=_LOG.warning,
    )
    config = uvicorn.Config(
        application(options, jobs),
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=options.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )
    server = Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_end.set)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    ending: asyncio.Task[Any] = asyncio.create_task(asked_to_end.wait())
    await asyncio.wait([serving, ending, failure], return_when=asyncio.FIRST_COMPLETED)
    if asked_to_end.is_set() and jobs.num_jobs:
        _LOG.warning("finishing the queued jobs; interrupt again to stop at once")
        asked_to_end.clear()
        again = asyncio.create_task(asked_to_end.wait())
        await asyncio.wait(
            [asyncio.create_task(jobs.drain(options.drain_seconds)), again],
            return_when=asyncio.FIRST_COMPLETED,
        )
    server.should_exit = True
    await serving
    if failure.done():
        message = failure.result()
        raise (UsageError if message.is_usage else CogViewError)(message.message)
