"""Serves the images API from many GPUs or machines, on Ray Serve: `cogview serve`, with its engines on a cluster.

    pip install '.[serve,ray]'
    python launch/serve_ray.py --replicas 2                        # two engines on this machine's CPU
    python launch/serve_ray.py --replicas 8 --gpus 1 --ray-address auto    # GPUs of a cluster that runs

One replica of a small deployment holds the web application and all jobs; each engine is a deployment of one replica,
so that a job goes to the engine with the least to do, and it is known which engine has it. See docs/serve-many.md.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
import ray
import tyro
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from cogview.cli.serve import engine_options, server_options
from cogview.decoding.config import CacheName, DtypeName
from cogview.errors import CogViewError, UsageError, printable
from cogview.serving.app import application
from cogview.serving.engine_replica import EngineReplica
from cogview.serving.jobs import Jobs
from cogview.serving.messages import JobEvent, ReplicaReport, StartJob
from cogview.serving.options import EngineOptions, ServerOptions
from cogview.serving.ray_link import RayLink, Stream
from cogview.serving.server import listening_socket

APP = "cogview"
LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)
_DRAIN_SECONDS = 40.0  # for which what was begun is ended; Ray gives up on all of it after 60
_SPARE_CALLS = 16  # of a replica, beside one a job: those that watch it, and those that are just ending
_STOP_SECONDS = 10.0  # beyond that, for engines to hear that the web application has ended


class Engine:
    """A replica with an engine."""

    async def __init__(self, options: EngineOptions) -> None:
        self._engine = EngineReplica(options)
        await self._engine.start()  # Ray counts the replica as begun when the engine is warm
        self.watch, self.work = self._engine.watch, self._engine.work

    def check_health(self) -> None:
        """Tell Ray whether the replica has to be replaced."""
        self._engine.check_health()


class Calls:
    """Calls of a replica of Ray Serve, as `RayLink` makes them.

    Args:
        handle: of the deployment with the replica.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle.options(stream=True)

    def watch(self, session: str) -> Stream[ReplicaReport]:
        """Call `EngineReplica.watch`."""
        return self._handle.watch.remote(session)

    def work(self, session: str, command: StartJob) -> Stream[JobEvent]:
        """Call `EngineReplica.work`."""
        return self._handle.work.remote(session, command)


def web_application(options: ServerOptions, names: list[str]) -> ASGIApp:
    """Return the web application over the engines of these deployments; it is called in its replica."""
    links: list[Callable[..., RayLink]] = [
        partial(RayLink, Calls(serve.get_deployment_handle(name, APP))) for name in names
    ]
    log = partial(print, "cogview:", file=sys.stderr, flush=True)
    return application(options, Jobs(options, links, log=log))


def deployments(
    options: ServerOptions, engines: list[EngineOptions], num_gpus: float, num_cpus: float
) -> serve.Application:
    """Return what Ray Serve is to run.

    Args:
        options: of the web application.
        engines: one deployment each.
        num_gpus: of each engine; a part of one is shared with others.
        num_cpus: of each engine.
    """
    here = f"node:{ray.util.get_node_ip_address()}"
    names = [f"engine-{number}" for number in range(len(engines))]
    bound = [
        serve.deployment(Engine)
        .options(
            name=name,
            num_replicas=1,
            # Each job is a call that goes on until it is done, and all may be one engine's: what waits has to wait in
            # the engine, which is fair to clients and draws in one batch, not in Ray's queue, which is neither.
            max_ongoing_requests=options.max_jobs + _SPARE_CALLS,
            ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
            graceful_shutdown_timeout_s=_DRAIN_SECONDS + _STOP_SECONDS,
            health_check_period_s=5,
        )
        .bind(engine)
        for name, engine in zip(names, engines, strict=True)
    ]

    def build() -> ASGIApp:
        return web_application(options, names)

    return (
        serve.deployment(serve.ingress(build)())
        .options(
            name="web",
            num_replicas=1,  # who has which job, in which order and what was drawn of it is known in one place
            max_ongoing_requests=options.max_connections,
            ray_actor_options={"num_cpus": 0, "resources": {here: 0.001}},  # where the page's data lie
            graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        )
        .bind(*bound)
    )


def run(
    *,
    replicas: int = 2,
    gpus: float = 0.0,
    cpus: float = 1.0,
    ray_address: str | None = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: tuple[str, ...] = (),
    api_key_file: Path | None = None,
    allowed_host: tuple[str, ...] = (),
    cors_origin: tuple[str, ...] = (),
    data: Path = Path("out/served"),
    dtype: DtypeName | None = None,
    max_batch: int = 16,
    memory: str | None = None,
    cache: CacheName = "auto",
) -> None:
    """Serve an images API with engines on a Ray cluster, until Ctrl-C.

    Args:
        replicas: engines, each with a copy of the model.
        gpus: of each engine; 0 computes on CPUs, 0.5 puts two on one GPU.
        cpus: cores of each engine.
        ray_address: of a cluster that runs, auto for this machine's; one of this machine alone is begun by default.
        model: as for `cogview serve`; every machine has to find the same one there.
        host: the address to listen at, as for `cogview serve`.
        port: 0 takes a free one.
        api_key: as for `cogview serve`.
        api_key_file: as for `cogview serve`.
        allowed_host: as for `cogview serve`.
        cors_origin: as for `cogview serve`.
        data: folder of the page's history and pictures, on this machine.
        dtype: of the weights, as for `cogview generate`.
        max_batch: pictures that an engine works on at once; a quarter more for clients who have none.
        memory: of an engine's process, such as 6GiB.
        cache: what keys and values are held in; float16 halves them.
    """
    if replicas < 1:
        raise UsageError(f"--replicas must be at least 1, got {replicas}")
    options = server_options(host, api_key, api_key_file, allowed_host, cors_origin, data.absolute())
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())  # replicas work in other folders
    device = "cuda" if gpus else "cpu"
    engines = replicas * engine_options(
        model, device, (), 1, dtype=dtype, max_batch=max_batch, memory=memory, cache=cache
    )
    with listening_socket(host, port) as sock:  # Ray's proxy would share a port that another one listens at
        port = sock.getsockname()[1]
    ray.init(address=ray_address or "local", include_dashboard=None if ray_address else False)
    try:
        _check_room(replicas, gpus, cpus)
        serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=LOGGING)
        try:
            _serve_until_told(deployments(options, engines, gpus, cpus), f"http://{host}:{port}/")
        finally:
            serve.delete(APP)
            if ray_address is None:
                serve.shutdown()  # on a cluster of others, others may serve too
    finally:
        ray.shutdown()


def _serve_until_told(app: serve.Application, address: str) -> None:
    try:
        serve.run(app, name=APP, route_prefix="/", logging_config=LOGGING)
    except RuntimeError as error:
        raise CogViewError(_why_not() or str(error)) from error
    print(f"cogview: ready at {address}", flush=True)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print("cogview: finishing the queued jobs; interrupt again to stop at once", file=sys.stderr, flush=True)


def _check_room(replicas: int, gpus: float, cpus: float) -> None:
    """Say so if the cluster can never hold the engines: Ray would wait for more machines without end.

    Raises:
        UsageError: it cannot.
    """
    has = ray.cluster_resources()
    for name, flag, wanted in (("GPU", "--gpus", gpus), ("CPU", "--cpus", cpus)):
        if replicas * wanted > has.get(name, 0):
            raise UsageError(
                f"--replicas {replicas} with {flag} {wanted:g} need {replicas * wanted:g} {name}s, and the cluster has "
                f"{has.get(name, 0):g}: take fewer, or add machines"
            )


def _why_not() -> str | None:
    """Return what Ray says of a deployment that failed: the last line of its error."""
    for deployment in serve.status().applications[APP].deployments.values():
        lines = [line.strip() for line in deployment.message.splitlines() if line.strip()]
        for line in reversed(lines):
            _, found, message = line.partition("CogViewError: ")
            message = message if found else line.partition("UsageError: ")[2]
            if message:
                return message
    return None


def main() -> int:
    """Run the command line."""
    try:
        tyro.cli(run, prog="serve_ray.py", config=(tyro.conf.FlagCreatePairsOff,))
    except CogViewError as error:
        print(f"cogview: error: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
