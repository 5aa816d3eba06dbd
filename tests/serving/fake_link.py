"""An engine that does nothing by itself, and remembers what it was told."""

from collections.abc import Callable

from cogview.serving.engine_link import LinkListener
from cogview.serving.messages import (
    Accepted,
    AnyJob,
    Command,
    Done,
    DrawJob,
    Heartbeat,
    JobEvent,
    JobReport,
    ModelFacts,
    Picture,
    Pixels,
    Preview,
    StartFailed,
    StartJob,
)

FACTS = ModelFacts(
    name="fake",
    sizes=(4,),
    size_pixels=4,
    grid=(2, 2),
    guidance=1.0,
    top_p=1.0,
    max_batch=4,
    styles=(),
    captioners=(),
    upscalers=(),
    words=(),
    num_parameters=1,
    device="cpu",
)
PIXELS = Pixels(mode="RGB", size=(4, 4), data=bytes(48))


class FakeLink:
    """A link whose engine is moved by the test."""

    def __init__(self, listener: LinkListener) -> None:
        self.listener = listener
        self.facts: ModelFacts | None = None
        self.heartbeat: Heartbeat | None = None
        self.is_ready = False
        self.num_starts = 0
        self.silent_seconds = 0.0
        self.has: dict[int, AnyJob] = {}
        self.is_closed = False

    def start(self) -> None:
        self.num_starts += 1

    def send(self, command: Command) -> None:
        if not self.is_ready:
            return
        if isinstance(command, StartJob):
            assert command.number not in self.has
            self.has[command.number] = command.job
        else:
            self.has.pop(command.number, None)

    async def close(self) -> None:
        self.is_closed = True

    def warm(self) -> None:
        self.facts, self.is_ready = FACTS, True
        self.listener.on_ready()

    def die(self) -> None:
        self.is_ready, self.has = False, {}
        self.listener.on_lost()

    def fail(self, message: str, *, is_usage: bool = False) -> None:
        self.listener.on_start_failed(StartFailed(message=message, is_usage=is_usage))

    def tell(self, number: int, event: JobEvent) -> None:
        self.listener.on_report(JobReport(number=number, event=event))

    def picture(self, number: int, place: int = 0) -> Picture:
        job = self.has[number]
        assert isinstance(job, DrawJob)
        return Picture(place=place, seed=job.seeds[place], pixels=PIXELS)

    def finish(self, number: int) -> None:
        """Tell all that an engine tells of a job."""
        job = self.has[number]
        assert isinstance(job, DrawJob)
        self.tell(number, Accepted())
        self.tell(number, Preview(candidate=0, share=0.5, pixels=PIXELS))
        for place in range(len(job.seeds)):
            self.tell(number, self.picture(number, place))
        del self.has[number]
        self.tell(number, Done())


def draw(num: int = 1, first: int = 0) -> DrawJob:
    return DrawJob(text="a fish", seeds=tuple(range(first, first + num)))


LinkMaker = Callable[[LinkListener], FakeLink]
