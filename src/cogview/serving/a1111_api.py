"""HTTP handlers of Automatic1111's API: drawing, progress and interruption."""

import base64
import json
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from PIL import Image, ImageChops
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cogview.image.formats import FORMATS
from cogview.image.picture_file import read_facts
from cogview.serving.a1111_forms import (
    SAMPLER,
    ImageToImageRequest,
    PictureInfoRequest,
    TextToImageRequest,
    generation_info,
    infotext,
    to_generation_request,
)
from cogview.serving.draw_requests import (
    ImageEncoder,
    client_of,
    job_events,
    make_draw_job,
    picture_facts,
    submit_job,
    variation_mask,
)
from cogview.serving.http import ApiError, json_body, parse_fields
from cogview.serving.jobs import Job, Queued
from cogview.serving.messages import DrawJob, Picture, Pixels, Preview
from cogview.serving.state import ServerState
from cogview.serving.uploads import decode_image, from_base64, run_in_decoder

_ENCODER = ImageEncoder()
_DENOISING_STRENGTH = 0.75  # Automatic1111's default
FIXED_LISTS: dict[str, Any] = {
    "latent-upscale-modes": [],
    "sd-vae": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "prompt-styles": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "samplers": [{"name": SAMPLER, "aliases": [], "options": {}}],
    "schedulers": [{"name": "automatic", "label": "Automatic", "aliases": None}],
    "upscalers": [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}],
}
"""Fixed contents of menus that clients fill."""


@dataclass(kw_only=True, eq=False)
class _DrawTask:
    """An open txt2img or img2img request."""

    job: Job
    is_interrupted: bool = False
    started: str = field(default_factory=lambda: time.strftime("%Y%m%d%H%M%S"))


class A1111Api:
    """Request handlers of Automatic1111's API."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._tasks: list[_DrawTask] = []

    async def options(self, request: Request) -> Response:
        """Say which model is loaded."""
        return JSONResponse(
            {
                "sd_model_checkpoint": self._state.facts.name,
                "sd_vae": "Automatic",
                "samples_format": "png",
                "CLIP_stop_at_last_layers": 1,
            }
        )

    async def accept(self, request: Request) -> Response:
        """Accept a setting or refresh without effect: there is one model, without global settings."""
        return JSONResponse(None)

    async def models(self, request: Request) -> Response:
        """List the model; its styles are listed as LoRAs."""
        name = self._state.facts.name
        model = {
            "title": name,
            "model_name": name,
            "filename": name,
            "hash": None,
            "sha256": None,
            "config": None,
        }
        return JSONResponse([model])

    async def loras(self, request: Request) -> Response:
        """List the styles, selected by `<lora:NAME:STRENGTH>` in a prompt."""
        styles = self._state.facts.styles
        return JSONResponse([{"name": each, "alias": each, "path": each, "metadata": {}} for each in styles])

    async def fixed_list(self, request: Request) -> Response:
        """List options of which the server has one or none."""
        return JSONResponse(FIXED_LISTS[request.url.path.rpartition("/")[2]])

    async def text_to_image(self, request: Request) -> Response:
        """Draw pictures of a text."""
        fields = parse_fields(TextToImageRequest, await json_body(request), is_form=True)
        return await self._draw(request, fields)

    async def image_to_image(self, request: Request) -> Response:
        """Inpaint a picture where the mask is white, or its lower part without a mask."""
        fields = parse_fields(ImageToImageRequest, await self._large_body(request), is_form=True)
        image = await self._decode_picture(request, fields.init_images[0], "init_images")
        if fields.mask:
            mask = await self._decode_picture(request, fields.mask, "mask")
            if fields.inpainting_mask_invert:
                mask = Pixels.of(ImageChops.invert(mask.image()))
            return await self._draw(request, fields, image, mask)
        strength = fields.denoising_strength
        share = _DENOISING_STRENGTH if strength is None else strength
        return await self._draw(request, fields, image, variation_mask(image, share))

    async def progress(self, request: Request) -> Response:
        """Report the progress of the client's first unfinished request."""
        tasks = self._client_tasks(request)
        if not tasks:
            return JSONResponse(_progress_fields(None, 0) | {"current_image": None, "textinfo": None})
        job = tasks[0].job
        previews = [event for event in job.log if isinstance(event, Preview)]
        image = None
        if previews and request.query_params.get("skip_current_image", "").lower() not in ("1", "true"):
            image = base64.b64encode(await _ENCODER.encode(previews[-1].pixels)).decode()
        queued = [event for event in job.log if isinstance(event, Queued)]
        queue_text = f"waiting behind {queued[-1].position} others" if queued else None
        return JSONResponse(
            _progress_fields(tasks[0], len(tasks)) | {"current_image": image, "textinfo": queue_text}
        )

    async def interrupt(self, request: Request) -> Response:
        """Stop the client's requests; they are answered with the finished pictures."""
        for task in self._client_tasks(request):
            task.is_interrupted = True
            self._state.jobs.cancel(task.job)
        return JSONResponse({})

    async def picture_info(self, request: Request) -> Response:
        """Read the generation settings stored in a picture file."""
        fields = parse_fields(PictureInfoRequest, await self._large_body(request), is_form=True)
        data = from_base64(fields.image, "image")
        limit = self._state.options.max_image_pixels
        await run_in_decoder(
            decode_image, data, "image", limit
        )  # rejects dangerous files before the next line
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            facts = read_facts(opened) or {}
        text_facts = {
            name: str(value) for name, value in facts.items() if not isinstance(value, dict | list | None)
        }
        info = infotext(text_facts) if text_facts else ""
        return _json_response({"info": info, "items": text_facts, "parameters": text_facts})

    def _client_tasks(self, request: Request) -> list[_DrawTask]:
        client = client_of(request)
        return [task for task in self._tasks if task.job.client == client]

    async def _large_body(self, request: Request) -> dict[str, Any]:
        """Return the JSON object of a request that contains pictures."""
        return await json_body(request, self._state.options.max_body_bytes)

    async def _decode_picture(self, request: Request, text: str, name: str) -> Pixels:
        """Decode a picture or mask from base64.

        Raises:
            ApiError: the picture is not accepted, or memory is full.
        """
        limit = self._state.options.max_image_pixels
        mask: Literal["opaque"] | None = "opaque" if name == "mask" else None
        upload = await run_in_decoder(decode_image, from_base64(text, name), name, limit, mask)
        return await self._state.take_pixels(request, upload.pixels)

    async def _draw(
        self,
        request: Request,
        fields: TextToImageRequest,
        image: Pixels | None = None,
        mask: Pixels | float | None = None,
    ) -> Response:
        state = self._state
        plain = to_generation_request(state.facts, state.options.max_pictures, fields)
        work = make_draw_job(state.facts, state.options, plain, image, mask, is_previewed=True)
        task = _DrawTask(job=submit_job(state.jobs, work, client_of(request)))
        self._tasks.append(task)
        pictures: list[Picture] = []
        try:
            async with aclosing(job_events(state.jobs, task.job, request)) as events:
                async for event in events:
                    if isinstance(event, Picture):
                        pictures.append(event)
        except ApiError:
            if not task.is_interrupted:
                raise
        finally:
            self._tasks.remove(task)
        pictures.sort(key=lambda picture: picture.place)
        facts = [picture_facts(state.facts, work, picture) for picture in pictures]
        files = [
            await _ENCODER.encode(picture.pixels, work.text, each)
            for picture, each in zip(pictures, facts, strict=True)
        ]
        info = generation_info(fields, work, facts) | {"interrupted": task.is_interrupted}
        hidden = {"init_images", "mask", "override_settings"}
        return _json_response(
            {
                "images": [base64.b64encode(file).decode() for file in files],
                "parameters": fields.model_dump(include=set(type(fields).model_fields) - hidden),
                "info": json.dumps(info),
            }
        )


def _json_response(data: Any) -> Response:
    """Return a response whose text may contain lone surrogates, escaped in ASCII."""
    return Response(json.dumps(data), media_type="application/json")


def _share_done(job: Job) -> float:
    """Return the drawn share of a job's codes, by its events."""
    assert isinstance(job.work, DrawJob)
    seeds = job.work.seeds
    shares = dict.fromkeys(seeds, 0.0)
    for event in job.log:
        if isinstance(event, Preview):
            seed = seeds[event.candidate]
            shares[seed] = max(shares[seed], event.share)
        elif isinstance(event, Picture):
            shares[event.seed] = 1.0
    return sum(shares.values()) / len(seeds)


def _progress_fields(task: _DrawTask | None, num_tasks: int) -> dict[str, Any]:
    """Return a request's progress, without its preview."""
    share = 0.0 if task is None else _share_done(task.job)
    seconds = 0.0 if task is None else time.monotonic() - task.job.started_at
    return {
        "progress": round(share, 4),
        "eta_relative": round(seconds / share - seconds, 2) if share else 0.0,
        "state": {
            "skipped": False,
            "interrupted": task is not None and task.is_interrupted,
            "job": "" if task is None else f"job {task.job.number}",
            "job_count": num_tasks,
            "job_timestamp": "0" if task is None else task.started,
            "job_no": 0,
            "sampling_step": round(100 * share),
            "sampling_steps": 0 if task is None else 100,
        },
    }
