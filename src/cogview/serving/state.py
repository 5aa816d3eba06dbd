"""State that all request handlers share."""

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request

from cogview.serving.draw_requests import variation_mask
from cogview.serving.http import ApiError
from cogview.serving.jobs import Jobs
from cogview.serving.memory_budget import RequestMemory
from cogview.serving.messages import ModelFacts, Pixels
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import EditRequest
from cogview.serving.temporary_files import TemporaryFiles
from cogview.serving.uploads import read_form_image, run_in_decoder, shrink

_USEFUL_SCALE = 3
"""Uploads are reduced to this multiple of the model's size; the second reduction is then not visible."""


@dataclass(kw_only=True, eq=False)
class ServerState:
    """Shared state of a server.

    Args:
        options: limits for clients.
        jobs: all unfinished jobs.
        files: pictures to be fetched by url.
        created: start of the server, in seconds since 1970.
    """

    options: ServerOptions
    jobs: Jobs
    files: TemporaryFiles
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def facts(self) -> ModelFacts:
        """Return the model's properties.

        Raises:
            ApiError: the model is still loading.
        """
        for link in self.jobs.links:
            if link.facts is not None:
                return link.facts
        raise ApiError(503, "the model is being loaded: try again soon", code="loading", retry_seconds=2)

    async def form_picture(
        self, request: Request, value: object, name: str, *, is_mask: bool = False
    ) -> Pixels:
        """Decode a picture of a form and reduce it to a useful size.

        Args:
            request: counts its memory.
            value: of the form's field.
            name: of the field.
            is_mask: whether it is a mask.

        Raises:
            ApiError: the picture is not accepted, or memory is full.
        """
        upload = await read_form_image(value, name, self.options.max_image_pixels, is_mask=is_mask)
        return await self.take_pixels(request, upload.pixels)

    async def form_mask(
        self, request: Request, form: FormData, fields: EditRequest, image: Pixels
    ) -> Pixels | str:
        """Return the part of a picture to inpaint: the form's mask or region, or a variation's mask.

        Args:
            request: counts its memory.
            form: of the request.
            fields: the form's text fields.
            image: picture to inpaint.

        Raises:
            ApiError: there are several masks, or the picture is not accepted.
        """
        masks = [each for each in form.getlist("mask") if each != ""]
        if len(masks) > 1:
            raise ApiError(400, f"send one mask, got {len(masks)}", param="mask", code="invalid_image")
        if masks:
            return await self.form_picture(request, masks[0], "mask", is_mask=True)
        return fields.region or variation_mask(image)

    async def take_pixels(self, request: Request, pixels: Pixels) -> Pixels:
        """Reduce a picture to a useful size and count it in the request's memory.

        Raises:
            ApiError: memory is full.
        """
        pixels = await run_in_decoder(shrink, pixels, _USEFUL_SCALE * max(self.facts.sizes))
        memory: RequestMemory = request.state.memory
        memory.take(len(pixels.data))
        return pixels

    def image_data(
        self, request: Request, data: bytes, media_type: str, response_format: str | None
    ) -> dict[str, Any]:
        """Return a picture's JSON fields: base64 or a url.

        Args:
            request: the request to answer.
            data: the file.
            media_type: of the file.
            response_format: b64_json or url; the query's, or base64, if None.
        """
        if (response_format or request.query_params.get("response_format")) == "url":
            name = self.files.add(data, media_type)
            return {"url": str(request.url.replace(path=f"/files/{name}", query=""))}
        return {"b64_json": base64.b64encode(data).decode()}
