"""Models of request bodies and parameters. Unknown fields are ignored, for clients of several APIs."""

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
"""JavaScript's integers are exact up to 2^53; further candidates' seeds have to fit, too."""

MAX_CANDIDATES = 2**10
MAX_PICTURES = 10
MAX_TEXT = 32_000
_REGION = r"^(|upper|lower|left|right|1|1\.0{1,6}|0?\.[0-9]{0,6}[1-9]0{0,6})$"


def _flag(value: Any, info: Any) -> Any:
    """Parse a boolean of a form or query.

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
"""Validation context of forms, queries and headers, whose values are all text."""

Flag = Annotated[bool, BeforeValidator(_flag)]
Name = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT),
    Field(
        description="What to draw, in a few words, like a caption.",
        examples=["a red circle"],
        json_schema_extra={"pattern": r"\S"},
    ),
]
Size = Annotated[str, StringConstraints(max_length=20)]
Format = Literal["png", "webp", "jpeg"]
ResponseFormat = Literal["b64_json", "url"]


def checked_text(text: str) -> str:
    """Reject a blank text.

    Raises:
        ValueError: the text is blank.
    """
    if not text.strip():
        raise ValueError("it is empty: say what to draw")
    return text


class LenientModel(BaseModel):
    """Model that drops unknown fields: kept, they would fill the memory while a request waits."""

    model_config = ConfigDict(extra="ignore")

    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Return the names of some dropped fields."""
        return self._ignored

    @model_validator(mode="wrap")
    @classmethod
    def _note_ignored(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        model = handler(data)
        if isinstance(data, dict):
            names = (name for name in data if name not in cls.model_fields and data[name] is not None)
            ignored_names = (name[:_IGNORED_CHARACTERS].encode(errors="replace").decode() for name in names)
            model._ignored = tuple(islice(ignored_names, _MOST_IGNORED))
        return model


class Sampling(LenientModel):
    """Sampling settings."""

    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the first candidate; further ones count up. Random by default.",
    )
    temperature: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Below 1 favours probable codes, above 1 flattens probabilities, 0 is greedy. 1 by default.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Sample from so many of the most probable codes. All by default.",
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Sample from the fewest codes that have this share of the probability. The model's by default.",
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Strength of classifier-free guidance; 1 is none. The model's by default.",
    )
    adapter: Name | None = Field(None, description="Name of a style; /v1/models lists them.")
    adapter_strength: float | None = Field(
        None,
        ge=-10,
        le=10,
        description="Strength of the style. 1 by default.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        le=MAX_CANDIDATES,
        description="Draw so many, at least n, and return the best n by CapLoss. n by default.",
    )
    balance_words: Flag | None = Field(
        None, description="Give words for people a gender and a skin tone in turn. Off by default."
    )


class Written(LenientModel):
    """Output format."""

    output_format: Format | None = Field(None, description="File format. png by default.")
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of webp and jpeg, in per cent. 90 by default."
    )
    response_format: ResponseFormat | None = Field(
        None, description="Return pictures as base64, or by a url valid for an hour. b64_json by default."
    )
    user: Name | None = Field(None, description="Name of the end user: slots are shared fairly among users.")


class ImageRequest(Sampling, Written):
    """Fields that generations and edits share."""

    prompt: Text
    model: Name | None = Field(
        None, description="Model, or MODEL:ADAPTER for a style; names of other models are ignored."
    )
    n: int | None = Field(None, ge=1, le=MAX_PICTURES, description="Number of pictures. 1 by default.")
    size: Size | None = Field(
        None, description="WIDTHxHEIGHT in pixels, or auto for the model's size. auto by default."
    )
    quality: Name | None = Field(None, description="Without effect.")
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Without effect: all pictures are opaque."
    )
    stream: Flag | None = Field(None, description="Answer with a stream of events. Off by default.")
    partial_images: int | None = Field(
        None,
        ge=0,
        le=3,
        description="Number of previews of the first picture, if streamed. 0 by default.",
    )

    _checked_prompt = field_validator("prompt")(checked_text)


class GenerationRequest(ImageRequest):
    """Request for pictures of a text."""


class EditRequest(ImageRequest):
    """Request to inpaint a mask or region of a picture; without either, for a variation."""

    region: Annotated[str, Field(json_schema_extra={"pattern": _REGION})] | None = Field(
        None,
        description="Instead of a mask: upper, lower, left, right, or a share of the codes such as 0.3.",
        examples=["lower"],
    )
    keep_pixels: Flag | None = Field(
        None, description="Keep the given pixels exactly outside the mask. Off by default."
    )

    @field_validator("region")
    @classmethod
    def _checked_region(cls, region: str | None) -> str | None:
        if region is not None and re.fullmatch(_REGION, region) is None:
            raise ValueError("must be upper, lower, left, right, or a share of the picture such as 0.3")
        return region


class CaptionRequest(LenientModel):
    """Request for captions of a picture."""

    n: int | None = Field(None, ge=1, le=4, description="Number of captions, best first. 1 by default.")
    language: Literal["en", "zh"] | None = Field(
        None, description="Language of the captions; chosen by the model by default."
    )
    user: Name | None = Field(None, description="Name of the end user: slots are shared fairly among users.")


class RankRequest(LenientModel):
    """Request to rank pictures by a text."""

    prompt: Text
    user: Name | None = Field(None, description="Name of the end user: slots are shared fairly among users.")

    _checked_prompt = field_validator("prompt")(checked_text)


class UpscaleRequest(Written):
    """Request to upscale a picture."""

    prompt: Annotated[str, StringConstraints(max_length=MAX_TEXT)] | None = Field(
        None, description="What the picture shows; used by upscalers that read text."
    )
    factor: Literal[2, 4] | None = Field(None, description="Factor of the side. 2 by default.")
    force: Flag | None = Field(
        None,
        description="Accept pictures that are reconstructed badly or already as large. Off by default.",
    )

    @field_validator("factor", mode="before")
    @classmethod
    def _number(cls, value: Any, info: Any) -> Any:
        return int(value) if info.context == TEXT and value in ("2", "4") else value


class ShownQuery(BaseModel):
    """Query of clients that cannot set the body's fields."""

    response_format: ResponseFormat | None = Field(
        None, description="As the body's field, for clients that cannot send it."
    )


class HistoryQuery(BaseModel):
    """Query of the job history."""

    search: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="List jobs whose text contains all of these words, case-insensitively."
    )
    before: int | None = Field(
        None, ge=0, lt=2**63, description="List jobs older than this number. From the newest by default."
    )
    limit: int = Field(30, ge=1, le=100, description="Maximum number of jobs.")


class ClientHeader(BaseModel):
    """Header that tells apart the clients of an API key."""

    client: Annotated[str, StringConstraints(max_length=64)] = Field(
        "",
        alias="x-client",
        description="Name chosen by the client; it may list and stop the jobs of this name.",
    )


class EventsHeaders(ClientHeader):
    """Headers of an event stream."""

    last_event_id: Annotated[str, StringConstraints(max_length=64)] = Field(
        "", alias="last-event-id", description="Id of the last received event."
    )


class ProgressQuery(BaseModel):
    """Query of the progress."""

    skip_current_image: Literal["true", "false", "True", "False", "1", "0"] | None = Field(
        None, description="Leave the preview out. Off by default."
    )


class FilePath(BaseModel):
    """Path of a picture file."""

    name: str = Field(description="Name from a picture's url.")


class ModelPath(BaseModel):
    """Path of a model."""

    name: str = Field(description="Id from /v1/models.")


class JobPath(BaseModel):
    """Path of a job."""

    id: str = Field(description="Id from /api/jobs.")


class PicturePath(JobPath):
    """Path of a job's picture."""

    place: int = Field(ge=0, lt=2**31, description="Index among the pictures of the job.")


_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def side_of(size: str | None) -> int | None:
    """Parse a square size into its side in pixels; None for the model's default.

    Raises:
        ValueError: it is not the size of a square.
    """
    if size in (None, "", "auto"):
        return None
    match = _SIZE.fullmatch(size or "")
    if match is None or match[1] != match[2]:
        raise ValueError(f"must be WIDTHxHEIGHT of a square, or auto, got {size!r}")
    return int(match[1])
