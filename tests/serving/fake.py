"""A server in this process whose engine draws tiny pictures at once, without a model.

    async with fake_server() as served:
        answer = await served.client.post("/v1/images/generations", json={"prompt": "a red circle"})

`served.engine` holds back, refuses, breaks or dies when a test says so.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from PIL import Image
from starlette.types import ASGIApp, Message

from cogview.generation.known_concepts import ColourConcept, Concept, KnownConcepts
from cogview.serving.app import application
from cogview.serving.engine_link import LinkListener
from cogview.serving.jobs import Jobs
from cogview.serving.messages import (
    Accepted,
    Answer,
    AnyJob,
    CancelJob,
    CaptionJob,
    Command,
    Done,
    DrawJob,
    Failed,
    Heartbeat,
    JobEvent,
    JobReport,
    ModelFacts,
    Picture,
    Pixels,
    Preview,
    RankJob,
    Refused,
    StartJob,
)
from cogview.serving.options import ServerOptions

SIDE = 8
FACTS = ModelFacts(
    name="fake",
    sizes=(SIDE, 2 * SIDE),
    size_pixels=SIDE,
    grid=(2, 2),
    guidance=2.0,
    top_p=0.9,
    max_batch=4,
    styles=("woodcut",),
    captioners=("captioner",),
    upscalers=("upscaler",),
    words=("a", "circle", "red"),
    known=KnownConcepts(
        things=(Concept(english=("circle",), chinese=("圆",)),),
        colours=(ColourConcept(english=("red",), chinese=("红色",), of=("grounds", "things")),),
        adapters={"woodcut": ("engraved",)},
        num_words=3,
    ),
    num_parameters=1,
    device="cpu",
)
ALIVE = Heartbeat(num_running=0, num_waiting=0, num_passes=1, num_codes=1, seconds_per_code=0.01)
URL = "http://127.0.0.1"


def picture_of(seed: int, side: int = SIDE) -> Pixels:
    """Return the picture that a seed draws: of one colour."""
    return Pixels.of(Image.new("RGB", (side, side), (seed % 256, seed // 256 % 256, 128)))


@dataclass(kw_only=True, eq=False)
class FakeEngine:
    """An engine that does what a test says; it is also the link to it.

    Args:
        listener: is told what becomes of it.
        facts: what is known of its model; None as long as it is not loaded.
        is_held: whether jobs wait until `release`.
        refusal: why each job is refused, if it is.
        fault: why each job breaks, if it does.
        pause_seconds: before each thing that is told of a job; at once, none of what is outdated is read.

    Attributes:
        commands: that it was told, in order.
        held: jobs that wait.
    """

    listener: LinkListener
    facts: ModelFacts | None = FACTS
    is_held: bool = False
    refusal: str | None = None
    fault: str | None = None
    pause_seconds: float = 0.0
    heartbeat: Heartbeat | None = ALIVE
    is_ready: bool = False
    num_starts: int = 0
    commands: list[Command] = field(default_factory=list)
    held: dict[int, AnyJob] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.heard

    def start(self) -> None:
        self.num_starts += 1
        self.is_ready = True
        self.listener.on_ready()

    def send(self, command: Command) -> None:
        self.commands.append(command)
        if isinstance(command, CancelJob):
            self.held.pop(command.number, None)
        else:
            self.held[command.number] = command.job
            if not self.is_held:
                self._begin(command.number)

    async def close(self) -> None:
        self.is_ready = False

    def release(self) -> None:
        """Answer what waits, and hold nothing back from now on."""
        self.is_held = False
        for number in list(self.held):
            self._begin(number)

    async def holds(self, num: int) -> None:
        """Wait until it holds so many jobs."""
        async with asyncio.timeout(10):
            while len(self.held) < num:
                await asyncio.sleep(0.001)

    def tell(self, number: int, event: JobEvent) -> None:
        """Tell something of a job."""
        self.listener.on_report(JobReport(number=number, event=event))

    def die(self) -> None:
        """Lose all jobs, as an engine that was killed."""
        self.is_ready = False
        self.held.clear()
        self.listener.on_lost()

    @property
    def cancelled(self) -> list[int]:
        """Return jobs that it was told to cancel."""
        return [each.number for each in self.commands if isinstance(each, CancelJob)]

    @property
    def begun(self) -> list[StartJob]:
        """Return jobs that it was given."""
        return [each for each in self.commands if isinstance(each, StartJob)]

    def _begin(self, number: int) -> None:
        job = self.held[number]
        events: list[JobEvent] = _answers(job)
        if self.refusal is not None:
            events = [Refused(message=self.refusal)]
        elif self.fault is not None:
            events = [Failed(message=self.fault)]
        asyncio.get_running_loop().call_later(self.pause_seconds, self._go_on, number, job, events)

    def _go_on(self, number: int, job: AnyJob, events: list[JobEvent]) -> None:
        if self.held.get(number) is not job:  # cancelled, or given to a dead engine
            return
        self.tell(number, events[0])
        if self.pause_seconds and events[1:]:
            asyncio.get_running_loop().call_later(self.pause_seconds, self._go_on, number, job, events[1:])
            return
        for event in events[1:]:
            self.tell(number, event)
        del self.held[number]


def _answers(job: AnyJob) -> list[JobEvent]:
    """Return what is told of a job: previews of the first candidate, its pictures, its end."""
    if isinstance(job, CaptionJob):
        captions = [
            {"text": f"caption {place}", "caption_loss": 1.0 + place} for place in range(job.num_captions)
        ]
        return [Accepted(), Answer(data=captions), Done()]
    if isinstance(job, RankJob):
        ranked = [{"index": place, "caption_loss": 1.0 + place} for place in range(len(job.images))]
        return [Accepted(), Answer(data=ranked), Done()]
    if not isinstance(job, DrawJob):
        larger = picture_of(0, SIDE * job.factor)
        return [Accepted(), Picture(place=0, seed=0, pixels=larger), Done()]
    side = job.options["size_pixels"]
    told: list[JobEvent] = [Accepted(text=job.text, num_pieces=len(job.text), num_codes=4 * len(job.seeds))]
    if job.is_previewed:
        told += [
            Preview(candidate=0, share=share, pixels=picture_of(job.seeds[0], side))
            for share in (0.25, 0.5, 0.75)
        ]
    kept = job.seeds if job.keep is None else job.seeds[: job.keep]
    loss = None if job.keep is None else 1.0
    told += [
        Picture(place=place, seed=seed, pixels=picture_of(seed, side), caption_loss=loss)
        for place, seed in enumerate(kept)
    ]
    return [*told, Done()]


@dataclass(frozen=True, kw_only=True)
class FakeServer:
    """A server in this process.

    Args:
        app: the application.
        client: asks it, without a network.
        engine: that draws for it.
        jobs: that wait or are worked on.
    """

    app: ASGIApp
    client: httpx.AsyncClient
    engine: FakeEngine
    jobs: Jobs


@asynccontextmanager
async def fake_server(options: ServerOptions | None = None, **headers: str) -> AsyncIterator[FakeServer]:
    """Start a server in this event loop, yield it, and end it.

    Args:
        options: what is taken from clients.
        headers: that its client sends, `_` standing for `-`.
    """
    options = ServerOptions() if options is None else options
    engines: list[FakeEngine] = []

    def linked(listener: LinkListener) -> FakeEngine:
        engines.append(FakeEngine(listener=listener))
        return engines[-1]

    jobs = Jobs(options, [linked], log=lambda _: None)
    app = application(options, jobs)
    async with _lifespan(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url=URL, headers=named) as client:
            yield FakeServer(app=app, client=client, engine=engines[0], jobs=jobs)


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Begin and end an application as a server does."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    running = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, to_app.get, from_app.put))
    for name in ("startup", "shutdown"):
        await to_app.put({"type": f"lifespan.{name}"})
        told = asyncio.ensure_future(from_app.get())
        await asyncio.wait([told, running], return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            told.cancel()
            running.result()
        assert (await told)["type"] == f"lifespan.{name}.complete"
        if name == "startup":
            try:
                yield
            except BaseException:
                running.cancel()
                raise
    await running
