"""What clients of Automatic1111's API ask for, as this server's own requests, and what they are told of pictures."""

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from cogview.serving.messages import DrawJob, ModelFacts
from cogview.serving.schemas import MAX_PICTURES, MAX_SEED, Flag, GenerationRequest, Lenient, Sampling, Text
from cogview.serving.wire import WireError, parsed

SAMPLER = "Gumbel"
_LORA = re.compile(r"<lora:([^:<>]{1,200})(?::([^<>]{0,40}))?>")
_MOST_IGNORED = 100


class TextToImageRequest(Sampling):
    """What `txt2img` takes. Other fields are let pass, and named in `info`; numbers may be texts."""

    prompt: Text = Field(
        description="What to draw; `<lora:STYLE:STRENGTH>` in it asks for a style.", examples=["a red circle"]
    )
    seed: int | None = Field(
        None, ge=-MAX_SEED, le=MAX_SEED, description="Of the first picture; a random one if it is below 0."
    )
    width: int | None = Field(
        None, ge=1, le=65_536, description="In pixels; the nearest of the model's sizes is drawn."
    )
    height: int | None = Field(None, ge=1, le=65_536, description="In pixels, as the width.")
    batch_size: int | None = Field(None, ge=1, le=MAX_PICTURES, description="Pictures. 1 by default.")
    n_iter: int | None = Field(
        None, ge=1, le=MAX_PICTURES, description="So many times as many pictures. 1 by default."
    )
    enable_hr: Flag | None = Field(None, description="Draw larger, by `hr_scale`. Off by default.")
    hr_scale: float | None = Field(None, ge=0, le=16, description="Times as large. 1 by default.")
    override_settings: dict[str, Any] | None = Field(
        None, description="Of these `sd_model_checkpoint` alone is read, as the model's name."
    )

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_ignored(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Keep of other fields the names: a request that waits would hold all of its JSON."""
        known = {name: value for name, value in data.items() if name in cls.model_fields}
        ignored = sorted(name for name, value in data.items() if value and name not in known)
        return known | dict.fromkeys(ignored[:_MOST_IGNORED], True)

    @field_validator("override_settings")
    @classmethod
    def _model_alone(cls, settings: dict[str, Any] | None) -> dict[str, Any]:
        return {name: value for name, value in (settings or {}).items() if name == "sd_model_checkpoint"}


class ImageToImageRequest(TextToImageRequest):
    """What `img2img` takes."""

    init_images: list[str] = Field(
        min_length=1, max_length=1, description="The picture of which a part is drawn anew, in base64."
    )
    mask: str | None = Field(None, description="In base64, white where the picture is drawn anew.")
    inpainting_mask_invert: Flag | None = Field(
        None, description="Draw anew where the mask is black. Off by default."
    )
    denoising_strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Without a mask: the share of the codes that are drawn anew. 0.75 by default.",
    )


class PictureInfoRequest(Lenient):
    """What `png-info` takes."""

    image: str = Field(description="A picture of this server's, in base64.")


def plain_request(facts: ModelFacts, max_pictures: int, fields: TextToImageRequest) -> GenerationRequest:
    """Return a request as OpenAI's API has it.

    Raises:
        WireError: it asks for what cannot be drawn.
    """
    num = (fields.batch_size or 1) * (fields.n_iter or 1)
    if num > max_pictures:
        raise WireError(
            400, f"batch_size x n_iter may be at most {max_pictures}, got {num}", param="batch_size"
        )
    given = fields.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    if given.get("seed", -1) < 0:
        given.pop("seed", None)
    given["prompt"], styles = without_styles(fields.prompt)
    styles = [each for each in styles if each[1]]  # 0 turns one off
    if len(styles) > 1:
        raise WireError(
            400, f"one style is drawn with, got {len(styles)}: take one <lora:...>", param="prompt"
        )
    for name, strength in styles:
        given["adapter"], given["adapter_strength"] = name, strength
    checkpoint = (fields.override_settings or {}).get("sd_model_checkpoint")
    side = nearest_side(facts, fields)
    return parsed(
        GenerationRequest,
        given
        | {"n": num, "size": f"{side}x{side}", "model": checkpoint if isinstance(checkpoint, str) else None},
    )


def nearest_side(facts: ModelFacts, fields: TextToImageRequest) -> int:
    """Return the size in which a request is drawn: clients ask for 512x512, whatever the model draws."""
    width, height = fields.width or fields.height, fields.height or fields.width
    if width is None or height is None:
        return facts.size_pixels
    wanted = math.sqrt(width * height) * ((fields.hr_scale or 1) if fields.enable_hr else 1)
    return min(facts.sizes, key=lambda size: abs(size - wanted))


def without_styles(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """Return a prompt without its `<lora:NAME:STRENGTH>`, and these.

    Raises:
        WireError: a strength is no number.
    """
    styles = []
    for name, strength in _LORA.findall(prompt):
        try:
            styles.append((name, float(strength.partition(":")[0] or 1)))
        except ValueError:
            raise WireError(
                400, f"a style's strength must be a number, got {strength!r}", param="prompt"
            ) from None
    return (" ".join(_LORA.sub(" ", prompt).split()) if styles else prompt), styles


def info_of(fields: TextToImageRequest, work: DrawJob, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is told of the pictures of a request, under Automatic1111's names.

    Args:
        fields: of the request.
        work: its job.
        drawn: what the pictures' files say.
    """
    side = work.options["size_pixels"]
    seeds = [each["seed"] for each in drawn]
    return {
        "prompt": work.text,
        "all_prompts": [work.text for _ in drawn],
        "negative_prompt": "",
        "all_negative_prompts": ["" for _ in drawn],
        "seed": work.seeds[0],
        "all_seeds": seeds,
        "width": side,
        "height": side,
        "sampler_name": SAMPLER,
        "batch_size": len(drawn),
        "index_of_first_image": 0,
        "infotexts": [infotext(each) for each in drawn],
        "styles": [],
        "extra_generation_params": {},
        "ignored": list(fields.model_extra or {}),
    }


def infotext(facts: Mapping[str, Any]) -> str:
    """Return what a picture's file says, as Automatic1111 writes it."""
    side = facts.get("size_pixels")
    told = {
        "Sampler": SAMPLER,
        "CFG scale": facts.get("guidance"),
        "Seed": facts.get("seed"),
        "Size": None if side is None else f"{side}x{side}",
        "Model": facts.get("model"),
        "Style": facts.get("adapter"),
        "Temperature": facts.get("temperature"),
        "Top p": facts.get("top_p"),
    }
    settings = ", ".join(f"{name}: {value}" for name, value in told.items() if value is not None)
    return f"{facts.get('text', '')}\n{settings}"
