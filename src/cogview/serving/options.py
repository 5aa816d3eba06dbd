"""Options of engines and limits of a server. Does not import PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path

from cogview.decoding.config import CacheName, DtypeName, KernelsName


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of an engine's process.

    Args:
        model: model folder, as for `cogview.load`.
        name: of the model in the API.
        device: as for `cogview.load`, as are `dtype`, `memory`, `cache` and `kernels`.
        max_batch: pictures drawn at once; a quarter more for clients who have none in the batch.
        stuck_seconds: length of a pass after which the engine counts as dead.
        num_threads: CPU threads; PyTorch's default if None.
    """

    model: str | None = None
    name: str = "cogview"
    device: str | None = None
    dtype: DtypeName | None = None
    max_batch: int = 16
    memory: str | None = None
    cache: CacheName = "auto"
    kernels: KernelsName = "auto"
    stuck_seconds: float = 120.0
    num_threads: int | None = None

    @property
    def num_reserved(self) -> int:
        """Return the number of extra slots for clients who have none in the batch."""
        return self.max_batch // 4


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Limits and access rules for clients.

    Args:
        api_keys: accepted keys; no key is needed if empty.
        allowed_hosts: accepted host names; any if empty.
        cors_origins: origins of other sites' pages that may use the server.
        max_body_bytes: of a request.
        max_upload_bytes: bodies and decoded pictures of all open requests.
        max_image_pixels: of an uploaded picture.
        max_text_characters: of a text.
        max_pictures: of a request.
        max_candidates: of a request.
        max_jobs: unfinished jobs.
        max_waiting: unfinished candidates of all clients.
        max_job_bytes: input pictures of all unfinished jobs.
        max_client_share: of one client in jobs, candidates and bytes, from 0 to 1.
        max_job_seconds: after which a job fails.
        read_seconds: within which a request must arrive.
        write_seconds: within which a client must read each part of an answer.
        max_connections: open at once.
        url_seconds: lifetime of a picture's url.
        max_url_bytes: pictures available by url.
        data: folder of the page's jobs and pictures; no page if None.
        max_stored_jobs: of the page; the oldest are deleted.
        drain_seconds: time for unfinished jobs at shutdown.
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
