"""Messages between the web server and an engine's process. Does not import PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image

from cogview.generation.fair_queue import Client
from cogview.generation.known_concepts import KnownConcepts


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Uncompressed picture, to be sent between processes.

    Args:
        mode: RGB, or L for a mask.
        size: width and height in pixels.
        data: 8-bit samples, row by row.
    """

    mode: str
    size: tuple[int, int]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, image: Image.Image) -> "Pixels":
        """Copy the pixels of a picture."""
        return cls(mode=image.mode, size=image.size, data=image.tobytes())

    def image(self) -> Image.Image:
        """Return them as a picture."""
        return Image.frombytes(self.mode, self.size, self.data)


@dataclass(frozen=True, kw_only=True)
class DrawJob:
    """Job: pictures of a text.

    Args:
        text: prompt.
        seeds: one per candidate.
        keep: number of best candidates to return; all, unranked, if None.
        options: fields of `PictureOptions` that are plain data.
        image: picture to inpaint.
        mask: part to inpaint: a picture that is white there, a half, or a share of the codes.
        is_previewed: whether to send previews.
    """

    text: str
    seeds: tuple[int, ...]
    keep: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    image: Pixels | None = None
    mask: Pixels | str | float | None = None
    is_previewed: bool = False


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """Job: captions of a picture.

    Args:
        image: the picture.
        num_captions: number of captions.
        options: fields of `CaptionOptions`.
        seed: of the captions, if they are sampled.
    """

    image: Pixels
    num_captions: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """Job: ranking of pictures by the CapLoss of a text.

    Args:
        text: caption to score.
        images: the pictures.
    """

    text: str
    images: tuple[Pixels, ...]


@dataclass(frozen=True, kw_only=True)
class UpscaleJob:
    """Job: an upscaled picture.

    Args:
        image: the picture.
        text: what it shows.
        factor: 2 or 4.
        force: accept pictures that the image tokenizer reconstructs badly.
    """

    image: Pixels
    text: str = ""
    factor: int = 2
    force: bool = False


AnyJob: TypeAlias = DrawJob | CaptionJob | RankJob | UpscaleJob


def job_pixels(job: AnyJob) -> tuple[Pixels, ...]:
    """Return the input pictures of a job."""
    if isinstance(job, RankJob):
        return job.images
    inputs = (job.image, job.mask) if isinstance(job, DrawJob) else (job.image,)
    return tuple(each for each in inputs if isinstance(each, Pixels))


@dataclass(frozen=True, kw_only=True)
class StartJob:
    """Command to start a job.

    Args:
        number: identifies the job in reports.
        client: who asked; slots are shared fairly among clients.
        job: what to do.
    """

    number: int
    client: Client
    job: AnyJob


@dataclass(frozen=True, kw_only=True)
class CancelJob:
    """Command to stop a job."""

    number: int


Command: TypeAlias = StartJob | CancelJob


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Properties of the loaded model.

    Args:
        name: of the model.
        sizes: supported picture sizes, in pixels a side.
        size_pixels: default size.
        grid: rows and columns of codes.
        guidance: default guidance.
        top_p: default top-p.
        max_batch: pictures drawn at once.
        styles: names of style adapters.
        captioners: names of adapters that caption and rank.
        upscalers: names of adapters that upscale.
        words: most frequent words of its training captions; empty if unknown.
        num_parameters: of the transformer.
        device: on which it runs.
        suggestions: example prompts, by language.
        known: vocabulary by category; empty if unknown.
    """

    name: str
    sizes: tuple[int, ...]
    size_pixels: int
    grid: tuple[int, int]
    guidance: float
    top_p: float
    max_batch: int
    styles: tuple[str, ...]
    captioners: tuple[str, ...]
    upscalers: tuple[str, ...]
    words: tuple[str, ...]
    num_parameters: int
    device: str
    suggestions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: KnownConcepts = field(default_factory=KnownConcepts)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine is loaded and warm."""

    facts: ModelFacts


@dataclass(frozen=True, kw_only=True)
class StartFailed:
    """The model cannot be loaded.

    Args:
        message: one line.
        is_usage: whether the options are to blame (`UsageError`).
    """

    message: str
    is_usage: bool


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Sign of life with the engine's load.

    Args:
        num_running: requests in the batch.
        num_waiting: requests that wait for a slot.
        num_passes: passes since the engine started.
        num_codes: codes drawn since the engine started.
        seconds_per_code: recent average over the whole batch.
    """

    num_running: int
    num_waiting: int
    num_passes: int
    num_codes: int
    seconds_per_code: float


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job was checked and will run.

    Args:
        text: prompt as the model reads it.
        unknown_words: words that were not in its training captions.
        is_cut: whether the text was truncated.
        num_pieces: pieces of the text.
        num_codes: codes to draw.
    """

    text: str = ""
    unknown_words: tuple[str, ...] = ()
    is_cut: bool = False
    num_pieces: int = 0
    num_codes: int = 0


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A job's request is invalid."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A job failed through an error of the server.

    Args:
        message: one line, for the log.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Unfinished picture.

    Args:
        candidate: index of its seed.
        share: of its codes that are drawn, from 0 to 1.
        pixels: light grey where no code is drawn yet.
    """

    candidate: int
    share: float
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Finished picture.

    Args:
        place: index among the pictures of its job, best first if ranked.
        seed: reproduces it.
        pixels: the picture.
        caption_loss: CapLoss in nats per piece, if ranked.
        drawn_text: prompt that was used, if words were replaced or respelt.
        is_plain: whether it is of one colour.
        num_passes: passes that it took.
    """

    place: int
    seed: int
    pixels: Pixels
    caption_loss: float | None = None
    drawn_text: str | None = None
    is_plain: bool = False
    num_passes: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Result of a caption or rank job, as plain data."""

    data: Any


@dataclass(frozen=True, kw_only=True)
class Done:
    """A job is done."""


JobEvent: TypeAlias = Accepted | Refused | Failed | Preview | Picture | Answer | Done


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """An event of a job, with the job's number."""

    number: int
    event: JobEvent


Report: TypeAlias = Ready | StartFailed | Heartbeat | JobReport


@dataclass(frozen=True, kw_only=True)
class EngineLost:
    """A replica's engine died and is restarted."""

    message: str


@dataclass(frozen=True, kw_only=True)
class ReplicaAlive:
    """The replica is reachable, but its engine has sent no new heartbeat."""


ReplicaReport: TypeAlias = Ready | Heartbeat | EngineLost | ReplicaAlive
