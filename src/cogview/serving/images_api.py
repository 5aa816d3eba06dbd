"""HTTP handlers of OpenAI's images API, plus upscaling, captions and ranking."""

import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cogview.serving.draw_requests import (
    MEDIA_TYPES,
    ImageEncoder,
    adapter_of,
    client_of,
    job_events,
    make_draw_job,
    picture_facts,
    submit_job,
)
from cogview.serving.http import (
    ApiError,
    form_body,
    form_fields,
    json_body,
    parse_fields,
    sse_comment,
    sse_event,
)
from cogview.serving.jobs import Job, LogEvent, Queued
from cogview.serving.messages import (
    Answer,
    CaptionJob,
    DrawJob,
    ModelFacts,
    Picture,
    Pixels,
    Preview,
    RankJob,
    UpscaleJob,
)
from cogview.serving.schemas import (
    CaptionRequest,
    EditRequest,
    GenerationRequest,
    ImageRequest,
    RankRequest,
    UpscaleRequest,
)
from cogview.serving.state import ServerState

MAX_RANKED = 16
"""Most pictures of a ranking request."""


class ImagesApi:
    """Request handlers of the images API."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def generations(self, request: Request) -> Response:
        """Draw pictures of a text."""
        fields = parse_fields(GenerationRequest, await json_body(request))
        return await self._draw(request, fields, "image_generation")

    async def edits(self, request: Request) -> Response:
        """Inpaint a part of a picture."""
        form = await self._form(request, 17)
        fields = form_fields(form, EditRequest)
        (image,) = await self._images(request, form)
        mask = await self._state.form_mask(request, form, fields, image)
        return await self._draw(request, fields, "image_edit", image, mask)

    async def upscale(self, request: Request) -> Response:
        """Upscale a picture."""
        form = await self._form(request, 2)
        fields = form_fields(form, UpscaleRequest)
        encoder = ImageEncoder.of(fields.output_format, fields.output_compression)
        (image,) = await self._images(request, form)
        job = UpscaleJob(
            image=image, text=fields.prompt or "", factor=fields.factor or 2, force=bool(fields.force)
        )
        picture = await self._answer(request, job, Picture, fields.user)
        data = await encoder.encode(picture.pixels, fields.prompt or "")
        image_fields = self._image_data(request, data, encoder, fields.response_format)
        width, height = picture.pixels.size
        return JSONResponse(
            {
                "created": int(time.time()),
                "data": [image_fields],
                "size": f"{width}x{height}",
                "output_format": encoder.name,
            }
        )

    async def captions(self, request: Request) -> Response:
        """Write captions of a picture."""
        form = await self._form(request, 2)
        fields = form_fields(form, CaptionRequest)
        self._needs_captioner()
        (image,) = await self._images(request, form)
        options = {} if fields.language is None else {"language": fields.language}
        job = CaptionJob(image=image, num_captions=fields.n or 1, options=options)
        answer = await self._answer(request, job, Answer, fields.user)
        return JSONResponse({"created": int(time.time()), "data": answer.data})

    async def rank(self, request: Request) -> Response:
        """Rank pictures by how well a text fits them."""
        form = await self._form(request, MAX_RANKED + 1)
        fields = form_fields(form, RankRequest)
        self._needs_captioner()
        images = await self._images(request, form, MAX_RANKED)
        answer = await self._answer(
            request, RankJob(text=fields.prompt, images=tuple(images)), Answer, fields.user
        )
        return JSONResponse({"created": int(time.time()), "data": answer.data})

    async def models(self, request: Request) -> Response:
        """List the model and its styles."""
        facts = self._state.facts
        names = [facts.name, *(f"{facts.name}:{style}" for style in facts.styles)]
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """Describe the model or a style."""
        facts, name = self._state.facts, request.path_params["name"]
        if name != facts.name and adapter_of(facts, name, None) is None:
            raise ApiError(404, f"there is no model {name!r}; see /v1/models", code="model_not_found")
        return JSONResponse(self._model(name))

    async def file(self, request: Request) -> Response:
        """Return a picture file by its url."""
        file = self._state.files.get(request.path_params["name"])
        if file is None:
            raise ApiError(404, "there is no such file, or it has expired", code="not_found")
        data, media_type = file
        return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})

    def _model(self, name: str) -> dict[str, Any]:
        facts = self._state.facts
        return {
            "id": name,
            "object": "model",
            "created": self._state.created,
            "owned_by": "cogview",
            "sizes": [f"{size}x{size}" for size in facts.sizes],
            "default_size": f"{facts.size_pixels}x{facts.size_pixels}",
            "captions": bool(facts.captioners),
        }

    def _needs_captioner(self) -> None:
        if not self._state.facts.captioners:
            raise ApiError(400, "this model has no captioner", code="unsupported")

    async def _form(self, request: Request, max_files: int) -> FormData:
        return await form_body(request, max_files, self._state.options.max_body_bytes)

    async def _images(self, request: Request, form: FormData, most: int = 1) -> list[Pixels]:
        files = [*form.getlist("image"), *form.getlist("image[]")]
        if not 1 <= len(files) <= most:
            wanted = "one image" if most == 1 else f"1 to {most} images"
            raise ApiError(400, f"send {wanted}, got {len(files)}", param="image", code="invalid_image")
        return [await self._state.form_picture(request, each, "image") for each in files]

    async def _answer(self, request: Request, job: Any, kind: type[Any], user: str | None) -> Any:
        """Run a job that has a single result."""
        state = self._state
        running_job = submit_job(state.jobs, job, client_of(request, user))
        found = None
        async with aclosing(job_events(state.jobs, running_job, request)) as events:
            async for event in events:  # to the end: a job that is left before is a cancelled one
                found = event if isinstance(event, kind) else found
        if found is None:
            raise ApiError(503, "the job was cancelled: try again", code="given_up", retry_seconds=1)
        return found

    async def _draw(
        self,
        request: Request,
        fields: ImageRequest,
        name: str,
        image: Pixels | None = None,
        mask: Pixels | str | float | None = None,
    ) -> Response:
        state = self._state
        encoder = ImageEncoder.of(fields.output_format, fields.output_compression)
        num_partial = (fields.partial_images or 0) if fields.stream else 0
        work = make_draw_job(state.facts, state.options, fields, image, mask, is_previewed=num_partial > 0)
        response = _ImagesResponse(
            state=state,
            request=request,
            fields=fields,
            encoder=encoder,
            job=submit_job(state.jobs, work, client_of(request, fields.user)),
            name=name,
        )
        if not fields.stream:
            return JSONResponse(await response.json_content())
        events = response.events(num_partial)
        first = await anext(events)  # raises refusals before the status line is sent
        return StreamingResponse(
            _chain(first, events),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache"},
        )

    def _image_data(
        self, request: Request, data: bytes, encoder: ImageEncoder, response_format: str | None
    ) -> dict[str, Any]:
        return self._state.image_data(request, data, MEDIA_TYPES[encoder.name], response_format)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ImagesResponse:
    """Response to a request for pictures, whole or streamed."""

    state: ServerState
    request: Request
    fields: ImageRequest
    encoder: ImageEncoder
    job: Job
    name: str

    @property
    def work(self) -> DrawJob:
        assert isinstance(self.job.work, DrawJob)
        return self.job.work

    @property
    def facts(self) -> ModelFacts:
        return self.state.facts

    def common_fields(self) -> dict[str, Any]:
        """Return the fields that all pictures share."""
        side = self.work.options["size_pixels"]
        return {
            "size": f"{side}x{side}",
            "background": "opaque",
            "output_format": self.encoder.name,
        }

    def usage(self) -> dict[str, Any]:
        """Count pieces read and codes drawn, under OpenAI's names."""
        accepted = self.job.accepted
        num_text = 0 if accepted is None else accepted.num_pieces
        num_image = 0
        if self.work.image is not None:
            rows, columns = self.facts.grid
            num_image = rows * columns
        num_out = 0 if accepted is None else accepted.num_codes
        return {
            "input_tokens": num_text + num_image,
            "input_tokens_details": {"text_tokens": num_text, "image_tokens": num_image},
            "output_tokens": num_out,
            "total_tokens": num_text + num_image + num_out,
        }

    def event_fields(self) -> dict[str, Any]:
        """Return the fields of each event; only there is the quality "auto"."""
        return self.common_fields() | {"created_at": int(time.time()), "quality": "auto"}

    async def image_entry(self, picture: Picture, response_format: str | None) -> dict[str, Any]:
        """Return a picture's JSON object."""
        file = await self.encoder.encode(
            picture.pixels, self.work.text, picture_facts(self.facts, self.work, picture)
        )
        accepted = self.job.accepted
        image_fields = self.state.image_data(
            self.request, file, MEDIA_TYPES[self.encoder.name], response_format
        )
        read = picture.drawn_text or (self.work.text if accepted is None else accepted.text)
        entry = {**image_fields, "revised_prompt": read, "seed": picture.seed}
        if picture.caption_loss is not None:
            entry["caption_loss"] = picture.caption_loss
        return entry

    async def json_content(self) -> dict[str, Any]:
        """Wait for all pictures and return the JSON body."""
        pictures: dict[int, dict[str, Any]] = {}
        async with aclosing(job_events(self.state.jobs, self.job, self.request)) as events:
            async for event in events:
                if isinstance(event, Picture):
                    pictures[event.place] = await self.image_entry(event, self.fields.response_format)
        if len(pictures) < (self.fields.n or 1):
            raise ApiError(503, "the job was cancelled: try again", code="given_up", retry_seconds=1)
        answer = self.common_fields() | {
            "created": int(time.time()),
            "data": [pictures[place] for place in sorted(pictures)],
            "usage": self.usage(),
        }
        accepted = self.job.accepted
        if accepted is not None and accepted.unknown_words:
            answer["unknown_words"] = list(accepted.unknown_words)
        if self.fields.ignored:
            answer["ignored"] = list(self.fields.ignored)
        if accepted is not None and accepted.is_cut:
            answer["is_cut"] = True
        return answer

    async def events(self, num_partial: int) -> AsyncGenerator[bytes, None]:
        """Yield the answer's events."""
        num_shown = 0
        is_begun = False
        try:
            async with aclosing(job_events(self.state.jobs, self.job, self.request)) as events:
                async for event in events:
                    if isinstance(event, Preview):
                        # Of the first picture: one as soon as possible, the others evenly spread.
                        if (
                            event.candidate
                            or num_shown >= num_partial
                            or event.share * num_partial < num_shown
                        ):
                            continue
                        data = await self._partial(event, num_shown)
                        num_shown += 1
                    else:
                        data = await self._event(event)
                    is_begun = True
                    yield data
            yield b"data: [DONE]\n\n"
        except ApiError as error:
            if not is_begun:
                raise
            yield sse_event({"type": "error", **error.content}, event="error")

    async def _event(self, event: LogEvent | None) -> bytes:
        if event is None:
            return sse_comment("still here")
        if isinstance(event, Queued):
            seconds = "" if event.seconds is None else f" seconds={event.seconds:.0f}"
            return sse_comment(f"queued position={event.position}{seconds}")
        if isinstance(event, Picture):
            completed = f"{self.name}.completed"
            image_entry = await self.image_entry(event, "b64_json")  # events have no urls
            content = self.event_fields() | image_entry | {"usage": self.usage()}
            return sse_event({"type": completed, **content}, event=completed)
        return sse_comment("accepted")

    async def _partial(self, preview: Preview, number: int) -> bytes:
        partial = f"{self.name}.partial_image"
        content = {
            "type": partial,
            "b64_json": base64.b64encode(await self.encoder.encode(preview.pixels)).decode(),
            "partial_image_index": number,
            **self.event_fields(),
        }
        return sse_event(content, event=partial)


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):  # cancels the job as soon as the client leaves
        yield first
        async for each in rest:
            yield each
