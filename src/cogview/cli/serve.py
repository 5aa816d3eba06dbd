"""`cogview serve`: an images API and a page over the engine."""

import ipaddress
from pathlib import Path

from cogview.decoding.config import CacheName, DtypeName
from cogview.errors import UsageError


def run(
    *,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: tuple[str, ...] = (),
    api_key_file: Path | None = None,
    allowed_host: tuple[str, ...] = (),
    cors_origin: tuple[str, ...] = (),
    data: Path = Path("out/served"),
    device: str | None = None,
    dtype: DtypeName | None = None,
    max_batch: int = 16,
    memory: str | None = None,
    cache: CacheName = "auto",
) -> None:
    """Serve an images API, and a page to draw with.

    The API is OpenAI's, with more beside it; /openapi.json describes all of it. The page's address is printed once the
    model is loaded and warm.

    Args:
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        host: the address to listen at; 127.0.0.1 is seen by this machine alone. Elsewhere a key is needed.
        port: 0 takes a free one.
        api_key: ask clients for this key; several may be given.
        api_key_file: a file with a key on each line.
        allowed_host: answer to these names alone; on 127.0.0.1 without a key, to this machine's own by default.
        cors_origin: let pages of this site use the server, such as https://example.org.
        data: folder of the page's history and pictures.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights, as for `cogview generate`.
        max_batch: pictures that are worked on at once, at most.
        memory: of the engine's process, such as 6GiB.
        cache: what keys and values are held in; float16 halves them.
    """
    try:
        from cogview.serving.server import listening_socket, serve
    except ImportError as error:
        raise UsageError(
            f"serving needs further packages ({error.name} is missing): pip install 'cogview[serve]'"
        ) from error
    from cogview.serving.options import EngineOptions, ServerOptions

    keys = (*api_key, *(() if api_key_file is None else _keys_in(api_key_file)))
    if any(not key.strip() for key in keys):
        raise UsageError("an API key is empty")
    is_own = _is_loopback(host)
    if not is_own and not keys:
        raise UsageError(
            f"--host {host} is seen by other machines: give --api-key or --api-key-file, or leave --host out"
        )
    names = tuple(name.lower() for name in allowed_host)
    if is_own and not keys and not names:
        names = ("localhost", "127.0.0.1", "::1", host.lower())
    options = ServerOptions(api_keys=keys, allowed_hosts=names, cors_origins=cors_origin, data=data)
    engine = EngineOptions(
        model=model,
        name=_name_of(model),
        device=device,
        dtype=dtype,
        max_batch=max_batch,
        memory=memory,
        cache=cache,
    )
    with listening_socket(host, port) as sock:
        serve(sock, options, [engine])


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
    """Return what the model is called in the API."""
    return "cogview-bundled" if model is None else Path(model).name.replace(":", "-") or "cogview"
