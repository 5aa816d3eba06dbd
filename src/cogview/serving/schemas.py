"""What requests may say, as clients of several APIs say it: what changes no picture is let pass."""

import re
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

MAX_SEED = 2**53 - 2**16
"""Beyond 2^53 JavaScript's numbers are not exact; the seeds of a request's further candidates lie below that, too."""

MAX_CANDIDATES = 2**10
MAX_PICTURES = 10
MAX_TEXT = 32_000
_REGION = r"^(|upper|lower|left|right|1|1\.0{1,6}|0?\.[0-9]{0,6}[1-9]0{0,6})$"


def _flag(value: Any, info: Any) -> Any:
    """Return what a form or a query says, which have but text.

    Raises:
        ValueError: it is neither true nor false.
    """
    if not isinstance(value, str):
        return value
    if info.context != TEXT or value.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return value.lower() == "true"


_MOST_IGNORED, _IGNORED_CHARACTERS = 20, 40

TEXT = "text"
"""The context in which fields of forms, queries and headers are validated."""

Flag = Annotated[bool, BeforeValidator(_flag)]
Name = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT),
    Field(
        description="What to draw, in a few words, as a caption would say it.",
        examples=["a red circle"],
        json_schema_extra={"pattern": r"\S"},
    ),
]
Size = Annotated[str, StringConstraints(max_length=20)]
Format = Literal["png", "webp", "jpeg"]
ResponseFormat = Literal["b64_json", "url"]


def checked_text(text: str) -> str:
    """Return a text that says something.

    Raises:
        ValueError: it does not.
    """
    if not text.strip():
        raise ValueError("it is empty: say what to draw")
    return text


class Lenient(BaseModel):
    """Fields that are not named are let pass, and not kept: a request that waits would hold all of its JSON.

    Attributes:
        ignored: names of some of them.
    """

    model_config = ConfigDict(extra="ignore")

    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Return what was let pass."""
        return self._ignored

    @model_validator(mode="wrap")
    @classmethod
    def _note_ignored(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        made = handler(data)
        if isinstance(data, dict):
            names = (name for name in data if name not in cls.model_fields and data[name] is not None)
            shown = (name[:_IGNORED_CHARACTERS].encode(errors="replace").decode() for name in names)
            made._ignored = tuple(islice(shown, _MOST_IGNORED))
        return made


class Sampling(Lenient):
    """How pictures are drawn; the model's own way by default."""

    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Of the first picture; the next has the next. By default one is drawn, and told in the answer.",
    )
    temperature: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Below 1 prefers probable codes, above 1 levels them, 0 takes the most probable. 1 by default.",
    )
    top_k: int | None = Field(
        None, ge=1, le=1_000_000, description="Draw from so many codes, the most probable. All by default."
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Draw from the fewest codes that hold this share of the probability. The model's by default.",
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=100,
        description="How much the text counts; 1 is without guidance. The model's by default.",
    )
    adapter: Name | None = Field(None, description="A style of the model; /v1/models lists them.")
    adapter_strength: float | None = Field(
        None,
        ge=-10,
        le=10,
        description="How much the style counts; without effect if none is asked for. 1 by default.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        le=MAX_CANDIDATES,
        description="Draw so many, at least n, and give back the best n of them by CapLoss. n by default.",
    )
    balance_words: Flag | None = Field(
        None, description="Give words for people a gender and a skin tone in turn. Off by default."
    )


class Written(Lenient):
    """How pictures are written and given back."""

    output_format: Format | None = Field(None, description="Of the files; png by default.")
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of webp and jpeg, in per cent. 90 by default."
    )
    response_format: ResponseFormat | None = Field(
        None, description="Give pictures as base64, or by a url that lives for an hour. b64_json by default."
    )
    user: Name | None = Field(None, description="Who asks: places are shared out fairly among users.")


class ImageRequest(Sampling, Written):
    """What images of both kinds, drawn and redrawn, have in common."""

    prompt: Text
    model: Name | None = Field(
        None, description="The model, MODEL:ADAPTER for a style; names of other models are let pass."
    )
    n: int | None = Field(None, ge=1, le=MAX_PICTURES, description="Pictures. 1 by default.")
    size: Size | None = Field(
        None, description="WIDTHxHEIGHT in pixels, or auto, the model's own, by default."
    )
    quality: Name | None = Field(None, description="Without effect.")
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Without effect: all pictures are opaque."
    )
    stream: Flag | None = Field(
        None, description="Answer by events while pictures are drawn. Off by default."
    )
    partial_images: int | None = Field(
        None,
        ge=0,
        le=3,
        description="Previews of the first picture, if the answer is streamed. 0 by default.",
    )

    _checked_prompt = field_validator("prompt")(checked_text)


class GenerationRequest(ImageRequest):
    """Pictures of a text."""


class EditRequest(ImageRequest):
    """A picture of which a part is drawn anew: what a mask or a region tells, or a half of its codes, a variation."""

    region: Annotated[str, Field(json_schema_extra={"pattern": _REGION})] | None = Field(
        None,
        description="In place of a mask: upper, lower, left, right, or a share of the picture such as 0.3.",
        examples=["lower"],
    )
    keep_pixels: Flag | None = Field(
        None, description="Give back exactly the given pixels outside of what is drawn anew. Off by default."
    )

    @field_validator("region")
    @classmethod
    def _checked_region(cls, region: str | None) -> str | None:
        if region is not None and re.fullmatch(_REGION, region) is None:
            raise ValueError("must be upper, lower, left, right, or a share of the picture such as 0.3")
        return region


class CaptionRequest(Lenient):
    """How to say what a picture shows."""

    n: int | None = Field(None, ge=1, le=4, description="Captions, the best first. 1 by default.")
    language: Literal["en", "zh"] | None = Field(
        None, description="Of the captions; as the model likes by default."
    )
    user: Name | None = Field(None, description="Who asks: places are shared out fairly among users.")


class RankRequest(Lenient):
    """A text to rank pictures by."""

    prompt: Text
    user: Name | None = Field(None, description="Who asks: places are shared out fairly among users.")

    _checked_prompt = field_validator("prompt")(checked_text)


class UpscaleRequest(Written):
    """How to draw a picture larger."""

    prompt: Annotated[str, StringConstraints(max_length=MAX_TEXT)] | None = Field(
        None, description="What the picture shows; an upscaler that reads draws by it."
    )
    factor: Literal[2, 4] | None = Field(None, description="Times as large. 2 by default.")
    force: Flag | None = Field(
        None,
        description="Take pictures that the model hardly keeps, or that are as large already. Off by default.",
    )

    @field_validator("factor", mode="before")
    @classmethod
    def _number(cls, value: Any, info: Any) -> Any:
        return int(value) if info.context == TEXT and value in ("2", "4") else value


class ShownQuery(BaseModel):
    """A query of clients that send no such field."""

    response_format: ResponseFormat | None = Field(
        None, description="As the field of that name, for clients that cannot send it."
    )


class HistoryQuery(BaseModel):
    """Which jobs to list."""

    search: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Words that all stand in the text, in any case."
    )
    before: int | None = Field(
        None, ge=0, lt=2**63, description="The number of a job: list older ones. From the newest by default."
    )
    limit: int = Field(30, ge=1, le=100, description="Jobs, at most.")


class ClientHeader(BaseModel):
    """Which of an account's clients asks."""

    client: Annotated[str, StringConstraints(max_length=64)] = Field(
        "", alias="x-client", description="A name that the client made up: jobs are listed and stopped by it."
    )


class EventsHeaders(ClientHeader):
    """Where a reader left off."""

    last_event_id: Annotated[str, StringConstraints(max_length=64)] = Field(
        "", alias="last-event-id", description="The id of the last event that is known."
    )


class ProgressQuery(BaseModel):
    """What is told of progress."""

    skip_current_image: Literal["true", "false", "True", "False", "1", "0"] | None = Field(
        None, description="Leave the preview out. It is told by default."
    )


class FilePath(BaseModel):
    """A picture that is fetched by url."""

    name: str = Field(description="As an answer gave it.")


class ModelPath(BaseModel):
    """A model."""

    name: str = Field(description="As /v1/models lists it.")


class JobPath(BaseModel):
    """A job of the page."""

    id: str = Field(description="That /api/jobs gave.")


class PicturePath(JobPath):
    """A picture of a job."""

    place: int = Field(ge=0, lt=2**31, description="Among the pictures of the job.")


_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def side_of(size: str | None) -> int | None:
    """Return the side in pixels of a square size; None for the model's own.

    Raises:
        ValueError: it is no size, or none of a square.
    """
    if size in (None, "", "auto"):
        return None
    found = _SIZE.fullmatch(size or "")
    if found is None or found[1] != found[2]:
        raise ValueError(f"must be WIDTHxHEIGHT of a square, or auto, got {size!r}")
    return int(found[1])
