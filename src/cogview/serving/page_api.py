"""HTTP handlers of the page's API: stored jobs that survive reloads and restarts, their pictures and history."""

import asyncio
import base64
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cogview.generation.fair_queue import Client
from cogview.serving.draw_requests import (
    ImageEncoder,
    client_of,
    make_draw_job,
    picture_facts,
    settings_of,
    submit_job,
)
from cogview.serving.event_log import EventLog
from cogview.serving.http import (
    ApiError,
    form_body,
    form_fields,
    json_body,
    parse_fields,
    sse_comment,
    sse_event,
)
from cogview.serving.job_store import JobStore, StoredJob, StoredPicture
from cogview.serving.jobs import Busy, Cancelled, Draining, Job, Queued
from cogview.serving.messages import Accepted, Done, DrawJob, Failed, Picture, Preview, Refused
from cogview.serving.schemas import (
    ClientHeader,
    EditRequest,
    EventsHeaders,
    GenerationRequest,
    HistoryQuery,
    ImageRequest,
    PicturePath,
)
from cogview.serving.state import ServerState

LOG = logging.getLogger("cogview.serving")
_PREVIEW_ENCODER = ImageEncoder(name="webp", quality=80)
_PNG_ENCODER = ImageEncoder()
_END_TYPES = ("done", "refused", "failed", "cancelled")
_QUIET_SECONDS = 10.0
_LINGER_SECONDS = 30.0  # for which a finished job's log is still available
_ROOM_SECONDS = 1.0  # between attempts to resume a job while the queue is full


@dataclass(kw_only=True, eq=False)
class _LiveJob:
    """Running job of the page.

    Args:
        stored: the job in the store.
        client: who asked.
        log: events for its readers.
        job: the job in the queue.
        is_stopped: whether the client stopped it.
    """

    stored: StoredJob
    client: Client
    log: EventLog[dict[str, Any]] = field(
        default_factory=lambda: EventLog(lambda event: event["type"] in _END_TYPES)
    )
    job: Job | None = None
    is_stopped: bool = False


class PageApi:
    """Request handlers, and the tasks that store finished pictures."""

    def __init__(self, state: ServerState, store: JobStore) -> None:
        self._state = state
        self._store = store
        self._boot = secrets.token_hex(4)
        self._live: dict[str, _LiveJob] = {}
        self._store_tasks: set[asyncio.Task[None]] = set()

    async def resume_unfinished(self) -> None:
        """Resume jobs that a previous server left unfinished, with the same seeds."""
        for stored in await asyncio.to_thread(self._store.unfinished):
            self._track(_LiveJob(stored=stored, client=("page", stored.owner)))

    async def close(self) -> None:
        """Leave unfinished jobs to the next server."""
        for store_task in self._store_tasks:
            store_task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._store_tasks, return_exceptions=True)
        self._store.close()

    async def facts(self, request: Request) -> Response:
        """Describe the model."""
        facts = asdict(self._state.facts)
        del facts["known"]
        options = self._state.options
        return JSONResponse(
            facts | {"max_pictures": options.max_pictures, "max_candidates": options.max_candidates}
        )

    async def words(self, request: Request) -> Response:
        """List the model's vocabulary by category."""
        return JSONResponse(asdict(self._state.facts.known))

    async def begin(self, request: Request) -> Response:
        """Create a job."""
        work, fields = await self._read_draw_job(request)
        owner = self._owner(request)
        client = client_of(request, fields.user or owner)
        job = submit_job(self._state.jobs, work, client)
        try:
            stored = await asyncio.to_thread(self._store.add, owner, work)
        except BaseException:
            self._state.jobs.cancel(job)
            raise
        live = _LiveJob(stored=stored, client=client, job=job)
        self._track(live)
        return JSONResponse(self._job_content(stored), 201)

    async def history(self, request: Request) -> Response:
        """List the client's jobs, newest first."""
        query: HistoryQuery = request.state.query
        owner = self._owner(request)
        jobs = await asyncio.to_thread(
            self._store.history, owner, query.search, query.before, query.limit if owner else 0
        )
        return JSONResponse({"data": [self._job_content(each) for each in jobs]})

    async def job(self, request: Request) -> Response:
        """Describe a job."""
        return JSONResponse(self._job_content(await self._stored_job(request)))

    async def delete(self, request: Request) -> Response:
        """Delete a job and its pictures."""
        stored = await self._stored_job(request)
        self._check_owner(stored, request)
        await self._stop(stored.id)
        await asyncio.to_thread(self._store.delete, stored.id)
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        """Stop a job; finished pictures are kept."""
        stored = await self._stored_job(request)
        self._check_owner(stored, request)
        await self._stop(stored.id)
        return JSONResponse(self._job_content(await self._stored_job(request)))

    async def picture(self, request: Request) -> Response:
        """Return a picture's file."""
        path: PicturePath = request.state.path
        data = await asyncio.to_thread(self._store.file, path.id, path.place)
        if data is None:
            raise ApiError(404, "there is no such picture", code="not_found")
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(data, media_type="image/png", headers=headers)

    async def events(self, request: Request) -> Response:
        """Stream a job's events; a reader who reconnects gets the new ones."""
        stored = await self._stored_job(request)
        headers: EventsHeaders = request.state.headers
        boot, _, number = headers.last_event_id.partition("-")
        after = int(number) if boot == self._boot and number.isdecimal() and len(number) < 10 else -1
        return StreamingResponse(
            self._event_stream(stored, after, request),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache"},
        )

    async def _event_stream(self, stored: StoredJob, after: int, request: Request) -> AsyncIterator[bytes]:
        live = self._live.get(stored.id)
        if live is None:
            for picture in stored.pictures:
                yield sse_event({"type": "picture", **self._picture_content(stored.id, picture)})
            yield sse_event(
                {"type": stored.state if stored.state in _END_TYPES else "failed", "message": stored.message}
            )
            return
        async with aclosing(live.log.read(after, _QUIET_SECONDS)) as events:
            async for each in events:
                if each is None:
                    yield sse_comment("still here")
                else:
                    number, event = each
                    yield sse_event(event, number=f"{self._boot}-{number}")

    async def _read_draw_job(self, request: Request) -> tuple[DrawJob, ImageRequest]:
        """Read a job from a JSON body or, with pictures, from a form."""
        state = self._state
        if request.headers.get("content-type", "").startswith("multipart/"):
            form = await form_body(request, 2, state.options.max_body_bytes)
            fields = form_fields(form, EditRequest)
            image = await state.form_picture(request, form.get("image"), "image")
            mask = await state.form_mask(request, form, fields, image)
            return make_draw_job(state.facts, state.options, fields, image, mask, is_previewed=True), fields
        body = parse_fields(GenerationRequest, await json_body(request))
        return make_draw_job(state.facts, state.options, body, is_previewed=True), body

    def _owner(self, request: Request) -> str:
        """Return the owner: API key and the client's own name; empty without a name."""
        headers: ClientHeader = request.state.headers
        key, _, _ = request.state.client[0].rpartition("@")
        return f"{key}:{headers.client}" if headers.client else ""

    def _check_owner(self, stored: StoredJob, request: Request) -> None:
        """Check that the client owns a job; one without an owner is everybody's who knows its id.

        Raises:
            ApiError: it is another client's.
        """
        if stored.owner and stored.owner != self._owner(request):
            raise ApiError(403, "the job is another client's", code="not_yours")

    async def _stored_job(self, request: Request) -> StoredJob:
        stored = await asyncio.to_thread(self._store.job, request.path_params["id"])
        if stored is None:
            raise ApiError(404, "there is no such job", code="not_found")
        return stored

    async def _stop(self, job_id: str) -> None:
        live = self._live.get(job_id)
        if live is None:
            return
        live.is_stopped = True
        if live.job is not None:
            self._state.jobs.cancel(live.job)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                async for _ in live.log.read():
                    pass

    def _job_content(self, stored: StoredJob) -> dict[str, Any]:
        """Return a job's JSON object."""
        work = stored.work
        settings = settings_of(self._state.facts, work)
        return {
            "id": stored.id,
            "number": str(stored.number),
            "created": stored.created,
            "text": work.text,
            "state": stored.state,
            "message": stored.message,
            "seed": work.seeds[0],
            "n": len(work.seeds) if work.keep is None else work.keep,
            "candidates": len(work.seeds),
            "settings": settings,
            "is_edit": work.image is not None,
            "accepted": dict(stored.accepted),
            "pictures": [self._picture_content(stored.id, each) for each in stored.pictures],
        }

    def _picture_content(self, job_id: str, picture: StoredPicture) -> dict[str, Any]:
        return {
            "place": picture.place,
            "seed": picture.seed,
            "url": f"/pictures/{job_id}/{picture.place}.png",
            "facts": dict(picture.facts),
        }

    def _track(self, live: _LiveJob) -> None:
        self._live[live.stored.id] = live
        store_task = asyncio.create_task(self._store_until_done(live))
        self._store_tasks.add(store_task)
        store_task.add_done_callback(self._store_tasks.discard)

    async def _store_until_done(self, live: _LiveJob) -> None:
        """Store finished pictures and forward events to the job's readers."""
        stored = live.stored
        try:
            for picture in stored.pictures:
                live.log.add({"type": "picture", **self._picture_content(stored.id, picture)})
            if live.job is None:
                live.job = await self._resubmit(live)
            if live.job is not None:
                async for each in live.job.log.read():
                    assert each is not None, "read without a time limit"
                    await self._handle_event(live, each[1])
            else:
                await self._finish(live, "cancelled" if live.is_stopped else "done", "")
        except Exception:
            LOG.exception("job %s could not be stored", stored.id)
            if live.job is not None:
                self._state.jobs.cancel(live.job)
            await self._finish(live, "failed", "the job could not be stored; the server's log says why")
        live.job = None  # frees its input pictures
        await asyncio.sleep(_LINGER_SECONDS)
        self._live.pop(stored.id, None)

    async def _resubmit(self, live: _LiveJob) -> Job | None:
        """Queue a previous server's job as soon as there is room; None if nothing is left to draw."""
        work = await asyncio.to_thread(self._store.load_work, live.stored)
        if work.keep is None:  # finished candidates need not be drawn again
            finished = {picture.seed for picture in live.stored.pictures}
            work = replace(work, seeds=tuple(seed for seed in work.seeds if seed not in finished))
        if not work.seeds:
            return None
        while not live.is_stopped:
            try:
                return self._state.jobs.submit(work, live.client)
            except Busy:
                await asyncio.sleep(_ROOM_SECONDS)
            except Draining:
                raise asyncio.CancelledError from None
        return None

    async def _handle_event(self, live: _LiveJob, event: Any) -> None:
        stored, log = live.stored, live.log
        if isinstance(event, Accepted):
            accepted = asdict(event)
            await asyncio.to_thread(self._store.set_accepted, stored.id, accepted)
            log.add({"type": "accepted", **accepted})
        elif isinstance(event, Queued):
            log.forget(lambda other: other["type"] == "queued")
            log.add({"type": "queued", **asdict(event)})
        elif isinstance(event, Preview):
            await self._handle_preview(live, event)
        elif isinstance(event, Picture):
            await self._handle_picture(live, event)
        elif isinstance(event, Done):
            await self._finish(live, "done", "")
        elif isinstance(event, Refused):
            await self._finish(live, "refused", event.message)
        elif isinstance(event, Failed):
            await self._finish(live, "failed", "the picture could not be drawn; the server's log says why")
        elif isinstance(event, Cancelled) and live.is_stopped:
            await self._finish(live, "cancelled", "")

    async def _handle_preview(self, live: _LiveJob, event: Preview) -> None:
        log = live.log
        if not log.num_readers:
            return
        assert live.job is not None
        assert isinstance(live.job.work, DrawJob)
        # A resumed job has only the seeds that are not drawn yet.
        seed = live.job.work.seeds[event.candidate]
        candidate = live.stored.work.seeds.index(seed)
        data = base64.b64encode(await _PREVIEW_ENCODER.encode(event.pixels)).decode()
        log.forget(lambda other: other["type"] == "preview" and other["candidate"] == candidate)
        log.add(
            {
                "type": "preview",
                "candidate": candidate,
                "seed": seed,
                "share": round(event.share, 3),
                "image": f"data:image/webp;base64,{data}",
            }
        )

    async def _handle_picture(self, live: _LiveJob, event: Picture) -> None:
        stored = live.stored
        facts = picture_facts(self._state.facts, stored.work, event)
        facts["is_plain"] = event.is_plain
        place = event.place if stored.work.keep is not None else stored.work.seeds.index(event.seed)
        picture = StoredPicture(place=place, seed=event.seed, facts=facts)
        file = await _PNG_ENCODER.encode(event.pixels, stored.work.text, facts)
        await asyncio.to_thread(self._store.keep, stored.id, picture, file)
        live.log.forget(
            lambda other: (
                other["type"] == "preview" and stored.work.keep is None and other["candidate"] == place
            )
        )
        live.log.add({"type": "picture", **self._picture_content(stored.id, picture)})

    async def _finish(self, live: _LiveJob, state: Any, message: str) -> None:
        try:
            await asyncio.to_thread(self._store.set_state, live.stored.id, state, message)
        except Exception:  # such as a full disk; readers get the event nevertheless
            LOG.exception("the state of job %s could not be stored", live.stored.id)
        live.log.forget(lambda other: other["type"] in ("preview", "queued"))
        live.log.add({"type": state, "message": message})
