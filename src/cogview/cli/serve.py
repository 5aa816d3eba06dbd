"""Verb `cogview serve`."""

import ipaddress
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from cogview.decoding.config import CacheName, DtypeName, KernelsName
from cogview.errors import UsageError
from cogview.runs.flags import FLAT
from cogview.runs.model_options import ModelOptions, ResourceOptions

if TYPE_CHECKING:
    from cogview.serving.options import EngineOptions, ServerOptions


@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """Who may use the server.

    Args:
        host: address to listen at; 127.0.0.1 is reachable from this machine alone. Other addresses need a key.
        port: to listen at; 0 picks a free one.
        api_key: one or more keys, of which clients must send one; by default none is needed. Other users see it in the
            list of processes: prefer a file or the variable COGVIEW_API_KEY.
        api_key_file: file with a key per line; by default none.
        allowed_host: accepted host names; on 127.0.0.1 without a key, this machine's own by default.
        cors_origin: sites whose pages may use the server, such as https://example.org; by default none.
    """

    GROUP: ClassVar[str] = "access"

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: tuple[str, ...] = ()
    api_key_file: Path | None = None
    allowed_host: tuple[str, ...] = ()
    cors_origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits for clients.

    Args:
        max_waiting: most unfinished candidates of all clients; further requests are answered with 429.
        max_connections: most open connections.
        drain_seconds: time for unfinished jobs at shutdown.
    """

    GROUP: ClassVar[str] = "limit"

    max_waiting: int = 1024
    max_connections: int = 500
    drain_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class ServeOptions(LimitOptions, ResourceOptions, ModelOptions, AccessOptions):
    """Options of the verb.

    Args:
        data: folder of the page's history and pictures.
        devices: several devices, such as cuda:0 cuda:1, with an engine on each; by default the one.
        engines: engines per device; on a CPU they share its cores.
        max_batch: pictures that an engine draws at once; a quarter more for clients who have none in the batch.
        memory: limit of an engine's process, such as 6GiB; by default all there is.
        log_format: of the log on stderr.
        quiet: log only warnings and errors.
    """

    data: Path = Path("out/served")
    devices: tuple[str, ...] = ()
    engines: int = 1
    log_format: Literal["text", "json"] = "text"
    quiet: bool = False


def run(options: Annotated[ServeOptions, FLAT]) -> None:
    """Serve an images API and a web page.

    The API is OpenAI's with additions, described at /openapi.json. The page's address is printed once the model is
    loaded and warm.

    Args:
        options: address, limits and engines.
    """
    for name in ("max_waiting", "max_connections"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} must be at least 1, got {getattr(options, name)}")
    if not 0 <= options.drain_seconds < 1e6:
        raise UsageError(f"drain_seconds must be 0 or more, got {options.drain_seconds}")
    try:
        from cogview.serving.logs import set_up_logs
        from cogview.serving.server import listening_socket, serve
    except ImportError as error:
        raise UsageError(
            f"serving needs more packages ({error.name} is missing): pip install '.[serve]' in the checkout"
        ) from error
    access = replace(
        server_options(
            options.host,
            options.api_key,
            options.api_key_file,
            options.allowed_host,
            options.cors_origin,
            options.data,
        ),
        max_waiting=options.max_waiting,
        max_connections=options.max_connections,
        drain_seconds=options.drain_seconds,
    )
    engines = engine_options(
        options.model,
        options.device,
        options.devices,
        options.engines,
        dtype=options.dtype,
        max_batch=options.max_batch,
        memory=options.memory,
        cache=options.cache,
        kernels=options.kernels,
    )
    set_up_logs(options.log_format, options.quiet)
    with listening_socket(options.host, options.port) as sock:
        serve(sock, access, engines)


def server_options(
    host: str,
    api_key: tuple[str, ...],
    api_key_file: Path | None,
    allowed_host: tuple[str, ...],
    cors_origin: tuple[str, ...],
    data: Path | None,
) -> "ServerOptions":
    """Build the limits for clients from flags.

    Raises:
        UsageError: the server is reachable from other machines without a key.
    """
    from cogview.serving.options import ServerOptions

    named = [os.environ["COGVIEW_API_KEY"]] if os.environ.get("COGVIEW_API_KEY") else []
    keys = (*api_key, *named, *(() if api_key_file is None else _keys_in(api_key_file)))
    if any(not key.strip() for key in keys):
        raise UsageError("an API key is empty")
    is_own = _is_loopback(host)
    if not is_own and not keys:
        raise UsageError(
            f"--host {host} is reachable from other machines: give --api-key or --api-key-file, or leave --host out"
        )
    names = tuple(name.lower() for name in allowed_host)
    if is_own and not keys and not names:
        names = ("localhost", "127.0.0.1", "::1", host.lower())
    for site in cors_origin:
        parts = urlsplit(site)
        if site != "*" and site != f"{parts.scheme}://{parts.netloc}":
            raise UsageError(
                f"--cors-origin must be a site such as https://example.org, without a path, or *, got {site}"
            )
    return ServerOptions(api_keys=keys, allowed_hosts=names, cors_origins=cors_origin, data=data)


def engine_options(
    model: str | None,
    device: str | None,
    devices: tuple[str, ...],
    num_engines: int,
    *,
    dtype: DtypeName | None,
    max_batch: int,
    memory: str | None,
    cache: CacheName,
    kernels: KernelsName,
) -> "list[EngineOptions]":
    """Build the options of each engine from flags.

    Raises:
        UsageError: the devices contradict or repeat each other, or there is no engine.
    """
    from cogview.serving.options import EngineOptions

    if device is not None and devices:
        raise UsageError("give --device or --devices, not both")
    if len(set(devices)) < len(devices):
        raise UsageError("--devices names a device twice: use --engines 2 for two engines on each")
    if num_engines < 1:
        raise UsageError(f"--engines must be at least 1, got {num_engines}")
    names = devices or (device,)
    num = len(names) * num_engines
    # Engines that each use all cores are several times slower than engines that share them.
    num_threads = (
        None if num == 1 or "OMP_NUM_THREADS" in os.environ else max((os.cpu_count() or 1) // num, 1)
    )
    return [
        EngineOptions(
            model=model,
            name=_name_of(model),
            device=name,
            dtype=dtype,
            max_batch=max_batch,
            memory=memory,
            cache=cache,
            kernels=kernels,
            num_threads=num_threads,
        )
        for name in names
        for _ in range(num_engines)
    ]


def _keys_in(path: Path) -> list[str]:
    try:
        keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {path} cannot be read ({error})") from error
    if not keys:
        raise UsageError(f"--api-key-file {path} holds no key")
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_of(model: str | None) -> str:
    """Return the model's name in the API."""
    return "cogview-bundled" if model is None else Path(model).name.replace(":", "-") or "cogview"
