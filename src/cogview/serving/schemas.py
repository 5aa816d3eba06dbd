"""What requests may say, as clients of several APIs say it: what changes no picture is let pass."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_SEED = 2**53 - 1
"""Beyond it JavaScript's numbers are not exact."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
Size = Annotated[str, StringConstraints(max_length=20)]
Name = Annotated[str, StringConstraints(max_length=200)]


def checked_text(text: str) -> str:
    """Return a text that says something.

    Raises:
        ValueError: it does not, or holds half a character.
    """
    if not text.strip():
        raise ValueError("it is empty: say what to draw")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (a lone surrogate): leave that out") from error
    return text


class Lenient(BaseModel):
    """Fields that are not named are let pass."""

    model_config = ConfigDict(extra="allow")


class Sampling(Lenient):
    """How pictures are drawn; the model's own way by default."""

    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Of the first picture; the next has the next."
    )
    temperature: float | None = Field(None, ge=0, le=100)
    top_k: int | None = Field(None, ge=1, le=1_000_000)
    top_p: float | None = Field(None, gt=0, le=1)
    guidance: float | None = Field(None, ge=0, le=100)
    adapter: Name | None = Field(None, description="A style of the model; see /v1/models.")
    adapter_strength: float | None = Field(None, ge=-10, le=10)
    candidates: int | None = Field(
        None, ge=1, description="Draw so many, and give back the best n of them by CapLoss."
    )
    balance_words: bool | None = Field(None, description="Vary gender and skin tone of words for people.")


class ImageRequest(Sampling):
    """What images of both kinds, drawn and redrawn, have in common."""

    prompt: Text
    model: Name | None = Field(
        None, description="The model, MODEL:ADAPTER for a style; other names are let pass."
    )
    n: int | None = Field(None, ge=1, le=10)
    size: Size | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto.")
    quality: Name | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    output_format: Literal["png", "webp", "jpeg", "gif", "svg"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=3)
    user: Name | None = None

    _checked_prompt = field_validator("prompt")(checked_text)


class GenerationRequest(ImageRequest):
    """Body of `POST /v1/images/generations`."""


class EditRequest(ImageRequest):
    """Fields of `POST /v1/images/edits`, beside its files."""

    region: Name | None = Field(
        None,
        description="In place of a mask file: upper, lower, left, right, or a share of the picture such as 0.3.",
    )
    keep_pixels: bool | None = Field(
        None, description="Give back exactly the given pixels outside of the mask."
    )


class CaptionRequest(Lenient):
    """Fields of `POST /v1/images/captions`, beside its file."""

    n: int | None = Field(None, ge=1, le=4)
    language: Literal["en", "zh"] | None = None
    user: Name | None = None


class RankRequest(Lenient):
    """Fields of `POST /v1/images/rank`, beside its files."""

    prompt: Text
    user: Name | None = None

    _checked_prompt = field_validator("prompt")(checked_text)


class UpscaleRequest(Lenient):
    """Fields of `POST /v1/images/upscale`, beside its file."""

    prompt: Annotated[str, StringConstraints(max_length=32_000)] | None = None
    factor: Literal[2, 4] | None = None
    force: bool | None = None
    output_format: Literal["png", "webp", "jpeg", "gif", "svg"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    response_format: Literal["b64_json", "url"] | None = None
    user: Name | None = None

    @field_validator("factor", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value in ("2", "4") else value


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
