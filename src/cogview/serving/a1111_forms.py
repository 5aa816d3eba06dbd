"""Requests of Automatic1111's API: schemas, conversion to our own, and metadata in its format."""

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from cogview.serving.http import ApiError, parse_fields
from cogview.serving.messages import DrawJob, ModelFacts
from cogview.serving.schemas import (
    MAX_PICTURES,
    MAX_SEED,
    Flag,
    GenerationRequest,
    LenientModel,
    Sampling,
    Text,
)

SAMPLER = "Gumbel"
_LORA = re.compile(r"<lora:([^:<>]{1,200})(?::([^<>]{0,40}))?>")
_MOST_IGNORED = 100


class TextToImageRequest(Sampling):
    """Body of `txt2img`. Other fields are ignored and listed in `info`; numbers may be text."""

    prompt: Text = Field(
        description="What to draw; `<lora:STYLE:STRENGTH>` in it selects a style.", examples=["a red circle"]
    )
    seed: int | None = Field(
        None, ge=-MAX_SEED, le=MAX_SEED, description="Seed of the first picture; random if below 0."
    )
    width: int | None = Field(
        None, ge=1, le=65_536, description="In pixels; the nearest supported size is drawn."
    )
    height: int | None = Field(None, ge=1, le=65_536, description="In pixels, like the width.")
    batch_size: int | None = Field(
        None, ge=1, le=MAX_PICTURES, description="Number of pictures. 1 by default."
    )
    n_iter: int | None = Field(
        None, ge=1, le=MAX_PICTURES, description="Multiplies the number of pictures. 1 by default."
    )
    enable_hr: Flag | None = Field(None, description="Draw larger by `hr_scale`. Off by default.")
    hr_scale: float | None = Field(None, ge=0, le=16, description="Factor of the size. 1 by default.")
    override_settings: dict[str, Any] | None = Field(
        None, description="Only `sd_model_checkpoint`, the model's name, is used."
    )

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_ignored(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Keep only the names of unknown fields: values would fill the memory while a request waits."""
        known = {name: value for name, value in data.items() if name in cls.model_fields}
        ignored = sorted(name for name, value in data.items() if value and name not in known)
        return known | dict.fromkeys(ignored[:_MOST_IGNORED], True)

    @field_validator("override_settings")
    @classmethod
    def _model_alone(cls, settings: dict[str, Any] | None) -> dict[str, Any]:
        return {name: value for name, value in (settings or {}).items() if name == "sd_model_checkpoint"}


class ImageToImageRequest(TextToImageRequest):
    """Body of `img2img`."""

    init_images: list[str] = Field(min_length=1, max_length=1, description="Picture to inpaint, in base64.")
    mask: str | None = Field(None, description="In base64, white where to inpaint.")
    inpainting_mask_invert: Flag | None = Field(
        None, description="Inpaint where the mask is black. Off by default."
    )
    denoising_strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Without a mask: share of the codes to redraw. 0.75 by default.",
    )


class PictureInfoRequest(LenientModel):
    """Body of `png-info`."""

    image: str = Field(description="Picture made by this server, in base64.")


def to_generation_request(
    facts: ModelFacts, max_pictures: int, fields: TextToImageRequest
) -> GenerationRequest:
    """Convert a request to one of OpenAI's API.

    Raises:
        ApiError: the server or model cannot do what it asks.
    """
    num = (fields.batch_size or 1) * (fields.n_iter or 1)
    if num > max_pictures:
        raise ApiError(
            400, f"batch_size x n_iter may be at most {max_pictures}, got {num}", param="batch_size"
        )
    settings = fields.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    if settings.get("seed", -1) < 0:
        settings.pop("seed", None)
    settings["prompt"], styles = split_styles(fields.prompt)
    styles = [each for each in styles if each[1]]  # 0 turns a style off
    if len(styles) > 1:
        raise ApiError(
            400, f"only one style is possible, got {len(styles)}: give one <lora:...>", param="prompt"
        )
    for name, strength in styles:
        settings["adapter"], settings["adapter_strength"] = name, strength
    checkpoint = (fields.override_settings or {}).get("sd_model_checkpoint")
    side = nearest_side(facts, fields)
    return parse_fields(
        GenerationRequest,
        settings
        | {"n": num, "size": f"{side}x{side}", "model": checkpoint if isinstance(checkpoint, str) else None},
    )


def nearest_side(facts: ModelFacts, fields: TextToImageRequest) -> int:
    """Return the supported size nearest to a request's: clients ask for 512x512 by default."""
    width, height = fields.width or fields.height, fields.height or fields.width
    if width is None or height is None:
        return facts.size_pixels
    wanted = math.sqrt(width * height) * ((fields.hr_scale or 1) if fields.enable_hr else 1)
    return min(facts.sizes, key=lambda size: abs(size - wanted))


def split_styles(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """Split a prompt into its text and the names and strengths of its `<lora:NAME:STRENGTH>`.

    Raises:
        ApiError: a strength is not a number.
    """
    styles = []
    for name, strength in _LORA.findall(prompt):
        try:
            styles.append((name, float(strength.partition(":")[0] or 1)))
        except ValueError:
            raise ApiError(
                400, f"a style's strength must be a number, got {strength!r}", param="prompt"
            ) from None
    return (" ".join(_LORA.sub(" ", prompt).split()) if styles else prompt), styles


def generation_info(
    fields: TextToImageRequest, work: DrawJob, pictures: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the `info` of a response.

    Args:
        fields: of the request.
        work: its job.
        pictures: their metadata.
    """
    side = work.options["size_pixels"]
    seeds = [each["seed"] for each in pictures]
    return {
        "prompt": work.text,
        "all_prompts": [work.text for _ in pictures],
        "negative_prompt": "",
        "all_negative_prompts": ["" for _ in pictures],
        "seed": work.seeds[0],
        "all_seeds": seeds,
        "width": side,
        "height": side,
        "sampler_name": SAMPLER,
        "batch_size": len(pictures),
        "index_of_first_image": 0,
        "infotexts": [infotext(each) for each in pictures],
        "styles": [],
        "extra_generation_params": {},
        "ignored": list(fields.model_extra or {}),
    }


def infotext(facts: Mapping[str, Any]) -> str:
    """Format a picture's metadata as Automatic1111's infotext."""
    side = facts.get("size_pixels")
    values = {
        "Sampler": SAMPLER,
        "CFG scale": facts.get("guidance"),
        "Seed": facts.get("seed"),
        "Size": None if side is None else f"{side}x{side}",
        "Model": facts.get("model"),
        "Style": facts.get("adapter"),
        "Temperature": facts.get("temperature"),
        "Top p": facts.get("top_p"),
    }
    settings = ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None)
    return f"{facts.get('text', '')}\n{settings}"
