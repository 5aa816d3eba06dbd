"""What a server may take, and how long it waits. Nothing here needs PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path

from cogview.decoding.config import CacheName, DtypeName


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine's process is begun.

    Args:
        model: as `cogview.load` takes it.
        name: of the model, for clients.
        device: as for `cogview.load`, as are `dtype`, `memory` and `cache`.
        max_batch: pictures that are worked on at once; a quarter more for clients who have none.
        stuck_seconds: after so long a pass the engine counts as dead.
        num_threads: that compute on a CPU; as many as PyTorch takes by itself if None.
    """

    model: str | None = None
    name: str = "cogview"
    device: str | None = None
    dtype: DtypeName | None = None
    max_batch: int = 16
    memory: str | None = None
    cache: CacheName = "auto"
    stuck_seconds: float = 120.0
    num_threads: int | None = None

    @property
    def num_reserved(self) -> int:
        """Return how many places there are beside `max_batch`, for clients who have none."""
        return self.max_batch // 4


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What is taken from clients.

    Args:
        api_keys: one of them has to be given; none is asked for if there are none.
        allowed_hosts: names by which the server may be called; any if empty.
        cors_origins: pages of other sites that may use it.
        max_body_bytes: of a request.
        max_upload_bytes: that all requests hold, bodies and decoded pictures.
        max_image_pixels: of a picture, told before it is decoded.
        max_text_characters: of a text.
        max_pictures: of a request.
        max_candidates: of a request.
        max_jobs: that wait or are worked on.
        max_waiting: candidates that wait or are worked on, for all clients.
        max_job_bytes: of the pictures that all jobs were given.
        max_client_share: of jobs and candidates, for one client.
        max_job_seconds: after which a job is given up.
        read_seconds: in which a request has to arrive.
        write_seconds: in which a client has to take each part of an answer.
        max_connections: open at once.
        url_seconds: how long the url of a picture lives.
        max_url_bytes: of pictures that wait to be fetched by url.
        data: folder of the page's jobs and pictures; the page keeps nothing if None.
        max_stored_jobs: of the page; the oldest are forgotten.
        drain_seconds: for which a server that ends goes on with what it has begun.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 * 2**20
    max_upload_bytes: int = 256 * 2**20
    max_image_pixels: int = 25_000_000
    max_text_characters: int = 32_000
    max_pictures: int = 10
    max_candidates: int = 64
    max_jobs: int = 256
    max_waiting: int = 1024
    max_job_bytes: int = 512 * 2**20
    max_client_share: float = 0.75
    max_job_seconds: float = 600.0
    read_seconds: float = 30.0
    write_seconds: float = 30.0
    max_connections: int = 500
    url_seconds: float = 3600.0
    max_url_bytes: int = 256 * 2**20
    data: Path | None = None
    max_stored_jobs: int = 5_000
    drain_seconds: float = 60.0
