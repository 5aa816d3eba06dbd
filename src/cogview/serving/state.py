"""What all handlers share."""

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request

from cogview.serving.drawing import varied
from cogview.serving.jobs import Jobs
from cogview.serving.memory import Held
from cogview.serving.messages import ModelFacts, Pixels
from cogview.serving.options import ServerOptions
from cogview.serving.schemas import EditRequest
from cogview.serving.temporary_files import TemporaryFiles
from cogview.serving.uploads import in_decoder, reduced, uploaded
from cogview.serving.wire import WireError

_USEFUL_SCALE = 3
"""So many times as large as it is drawn a picture is kept: reducing it in two steps is not seen then."""


@dataclass(kw_only=True, eq=False)
class ServerState:
    """The jobs, and what is known of the model.

    Args:
        options: what is taken from clients.
        jobs: that wait or are worked on.
        files: pictures that are fetched by url.
        created: when the server began, in seconds since 1970.
    """

    options: ServerOptions
    jobs: Jobs
    files: TemporaryFiles
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def facts(self) -> ModelFacts:
        """Return what is known of the model.

        Raises:
            WireError: it is not loaded yet.
        """
        for link in self.jobs.links:
            if link.facts is not None:
                return link.facts
        raise WireError(503, "the model is being loaded: try again soon", code="loading", retry_seconds=2)

    async def picture(self, request: Request, value: object, name: str, *, is_mask: bool = False) -> Pixels:
        """Return a picture of a form, no larger than is of use to the model.

        Args:
            request: that holds it.
            value: of the form.
            name: of the field.
            is_mask: whether it tells what is to be drawn anew.

        Raises:
            WireError: it is no picture that is taken, or there is no room for it.
        """
        found = await uploaded(value, name, self.options.max_image_pixels, is_mask=is_mask)
        return await self.held(request, found.pixels)

    async def mask(
        self, request: Request, form: FormData, fields: EditRequest, image: Pixels
    ) -> Pixels | str:
        """Return what of a picture is drawn anew: a mask, a region, or what a variation leaves to be drawn.

        Args:
            request: that holds it.
            form: of the request.
            fields: of the form.
            image: that is drawn anew.

        Raises:
            WireError: there are several masks, or it is no picture that is taken.
        """
        masks = [each for each in form.getlist("mask") if each != ""]
        if len(masks) > 1:
            raise WireError(400, f"send one mask, got {len(masks)}", param="mask", code="invalid_image")
        if masks:
            return await self.picture(request, masks[0], "mask", is_mask=True)
        return fields.region or varied(image)

    async def held(self, request: Request, pixels: Pixels) -> Pixels:
        """Return a picture, no larger than is of use to the model, which a request holds from now on.

        Raises:
            WireError: there is no room for it.
        """
        pixels = await in_decoder(reduced, pixels, _USEFUL_SCALE * max(self.facts.sizes))
        held: Held = request.state.held
        held.take(len(pixels.data))
        return pixels

    def shown(
        self, request: Request, data: bytes, media_type: str, response_format: str | None
    ) -> dict[str, Any]:
        """Return a picture as an answer has it: as base64, or by a url.

        Args:
            request: that is answered.
            data: the file.
            media_type: of it.
            response_format: b64_json or url; the query's, or base64, if None.
        """
        wanted = response_format or request.query_params.get("response_format")
        if wanted == "url":
            name = self.files.add(data, media_type)
            return {"url": str(request.url.replace(path=f"/files/{name}", query=""))}
        return {"b64_json": base64.b64encode(data).decode()}
