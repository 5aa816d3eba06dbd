"""What the web server and the engine's process tell each other. Nothing here needs PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image

from cogview.generation.fair_queue import Client
from cogview.generation.known_concepts import KnownConcepts


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A picture between processes, unencoded.

    Args:
        mode: RGB, or L for a mask.
        size: width and height.
        data: its bytes.
    """

    mode: str
    size: tuple[int, int]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, image: Image.Image) -> "Pixels":
        """Return those of a picture."""
        return cls(mode=image.mode, size=image.size, data=image.tobytes())

    def image(self) -> Image.Image:
        """Return the picture."""
        return Image.frombytes(self.mode, self.size, self.data)


@dataclass(frozen=True, kw_only=True)
class DrawJob:
    """Pictures of a text.

    Args:
        text: what to draw.
        seeds: of the candidates.
        keep: how many are kept, the best; all, unranked, if None.
        options: fields of `PictureOptions` that are plain data.
        image: of which a part is drawn anew, if one is.
        mask: which part: a picture that is white there, a half, or a share of the codes.
        is_previewed: whether pictures are shown while they are drawn.
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
    """Captions of a picture.

    Args:
        image: the picture.
        num_captions: how many.
        options: fields of `CaptionOptions`.
        seed: of the captions, if they are drawn.
    """

    image: Pixels
    num_captions: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """Which of some pictures a text fits best.

    Args:
        text: what is looked for.
        images: the pictures.
    """

    text: str
    images: tuple[Pixels, ...]


@dataclass(frozen=True, kw_only=True)
class UpscaleJob:
    """A picture drawn larger.

    Args:
        image: the picture.
        text: what it shows.
        factor: 2 or 4.
        force: take pictures that the model hardly keeps.
    """

    image: Pixels
    text: str = ""
    factor: int = 2
    force: bool = False


AnyJob: TypeAlias = DrawJob | CaptionJob | RankJob | UpscaleJob


def given_pixels(job: AnyJob) -> tuple[Pixels, ...]:
    """Return the pictures that a job was given."""
    if isinstance(job, RankJob):
        return job.images
    given = (job.image, job.mask) if isinstance(job, DrawJob) else (job.image,)
    return tuple(each for each in given if isinstance(each, Pixels))


@dataclass(frozen=True, kw_only=True)
class Begin:
    """A job for the engine.

    Args:
        number: by which it is told of.
        client: who asks, to whom places are shared out fairly.
        job: itself.
    """

    number: int
    client: Client
    job: AnyJob


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """A job that nobody waits for any more."""

    number: int


Command: TypeAlias = Begin | Cancel


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What users may want to know of the model.

    Args:
        name: of the model.
        sizes: in which it draws, in pixels a side.
        size_pixels: the size by default.
        grid: rows and columns of codes.
        guidance: by default.
        top_p: by default.
        max_batch: pictures drawn at once.
        styles: adapters that draw.
        captioners: adapters that caption and rank.
        upscalers: adapters that upscale.
        words: that the captions had which it learnt; none if they are not known.
        num_parameters: of the transformer.
        device: where it is computed.
        suggestions: sentences that it can draw, by language.
        known: what it can be asked for; nothing if its words are not known.
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
    """The engine is warm."""

    facts: ModelFacts


@dataclass(frozen=True, kw_only=True)
class CannotBegin:
    """The model cannot be loaded.

    Args:
        message: one line.
        is_usage: whether what was asked for is impossible.
    """

    message: str
    is_usage: bool


@dataclass(frozen=True, kw_only=True)
class Alive:
    """The engine goes on.

    Args:
        num_running: requests that are worked on.
        num_waiting: requests that wait.
        num_passes: since it began.
        num_codes: drawn since it began.
        seconds_per_code: lately, all pictures taken together.
    """

    num_running: int
    num_waiting: int
    num_passes: int
    num_codes: int
    seconds_per_code: float


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job was looked at, and will be carried out.

    Args:
        text: as the model reads it.
        unknown_words: that it has never seen.
        is_cut: whether the text is longer than the model reads.
        num_pieces: of the text.
        num_codes: that are to be drawn.
    """

    text: str = ""
    unknown_words: tuple[str, ...] = ()
    is_cut: bool = False
    num_pieces: int = 0
    num_codes: int = 0


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A job cannot be carried out as it was asked for.

    Args:
        message: one line.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A job failed, which is no fault of who asked.

    Args:
        message: one line, for the log.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A picture that is still drawn.

    Args:
        candidate: its place among the seeds.
        share: of its codes that are drawn, from 0 to 1.
        pixels: light grey where nothing is drawn yet.
    """

    candidate: int
    share: float
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is done.

    Args:
        place: among the pictures of its job, the best first if they were ranked.
        seed: draws it again.
        pixels: itself.
        caption_loss: CapLoss in nats per piece, if it was ranked.
        drawn_text: what was drawn, if words were replaced or spelt otherwise.
        is_plain: whether it is of one colour.
        num_passes: that it took.
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
    """What a job gives that draws nothing: plain data."""

    data: Any


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job is done."""


JobEvent: TypeAlias = Accepted | Refused | Broken | Preview | Picture | Answer | Ended


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the engine tells of a job."""

    number: int
    event: JobEvent


Report: TypeAlias = Ready | CannotBegin | Alive | Told


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A replica's engine is dead, and another is begun.

    Args:
        message: why, as far as is known.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class Here:
    """A replica can be reached."""


ReplicaReport: TypeAlias = Ready | Alive | Lost | Here
