"""Automatic1111's API, as far as its clients need it to have pictures drawn, to follow them, and to stop them."""

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
    info_of,
    infotext,
    plain_request,
)
from cogview.serving.drawing import FileKind, begun, client_of, draw_job, picture_facts, told, varied
from cogview.serving.jobs import Job, Queued
from cogview.serving.messages import DrawJob, Picture, Pixels, Preview
from cogview.serving.state import ServerState
from cogview.serving.uploads import decoded, from_base64, in_decoder
from cogview.serving.wire import WireError, json_body, parsed

_PNG = FileKind()
_DENOISING_STRENGTH = 0.75  # Automatic1111's default
NO_CHOICE: dict[str, Any] = {
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
"""What clients ask for to fill their menus, and there is nothing to choose from."""


@dataclass(kw_only=True, eq=False)
class _Task:
    """A request that pictures are drawn for."""

    job: Job
    is_interrupted: bool = False
    started: str = field(default_factory=lambda: time.strftime("%Y%m%d%H%M%S"))


class A1111Api:
    """The handlers.

    Args:
        state: of the server.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._tasks: list[_Task] = []

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

    async def nothing(self, request: Request) -> Response:
        """Take note: there is one model, and nothing of it is set for all requests."""
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
        """List the styles, which `<lora:NAME:STRENGTH>` in a prompt asks for."""
        styles = self._state.facts.styles
        return JSONResponse([{"name": each, "alias": each, "path": each, "metadata": {}} for each in styles])

    async def no_choice(self, request: Request) -> Response:
        """List what there is only one of, or none."""
        return JSONResponse(NO_CHOICE[request.url.path.rpartition("/")[2]])

    async def text_to_image(self, request: Request) -> Response:
        """Draw pictures of a text."""
        fields = parsed(TextToImageRequest, await json_body(request), is_form=True)
        return await self._drawn(request, fields)

    async def image_to_image(self, request: Request) -> Response:
        """Draw a part of a picture anew: where the mask is white, or the lower part without one."""
        fields = parsed(ImageToImageRequest, await self._large_body(request), is_form=True)
        image = await self._picture(request, fields.init_images[0], "init_images")
        if fields.mask:
            mask = await self._picture(request, fields.mask, "mask")
            if fields.inpainting_mask_invert:
                mask = Pixels.of(ImageChops.invert(mask.image()))
            return await self._drawn(request, fields, image, mask)
        strength = fields.denoising_strength
        share = _DENOISING_STRENGTH if strength is None else strength
        return await self._drawn(request, fields, image, varied(image, share))

    async def progress(self, request: Request) -> Response:
        """Tell how far the first unfinished request of whoever asks is."""
        tasks = self._tasks_of(request)
        if not tasks:
            return JSONResponse(_progress_of(None, 0) | {"current_image": None, "textinfo": None})
        job = tasks[0].job
        previews = [event for event in job.log if isinstance(event, Preview)]
        image = None
        if previews and request.query_params.get("skip_current_image", "").lower() not in ("1", "true"):
            image = base64.b64encode(await _PNG.file(previews[-1].pixels)).decode()
        queued = [event for event in job.log if isinstance(event, Queued)]
        told_queue = f"waiting behind {queued[-1].position} others" if queued else None
        return JSONResponse(
            _progress_of(tasks[0], len(tasks)) | {"current_image": image, "textinfo": told_queue}
        )

    async def interrupt(self, request: Request) -> Response:
        """Stop what whoever asks has begun; its requests are answered with the pictures that are done."""
        for task in self._tasks_of(request):
            task.is_interrupted = True
            self._state.jobs.cancel(task.job)
        return JSONResponse({})

    async def picture_info(self, request: Request) -> Response:
        """Tell what a picture's file says of how it was drawn."""
        fields = parsed(PictureInfoRequest, await self._large_body(request), is_form=True)
        data = from_base64(fields.image, "image")
        limit = self._state.options.max_image_pixels
        await in_decoder(decoded, data, "image", limit)  # refuses what must not be opened
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            facts = read_facts(opened) or {}
        told_facts = {
            name: str(value) for name, value in facts.items() if not isinstance(value, dict | list | None)
        }
        info = infotext(told_facts) if told_facts else ""
        return _json({"info": info, "items": told_facts, "parameters": told_facts})

    def _tasks_of(self, request: Request) -> list[_Task]:
        client = client_of(request)
        return [task for task in self._tasks if task.job.client == client]

    async def _large_body(self, request: Request) -> dict[str, Any]:
        """Return the JSON object of a request that holds pictures."""
        return await json_body(request, self._state.options.max_body_bytes)

    async def _picture(self, request: Request, text: str, name: str) -> Pixels:
        """Return a picture, or a mask, that came as base64.

        Raises:
            WireError: it is none that is taken, or there is no room for it.
        """
        limit = self._state.options.max_image_pixels
        mask: Literal["opaque"] | None = "opaque" if name == "mask" else None
        upload = await in_decoder(decoded, from_base64(text, name), name, limit, mask)
        return await self._state.held(request, upload.pixels)

    async def _drawn(
        self,
        request: Request,
        fields: TextToImageRequest,
        image: Pixels | None = None,
        mask: Pixels | float | None = None,
    ) -> Response:
        state = self._state
        plain = plain_request(state.facts, state.options.max_pictures, fields)
        work = draw_job(state.facts, state.options, plain, image, mask, is_previewed=True)
        task = _Task(job=begun(state.jobs, work, client_of(request)))
        self._tasks.append(task)
        pictures: list[Picture] = []
        try:
            async with aclosing(told(state.jobs, task.job, request)) as events:
                async for event in events:
                    if isinstance(event, Picture):
                        pictures.append(event)
        except WireError:
            if not task.is_interrupted:
                raise
        finally:
            self._tasks.remove(task)
        pictures.sort(key=lambda picture: picture.place)
        facts = [picture_facts(state.facts, work, picture) for picture in pictures]
        files = [
            await _PNG.file(picture.pixels, work.text, each)
            for picture, each in zip(pictures, facts, strict=True)
        ]
        info = info_of(fields, work, facts) | {"interrupted": task.is_interrupted}
        hidden = {"init_images", "mask", "override_settings"}
        return _json(
            {
                "images": [base64.b64encode(file).decode() for file in files],
                "parameters": fields.model_dump(include=set(type(fields).model_fields) - hidden),
                "info": json.dumps(info),
            }
        )


def _json(data: Any) -> Response:
    """Return an answer that may hold half characters, which JSON has escapes for."""
    return Response(json.dumps(data), media_type="application/json")


def _share_done(job: Job) -> float:
    """Return the share of a job's codes that is drawn, as far as it was told."""
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


def _progress_of(task: _Task | None, num_tasks: int) -> dict[str, Any]:
    """Return how far a request is, without its picture."""
    share = 0.0 if task is None else _share_done(task.job)
    seconds = 0.0 if task is None else time.monotonic() - task.job.begun_at
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
