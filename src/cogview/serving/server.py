"""The server: it listens, says when it is warm, and ends when it is told to, after what it has begun."""

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
from cogview.serving.messages import CannotBegin
from cogview.serving.options import EngineOptions, ServerOptions

_LOG = logging.getLogger("cogview.serving")
_HEAD_SECONDS = 20.0  # in which the head of a request has to arrive
_KEEP_ALIVE_SECONDS = 30
_UNSENT_SECONDS = 30.0  # in which a reader has to take some of what is left of an answer
_MAX_HEAD_BYTES = 32 * 1024


class _Protocol(H11Protocol):
    """HTTP/1.1 that waits for ever neither for the head of a request nor for a reader.

    Connections that ask for nothing make room for new ones: else a few clients could hold them all.
    """

    _patience: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle | None = None
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
        self._patience = self.loop.call_later(_HEAD_SECONDS, self._lose_patience)
        self._looking = self.loop.call_later(_UNSENT_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._patience is None and self._is_idle:
            self._patience = self.loop.call_later(_HEAD_SECONDS, self._lose_patience)

    def on_response_complete(self) -> None:
        self._idle_since, self._num_unsent = self.loop.time(), inf
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._patience, self._looking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        """End the connection that has been idle for longest."""
        others = [each for each in self.connections if isinstance(each, _Protocol) and each is not self]
        idle = [each for each in others if each._is_idle]
        if idle:
            longest = min(idle, key=lambda each: each._idle_since)
            self.connections.discard(longest)
            longest.transport.abort()

    def _lose_patience(self) -> None:
        self._patience = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()

    def _look(self) -> None:
        """Give up a reader who takes nothing of an answer that has ended, which `close` would wait for."""
        self._looking = self.loop.call_later(_UNSENT_SECONDS, self._look)
        num_unsent = self.transport.get_write_buffer_size()
        if num_unsent and num_unsent >= self._num_unsent and (self._is_idle or self.transport.is_closing()):
            self.transport.abort()
        self._num_unsent = num_unsent


class Server(uvicorn.Server):
    """A server whose signals are handled by others."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        CogViewError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        raise CogViewError(
            f"nothing can be served at {host}:{port} ({error}): choose another --port or --host"
        ) from error
    return sock


def serve(sock: socket.socket, options: ServerOptions, engines: list[EngineOptions]) -> None:
    """Serve until a signal asks for the end.

    Args:
        sock: listens.
        options: what is taken from clients.
        engines: how each engine is begun.

    Raises:
        CogViewError: the model cannot be loaded.
    """
    asyncio.run(_serve(sock, options, engines))


async def _serve(sock: socket.socket, options: ServerOptions, engines: list[EngineOptions]) -> None:
    loop = asyncio.get_running_loop()
    hopeless: asyncio.Future[CannotBegin] = loop.create_future()
    asked_to_end = asyncio.Event()
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    is_told = False

    def tell_ready() -> None:
        nonlocal is_told
        if not is_told:
            print(f"cogview: ready at http://{shown}:{port}/", flush=True)
        is_told = True

    def cannot(told: CannotBegin) -> None:
        if not hopeless.done():
            hopeless.set_result(told)

    jobs = Jobs(
        options,
        [partial(EngineLink, each) for each in engines],
        on_ready=tell_ready,
        on_hopeless=cannot,
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
    await asyncio.wait([serving, ending, hopeless], return_when=asyncio.FIRST_COMPLETED)
    if asked_to_end.is_set() and jobs.num_jobs:
        _LOG.warning("ending what was begun; once more to end at once")
        asked_to_end.clear()
        again = asyncio.create_task(asked_to_end.wait())
        await asyncio.wait(
            [asyncio.create_task(jobs.drain(options.drain_seconds)), again],
            return_when=asyncio.FIRST_COMPLETED,
        )
    server.should_exit = True
    await serving
    if hopeless.done():
        told = hopeless.result()
        raise (UsageError if told.is_usage else CogViewError)(told.message)
