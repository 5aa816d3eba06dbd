"""Conversion of draw requests to jobs, and of finished pictures to files."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

import cogview
from cogview.generation.fair_queue import Client
from cogview.image.picture_file import FileFormat, picture_file
from cogview.serving.http import ApiError
from cogview.serving.jobs import Busy, Cancelled, Draining, Job, Jobs, LogEvent
from cogview.serving.messages import (
    AnyJob,
    DrawJob,
    Failed,
    ModelFacts,
    Picture,
    Pixels,
    Refused,
)
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import EditRequest, ImageRequest, Sampling, side_of

MEDIA_TYPES: dict[FileFormat, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
VARIATION_SHARE = 0.8
"""Share of a picture that a variation redraws."""

_CHECK_SECONDS = 0.5  # between checks whether the client is still connected
_OPTION_NAMES = ("temperature", "top_k", "top_p", "guidance", "adapter_strength", "balance_words")


@dataclass(frozen=True, kw_only=True)
class ImageEncoder:
    """Encoder of picture files.

    Args:
        name: file format.
        quality: of lossy formats, in per cent; None for the default.
    """

    name: FileFormat = "png"
    quality: int | None = None

    @classmethod
    def of(cls, output_format: FileFormat | None, compression: int | None) -> "ImageEncoder":
        """Create the encoder that a request asks for."""
        return cls(name=output_format or "png", quality=compression)

    async def encode(self, pixels: Pixels, text: str = "", facts: dict[str, Any] | None = None) -> bytes:
        """Encode a picture in a thread."""
        return await asyncio.to_thread(
            picture_file,
            pixels.image(),
            self.name,
            text=text,
            facts=facts,
            software=f"cogview {cogview.__version__}",
            quality=90 if self.quality is None else self.quality,
        )


def sampling_options(fields: Sampling, adapter: str | None) -> dict[str, Any]:
    """Return a request's sampling settings as fields of `PictureOptions`."""
    values = {name: getattr(fields, name) for name in _OPTION_NAMES}
    options = {name: value for name, value in values.items() if value is not None}
    if adapter is None:
        options.pop("adapter_strength", None)  # without effect
    else:
        options["adapter"] = adapter
    return options


def adapter_of(facts: ModelFacts, model: str | None, adapter: str | None) -> str | None:
    """Return the adapter selected by a model's name or the adapter field. Names of other models select none.

    Raises:
        ApiError: there is no such adapter.
    """
    name = adapter
    if name is None and model is not None:
        base, _, suffix = model.partition(":")
        if base != facts.name or not suffix:
            return None
        name = suffix
    if name is None or name == "":
        return None
    if name not in facts.styles:
        known = ", ".join(facts.styles) or "none"
        raise ApiError(
            404,
            f"there is no style {name!r}; there are: {known}",
            param="model" if adapter is None else "adapter",
            code="model_not_found",
        )
    return name


def size_of(facts: ModelFacts, size: str | None) -> int:
    """Return the side of pictures to draw, in pixels.

    Raises:
        ApiError: the model does not support that size.
    """
    try:
        side = side_of(size)
    except ValueError as error:
        raise ApiError(400, f"size {error}", param="size", code="invalid_value") from error
    if side is None:
        return facts.size_pixels
    if side not in facts.sizes:
        known = ", ".join(f"{each}x{each}" for each in facts.sizes)
        raise ApiError(
            400,
            f"size {size} is not one of this model's: choose {known} or auto",
            param="size",
            code="invalid_value",
        )
    return side


def make_draw_job(
    facts: ModelFacts,
    options: ServerOptions,
    fields: ImageRequest,
    image: Pixels | None = None,
    mask: Pixels | str | float | None = None,
    *,
    is_previewed: bool = False,
) -> DrawJob:
    """Convert a request to a job.

    Raises:
        ApiError: the model or server cannot do what it asks.
    """
    if len(fields.prompt) > options.max_text_characters:
        raise ApiError(
            400, f"prompt has more than {options.max_text_characters:,} characters", param="prompt"
        )
    num = fields.n or 1
    if num > options.max_pictures:
        raise ApiError(400, f"n may be at most {options.max_pictures}, got {num}", param="n")
    num_candidates = fields.candidates or num
    if num_candidates < num:
        raise ApiError(400, f"candidates must be at least n, {num}, got {num_candidates}", param="candidates")
    if num_candidates > options.max_candidates:
        raise ApiError(
            400,
            f"candidates may be at most {options.max_candidates}, got {num_candidates}",
            param="candidates",
        )
    is_ranked = num_candidates > num
    if is_ranked and not facts.captioners:
        raise ApiError(
            400, "this model has no captioner to rank with: leave candidates out", param="candidates"
        )
    first = fields.seed if fields.seed is not None else secrets.randbelow(2**31)
    adapter = adapter_of(facts, fields.model, fields.adapter)
    picture_options = sampling_options(fields, adapter)
    picture_options["size_pixels"] = size_of(facts, fields.size)
    if isinstance(fields, EditRequest) and fields.keep_pixels:
        picture_options["keeps_pixels"] = True
    return DrawJob(
        text=fields.prompt,
        seeds=tuple(range(first, first + num_candidates)),
        keep=num if is_ranked else None,
        options=picture_options,
        image=image,
        mask=mask,
        is_previewed=is_previewed,
    )


def variation_mask(image: Pixels, share: float = VARIATION_SHARE) -> Pixels:
    """Return the mask of a variation: all but the upper rows.

    Scattered codes would leave blotches of the old background on the new one.

    Args:
        image: picture to vary.
        share: of its rows to redraw; at least a sixteenth, a row of codes.
    """
    width, height = image.size
    num_kept = height - math.ceil(height * max(share, 1 / 16))
    data = bytes(width * num_kept) + b"\xff" * (width * (height - num_kept))
    return Pixels(mode="L", size=image.size, data=data)


def settings_of(facts: ModelFacts, job: DrawJob) -> dict[str, Any]:
    """Return the settings that reproduce a job's pictures, besides text and seed."""
    return {
        "temperature": 1.0,
        "top_k": None,
        "top_p": facts.top_p,
        "guidance": facts.guidance,
        "sampler": "gumbel",
        "model": facts.name,
        **job.options,
    }


def picture_facts(facts: ModelFacts, job: DrawJob, picture: Picture) -> dict[str, Any]:
    """Return the metadata of a picture's file."""
    content: dict[str, Any] = {"text": job.text, "seed": picture.seed}
    if picture.caption_loss is not None:
        content["caption_loss"] = picture.caption_loss
    if picture.drawn_text is not None:
        content["drawn_text"] = picture.drawn_text
    return content | settings_of(facts, job)


def submit_job(jobs: Jobs, work: AnyJob, client: Client) -> Job:
    """Queue a job.

    Raises:
        ApiError: the queue is full, or the server is shutting down.
    """
    try:
        return jobs.submit(work, client)
    except Busy as error:
        raise ApiError(429, str(error), code="queue_full", retry_seconds=error.retry_seconds) from error
    except Draining as error:
        raise ApiError(
            503, "the server is shutting down: try again soon", code="draining", retry_seconds=5
        ) from error


async def job_events(
    jobs: Jobs, job: Job, request: Request, quiet_seconds: float = 10.0
) -> AsyncGenerator[LogEvent | None, None]:
    """Yield a job's events, and None after a quiet while. The job is cancelled if its client leaves.

    Raises:
        ApiError: the job was refused, failed or cancelled, or its client has left.
    """
    quiet_since = checked_at = time.monotonic()
    try:
        async with aclosing(job.log.read(quiet_seconds=_CHECK_SECONDS)) as events:
            async for each in events:
                now = time.monotonic()
                if now - checked_at >= _CHECK_SECONDS:  # also while events come without a pause
                    checked_at = now
                    if await request.is_disconnected():
                        raise ApiError(499, "the client has left", code="client_left")
                if each is not None:
                    quiet_since = now
                    yield _raise_on_failure(each[1])
                elif now - quiet_since >= quiet_seconds:
                    quiet_since = now
                    yield None
    finally:
        jobs.cancel(job)


def _raise_on_failure(event: LogEvent) -> LogEvent:
    """Return an event, or raise the error that it reports.

    Raises:
        ApiError: the job was refused, failed or cancelled.
    """
    if isinstance(event, Refused):
        raise ApiError(400, event.message, code="refused")
    if isinstance(event, Failed):
        raise ApiError(500, "the picture could not be drawn; the server's log says why", code="failed")
    if isinstance(event, Cancelled):
        raise ApiError(503, "the server is shutting down: try again soon", code="draining", retry_seconds=5)
    return event


def client_of(request: Request, user: str | None = None) -> Client:
    """Identify the client: account and user."""
    client: Client = request.state.client
    return (*client[:1], user or request.headers.get("x-client", "")[:64])
