"""A server in a thread whose engine draws only when a test says so."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from cogview.serving.app import application
from cogview.serving.engine_link import LinkListener
from cogview.serving.jobs import Jobs
from cogview.serving.messages import (
    Accepted,
    CancelJob,
    Command,
    Done,
    DrawJob,
    Heartbeat,
    JobEvent,
    JobReport,
    ModelFacts,
    Picture,
    Pixels,
    StartJob,
)
from cogview.serving.options import ServerOptions
from cogview.serving.server import Server, listening_socket

FACTS = ModelFacts(
    name="still",
    sizes=(16, 32),
    size_pixels=16,
    grid=(4, 4),
    guidance=1.5,
    top_p=0.9,
    max_batch=4,
    styles=("ink",),
    captioners=(),
    upscalers=(),
    words=(),
    num_parameters=1,
    device="cpu",
)

BLACK = Pixels(mode="RGB", size=(16, 16), data=bytes(3 * 16 * 16))


class StillLink:
    """The link to an engine that waits to be told what to do.

    Args:
        listener: is told what becomes of it.

    Attributes:
        begun: numbers of the jobs it was given.
        cancelled: numbers of those it was told to stop.
        works: what it was given, by number.
    """

    def __init__(self, listener: LinkListener) -> None:
        self._listener = listener
        self.facts: ModelFacts | None = FACTS
        self.heartbeat: Heartbeat | None = None
        self.is_ready = True
        self.num_starts = 1
        self.silent_seconds = 0.0
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.works: dict[int, DrawJob] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def send(self, command: Command) -> None:
        if isinstance(command, StartJob):
            assert isinstance(command.job, DrawJob)
            self.works[command.number] = command.job
            self.begun.append(command.number)
            self.tell(command.number, Accepted(text=command.job.text, num_pieces=1, num_codes=16))
        elif isinstance(command, CancelJob):
            self.cancelled.append(command.number)

    async def close(self) -> None:
        pass

    def tell(self, number: int, *events: JobEvent) -> None:
        """Tell of a job; any thread may."""
        for event in events:
            self._loop.call_soon_threadsafe(self._listener.on_report, JobReport(number=number, event=event))

    def draw(self, number: int) -> None:
        """Have a job's pictures drawn."""
        for place, seed in enumerate(self.works[number].seeds):
            self.tell(number, Picture(place=place, seed=seed, pixels=BLACK))
        self.tell(number, Done())


@dataclass(kw_only=True, eq=False)
class StillServer:
    """A server whose engine does what a test says.

    Args:
        url: its address, without a slash at the end.
        link: to the engine.
        jobs: that wait or are worked on.
    """

    url: str
    link: StillLink
    jobs: Jobs


@contextmanager
def still_server(options: ServerOptions | None = None) -> Iterator[StillServer]:
    """Start a server in a thread, yield it, and end it."""
    options = options or ServerOptions()
    links: list[StillLink] = []

    def new_link(listener: LinkListener) -> StillLink:
        links.append(StillLink(listener))
        return links[-1]

    jobs = Jobs(options, [new_link])
    config = uvicorn.Config(
        application(options, jobs), ws="none", lifespan="on", log_config=None, access_log=False
    )
    server = Server(config)
    with listening_socket("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield StillServer(url=f"http://127.0.0.1:{sock.getsockname()[1]}", link=links[0], jobs=jobs)
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)
