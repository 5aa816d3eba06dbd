"""ASGI middleware: checks host, origin and key, limits size and time, and logs requests.

Not a Starlette `BaseHTTPMiddleware` (1.10): below one, handlers never learn that their client has left.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cogview.generation.fair_queue import Client
from cogview.serving.http import ApiError
from cogview.serving.memory_budget import MemoryBudget, RequestMemory
from cogview.serving.options import ServerOptions

LOG = logging.getLogger("cogview.serving")

_OPEN_PATHS = ("/livez", "/readyz", "/", "/favicon.ico", "/openapi.json")
_POLLED_PATHS = ("/livez", "/readyz", "/metrics")
_OPEN_FOLDERS = ("/page/", "/files/", "/pictures/")
_API_FOLDERS = ("/v1/", "/sdapi/", "/api/")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_open(path: str) -> bool:
    """Return whether a path needs no API key."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)


class GuardMiddleware:
    """Middleware that rejects forbidden and oversized requests, and gives each request an id.

    Args:
        app: wrapped application.
        options: limits for clients.
        on_answer: called with scope, status (499 if the client left) and seconds of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        options: ServerOptions,
        on_answer: Callable[[Scope, int, float], None] = lambda *_: None,
    ) -> None:
        self._app = app
        self._options = options
        self._on_answer = on_answer
        self._keys = [hashlib.sha256(key.encode()).digest() for key in options.api_keys]
        self._memory = MemoryBudget(options.max_upload_bytes)
        self._num_open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_API_FOLDERS):  # with a redirect some clients drop body or key
            scope = {**scope, "path": scope["path"].rstrip("/")}
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not (0 < len(request_id) <= 64 and request_id.isascii() and request_id.replace("-", "").isalnum()):
            request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 0

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    answer.setdefault(name, value)
                answer.setdefault("Cache-Control", "no-store")
            try:
                async with asyncio.timeout(self._options.write_seconds):
                    await send(message)
            except TimeoutError as error:
                raise ClientIsGone("it takes nothing any more") from error

        try:
            try:
                self._check_origin(headers)
                scope["state"]["client"] = self._client_of(scope, headers)
                with self._memory.share() as memory, self._count_request(scope):
                    scope["state"]["memory"] = memory
                    await self._app(scope, self._limit_body(headers, receive, memory), guarded_send)
            except ApiError as error:
                if status:
                    raise
                await error.response(scope["path"])(scope, receive, guarded_send)
        except (ClientIsGone, ClientDisconnect):
            status = status or 499
        except Exception as error:
            LOG.exception("request %s failed", request_id)
            if status:
                raise ClientIsGone("the answer cannot be ended") from error
            status = 500
            failure = ApiError(
                500, f"the server failed; its log has more about {request_id}", code="server_error"
            )
            with contextlib.suppress(ClientIsGone):
                await failure.response(scope["path"])(scope, receive, guarded_send)
        finally:
            seconds = time.monotonic() - started
            self._on_answer(scope, status, seconds)
            LOG.log(
                logging.DEBUG if scope["path"] in _POLLED_PATHS and status < 500 else logging.INFO,
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(seconds, 4),
                },
            )

    def _check_origin(self, headers: Headers) -> None:
        """Reject foreign host names (DNS rebinding) and origins.

        Raises:
            ApiError: host or origin is not allowed.
        """
        host, options = headers.get("host", ""), self._options
        name = (_hostname(f"//{host}") or "").lower()
        if options.allowed_hosts and name not in options.allowed_hosts:
            raise ApiError(
                403, "the server is not known by that name (--allowed-host)", code="host_not_allowed"
            )
        origin = headers.get("origin")
        if origin in (None, *options.cors_origins) or "*" in options.cors_origins:
            return
        if _address(origin or "") != host:
            raise ApiError(403, "pages of other sites are refused (--cors-origin)", code="origin_not_allowed")

    @contextlib.contextmanager
    def _count_request(self, scope: Scope) -> Iterator[None]:
        """Count a request among those of its address, which may use half of the connections.

        Raises:
            ApiError: too many are open.
        """
        address = (scope.get("client") or ("", 0))[0]
        if self._num_open[address] >= max(self._options.max_connections // 2, 1):
            raise ApiError(429, "too many requests at once from your address", code="busy", retry_seconds=2)
        self._num_open[address] += 1
        try:
            yield
        finally:
            self._num_open[address] -= 1
            if not self._num_open[address]:
                del self._num_open[address]

    def _client_of(self, scope: Scope, headers: Headers) -> Client:
        """Identify the client by key and address.

        Raises:
            ApiError: a valid key is missing.
        """
        address = (scope.get("client") or ("", 0))[0]
        if not self._keys or is_open(scope["path"]) or scope["method"] == "OPTIONS":
            return (address,)
        key = _key_of(headers)
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        matches = [hmac.compare_digest(digest, each) for each in self._keys]
        if not any(matches):
            message = "that is none of the server's API keys" if key else "give the server's API key"
            raise ApiError(401, f"{message}: Authorization: Bearer KEY", code="invalid_api_key")
        return (f"{digest.hex()[:12]}@{address}",)

    def _limit_body(self, headers: Headers, receive: Receive, memory: RequestMemory) -> Receive:
        """Wrap `receive` with the limits on a body's size and time."""
        options = self._options
        end = time.monotonic() + options.read_seconds
        is_read = False
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdecimal() and int(declared) > options.max_body_bytes:
            raise _too_large(options)

        async def limited_receive() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            try:
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time() + max(end - time.monotonic(), 0)
                ):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(408, "the request did not arrive in time", code="timeout") from error
            if message["type"] == "http.request":
                memory.take(len(message.get("body", b"")))
                if memory.num_bytes > options.max_body_bytes:
                    raise _too_large(options)
                is_read = not message.get("more_body", False)
            return message

        return limited_receive


class ClientIsGone(Exception):
    """The client does not read the answer."""


def _too_large(options: ServerOptions) -> ApiError:
    return ApiError(
        413,
        f"a request may have {options.max_body_bytes:,} bytes: send smaller pictures",
        code="request_too_large",
    )


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _address(origin: str) -> str | None:
    """Return host and port of an origin; None if malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _key_of(headers: Headers) -> str:
    """Return the key from one of the usual headers; with basic authentication the password."""
    for name in ("x-api-key", "api-key"):
        if name in headers:
            return headers[name]
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(value).decode(errors="replace").partition(":")[2]
    return value.strip() if kind.lower() == "bearer" else ""
