"""From a request's fields to a job, and from what is told of it to pictures in files."""

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
from cogview.serving.jobs import Busy, Cancelled, Draining, Job, Jobs, LogEvent
from cogview.serving.messages import (
    AnyJob,
    Broken,
    DrawJob,
    ModelFacts,
    Picture,
    Pixels,
    Refused,
)
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import EditRequest, ImageRequest, Sampling, side_of
from cogview.serving.wire import WireError

MEDIA_TYPES: dict[FileFormat, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
VARIED_SHARE = 0.8
"""Of a picture, for a variation."""

_LOOK_SECONDS = 0.5  # after which is looked again whether a client is still there
_OPTION_NAMES = ("temperature", "top_k", "top_p", "guidance", "adapter_strength", "balance_words")


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """How pictures are written.

    Args:
        name: of the format.
        quality: of those that lose digits; None for the usual one.
    """

    name: FileFormat = "png"
    quality: int | None = None

    @classmethod
    def of(cls, output_format: FileFormat | None, compression: int | None) -> "FileKind":
        """Return what was asked for."""
        return cls(name=output_format or "png", quality=compression)

    async def file(self, pixels: Pixels, text: str = "", facts: dict[str, Any] | None = None) -> bytes:
        """Return a picture as a file; it is made in a thread, beside the event loop."""
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
    """Return what a request says of drawing, as fields of `PictureOptions`."""
    given = {name: getattr(fields, name) for name in _OPTION_NAMES}
    options = {name: value for name, value in given.items() if value is not None}
    if adapter is None:
        options.pop("adapter_strength", None)  # without effect
    else:
        options["adapter"] = adapter
    return options


def adapter_of(facts: ModelFacts, model: str | None, adapter: str | None) -> str | None:
    """Return the adapter that a model's name, or a field, asks for. Names of foreign models are let pass.

    Raises:
        WireError: there is no such adapter.
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
        raise WireError(
            404,
            f"there is no style {name!r}; there are: {known}",
            param="model" if adapter is None else "adapter",
            code="model_not_found",
        )
    return name


def size_of(facts: ModelFacts, size: str | None) -> int:
    """Return the side of pictures that are to be drawn.

    Raises:
        WireError: the model does not draw that size.
    """
    try:
        side = side_of(size)
    except ValueError as error:
        raise WireError(400, f"size {error}", param="size", code="invalid_value") from error
    if side is None:
        return facts.size_pixels
    if side not in facts.sizes:
        known = ", ".join(f"{each}x{each}" for each in facts.sizes)
        raise WireError(
            400,
            f"size {size} is none of this model's: take {known} or auto",
            param="size",
            code="invalid_value",
        )
    return side


def draw_job(
    facts: ModelFacts,
    options: ServerOptions,
    fields: ImageRequest,
    image: Pixels | None = None,
    mask: Pixels | str | float | None = None,
    *,
    is_previewed: bool = False,
) -> DrawJob:
    """Return the job of a request.

    Raises:
        WireError: it asks for what cannot be drawn.
    """
    if len(fields.prompt) > options.max_text_characters:
        raise WireError(
            400, f"prompt has more than {options.max_text_characters:,} characters", param="prompt"
        )
    num = fields.n or 1
    if num > options.max_pictures:
        raise WireError(400, f"n may be at most {options.max_pictures}, got {num}", param="n")
    num_candidates = fields.candidates or num
    if num_candidates < num:
        raise WireError(
            400, f"candidates must be at least n, {num}, got {num_candidates}", param="candidates"
        )
    if num_candidates > options.max_candidates:
        raise WireError(
            400,
            f"candidates may be at most {options.max_candidates}, got {num_candidates}",
            param="candidates",
        )
    is_ranked = num_candidates > num
    if is_ranked and not facts.captioners:
        raise WireError(
            400, "this model has no captioner to rank with: leave candidates out", param="candidates"
        )
    first = fields.seed if fields.seed is not None else secrets.randbelow(2**31)
    adapter = adapter_of(facts, fields.model, fields.adapter)
    drawn = sampling_options(fields, adapter)
    drawn["size_pixels"] = size_of(facts, fields.size)
    if isinstance(fields, EditRequest) and fields.keep_pixels:
        drawn["keeps_pixels"] = True
    return DrawJob(
        text=fields.prompt,
        seeds=tuple(range(first, first + num_candidates)),
        keep=num if is_ranked else None,
        options=drawn,
        image=image,
        mask=mask,
        is_previewed=is_previewed,
    )


def varied(image: Pixels, share: float = VARIED_SHARE) -> Pixels:
    """Return the mask of a variation: all below the upper rows, which say what the rest goes on from.

    Codes that stand scattered leave blotches of their ground on a new one.

    Args:
        image: that is varied.
        share: of it that is drawn anew; at least a sixteenth, which is a row of codes, is.
    """
    width, height = image.size
    num_kept = height - math.ceil(height * max(share, 1 / 16))
    data = bytes(width * num_kept) + b"\xff" * (width * (height - num_kept))
    return Pixels(mode="L", size=image.size, data=data)


def settings_of(facts: ModelFacts, job: DrawJob) -> dict[str, Any]:
    """Return what draws a job's pictures again, beside text and seed."""
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
    """Return what a picture's file says of it."""
    found: dict[str, Any] = {"text": job.text, "seed": picture.seed}
    if picture.caption_loss is not None:
        found["caption_loss"] = picture.caption_loss
    if picture.drawn_text is not None:
        found["drawn_text"] = picture.drawn_text
    return found | settings_of(facts, job)


def begun(jobs: Jobs, work: AnyJob, client: Client) -> Job:
    """Return a job that was taken.

    Raises:
        WireError: there is no room, or the server ends.
    """
    try:
        return jobs.begin(work, client)
    except Busy as error:
        raise WireError(429, str(error), code="queue_full", retry_seconds=error.retry_seconds) from error
    except Draining as error:
        raise WireError(503, "the server ends: try again soon", code="draining", retry_seconds=5) from error


async def told(
    jobs: Jobs, job: Job, request: Request, quiet_seconds: float = 10.0
) -> AsyncGenerator[LogEvent | None, None]:
    """Yield what is told of a job, and None when nothing was for a while. It is stopped if its client leaves.

    Raises:
        WireError: it was refused, or failed, or its client has left.
    """
    quiet_since = looked_at = time.monotonic()
    try:
        async with aclosing(job.log.read(quiet_seconds=_LOOK_SECONDS)) as events:
            async for each in events:
                now = time.monotonic()
                if now - looked_at >= _LOOK_SECONDS:  # however much is told
                    looked_at = now
                    if await request.is_disconnected():
                        raise WireError(499, "the client has left", code="client_left")
                if each is not None:
                    quiet_since = now
                    yield _checked(each[1])
                elif now - quiet_since >= quiet_seconds:
                    quiet_since = now
                    yield None
    finally:
        jobs.cancel(job)


def _checked(event: LogEvent) -> LogEvent:
    """Return an event, unless it says that nothing comes of its job.

    Raises:
        WireError: it does.
    """
    if isinstance(event, Refused):
        raise WireError(400, event.message, code="refused")
    if isinstance(event, Broken):
        raise WireError(500, "the picture could not be drawn; the server's log says why", code="failed")
    if isinstance(event, Cancelled):
        raise WireError(503, "the server ends: try again soon", code="draining", retry_seconds=5)
    return event


def client_of(request: Request, user: str | None = None) -> Client:
    """Return who asks: the account, and its user."""
    client: Client = request.state.client
    return (*client[:1], user or request.headers.get("x-client", "")[:64])
