"""Connections that ask for nothing, or take nothing, keep nobody out."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from cogview.serving import server

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 * 2**20


async def _app(scope, receive, send):  # type: ignore[no-untyped-def]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(1 if scope["path"] == "/" else LARGE)})


@contextlib.asynccontextmanager
async def _listening(limit: int) -> AsyncIterator[tuple[int, ServerState]]:
    config = uvicorn.Config(_app, lifespan="off", limit_concurrency=limit, log_config=None)
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: server._Protocol(config, state, {}), "127.0.0.1", 0
    )
    try:
        yield listener.sockets[0].getsockname()[1], state
    finally:
        listener.close()
        for each in list(state.connections):
            each.transport.abort()
        await asyncio.sleep(0)


def test_idle_connections_make_room_for_new_ones() -> None:
    async def ask() -> None:
        async with _listening(limit=5) as (port, _):
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD)
            assert b"200" in await reader.readline()
            # The first have made room.
            assert await asyncio.wait_for(_end(idle[0][0]), 5) == b""
            for _, each in [*idle, (reader, writer)]:
                each.close()

    asyncio.run(ask())


async def _end(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


def test_a_reader_who_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_UNSENT_SECONDS", 0.1)

    async def ask() -> None:
        async with _listening(limit=5) as (port, state):
            with socket.socket() as reader:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect(("127.0.0.1", port))
                reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                async with asyncio.timeout(10):
                    while not state.total_requests:
                        await asyncio.sleep(0.01)
                    while state.connections:
                        await asyncio.sleep(0.01)

    asyncio.run(ask())


class _Slow(asyncio.Transport):
    """A transport of which a test says how much is not sent."""

    num_unsent = 0
    is_given_up = False

    def get_write_buffer_size(self) -> int:
        return self.num_unsent

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        self.is_given_up = True


def test_a_reader_is_given_up_only_when_nothing_more_is_taken() -> None:
    async def look() -> None:
        config = uvicorn.Config(_app, lifespan="off", log_config=None)
        config.load()
        transport = _Slow()
        protocol = server._Protocol(config, ServerState(), {})
        protocol.connection_made(transport)
        given_up = []
        for transport.num_unsent in (300, 200, 100, 100):
            protocol._check_reader()
            given_up.append(transport.is_given_up)
        assert given_up == [False, False, False, True]

    asyncio.run(look())
