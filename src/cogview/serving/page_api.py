"""What the page works with: jobs that outlive a reload and a killed server, their pictures, and their history."""

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
from cogview.serving.drawing import (
    FileKind,
    begun,
    client_of,
    draw_job,
    picture_facts,
    settings_of,
)
from cogview.serving.event_log import EventLog
from cogview.serving.job_store import JobStore, KeptJob, KeptPicture
from cogview.serving.jobs import Busy, Cancelled, Draining, Job, Queued
from cogview.serving.messages import Accepted, Broken, DrawJob, Ended, Picture, Preview, Refused
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
from cogview.serving.wire import WireError, form_body, form_fields, json_body, parsed, sse, sse_comment

LOG = logging.getLogger("cogview.serving")
_PREVIEW_KIND = FileKind(name="webp", quality=80)
_PNG = FileKind()
_LAST = ("done", "refused", "failed", "cancelled")
_QUIET_SECONDS = 10.0
_LINGER_SECONDS = 30.0  # for which a job that is over is still read along
_ROOM_SECONDS = 1.0  # after which is looked again whether there is room for what was begun before
_MAX_SHOWN = 100


@dataclass(kw_only=True, eq=False)
class _Live:
    """A job of the page that is being drawn.

    Args:
        kept: as it lies on the disk.
        client: who asks.
        log: what its readers are told.
        job: that draws it.
    """

    kept: KeptJob
    client: Client
    log: EventLog[dict[str, Any]] = field(
        default_factory=lambda: EventLog(lambda event: event["type"] in _LAST)
    )
    job: Job | None = None
    is_stopped: bool = False


class PageApi:
    """The handlers, and what keeps pictures as they are done.

    Args:
        state: of the server.
        store: keeps jobs and pictures.
    """

    def __init__(self, state: ServerState, store: JobStore) -> None:
        self._state = state
        self._store = store
        self._boot = secrets.token_hex(4)
        self._live: dict[str, _Live] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    async def begin_unfinished(self) -> None:
        """Draw what was asked for before the server ended, with the same seeds."""
        for kept in await asyncio.to_thread(self._store.unfinished):
            self._keep(_Live(kept=kept, client=("page", kept.owner)))

    async def close(self) -> None:
        """Leave what is not done for the next start."""
        for keeper in self._keepers:
            keeper.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._keepers, return_exceptions=True)
        self._store.close()

    async def facts(self, request: Request) -> Response:
        """Say what the model can do."""
        facts = asdict(self._state.facts)
        del facts["known"]
        options = self._state.options
        return JSONResponse(
            facts | {"max_pictures": options.max_pictures, "max_candidates": options.max_candidates}
        )

    async def words(self, request: Request) -> Response:
        """List what the model can be asked for: things, colours, places and others whose words it has learnt."""
        return JSONResponse(asdict(self._state.facts.known))

    async def begin(self, request: Request) -> Response:
        """Take a job."""
        work, fields = await self._work(request)
        owner = self._owner(request)
        client = client_of(request, fields.user or owner)
        job = begun(self._state.jobs, work, client)
        try:
            kept = await asyncio.to_thread(self._store.add, owner, work)
        except BaseException:
            self._state.jobs.cancel(job)
            raise
        live = _Live(kept=kept, client=client, job=job)
        self._keep(live)
        return JSONResponse(self._shown(kept), 201)

    async def history(self, request: Request) -> Response:
        """List the jobs of whoever asks, the newest first."""
        query: HistoryQuery = request.state.query
        owner = self._owner(request)
        found = await asyncio.to_thread(
            self._store.history, owner, query.search, query.before, query.limit if owner else 0
        )
        return JSONResponse({"data": [self._shown(each) for each in found]})

    async def job(self, request: Request) -> Response:
        """Describe a job."""
        return JSONResponse(self._shown(await self._kept(request)))

    async def delete(self, request: Request) -> Response:
        """Forget a job and its pictures."""
        kept = await self._kept(request)
        self._refuse_others(kept, request)
        await self._stop(kept.id)
        await asyncio.to_thread(self._store.delete, kept.id)
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        """Stop a job; what is done is kept."""
        kept = await self._kept(request)
        self._refuse_others(kept, request)
        await self._stop(kept.id)
        return JSONResponse(self._shown(await self._kept(request)))

    async def picture(self, request: Request) -> Response:
        """Give a picture's file."""
        path: PicturePath = request.state.path
        data = await asyncio.to_thread(self._store.file, path.id, path.place)
        if data is None:
            raise WireError(404, "there is no such picture", code="not_found")
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(data, media_type="image/png", headers=headers)

    async def events(self, request: Request) -> Response:
        """Tell of a job until its end; a reader who comes back is told what is new."""
        kept = await self._kept(request)
        headers: EventsHeaders = request.state.headers
        boot, _, number = headers.last_event_id.partition("-")
        after = int(number) if boot == self._boot and number.isdecimal() and len(number) < 10 else -1
        return StreamingResponse(
            self._told(kept, after, request),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache"},
        )

    async def _told(self, kept: KeptJob, after: int, request: Request) -> AsyncIterator[bytes]:
        live = self._live.get(kept.id)
        if live is None:
            for picture in kept.pictures:
                yield sse({"type": "picture", **self._shown_picture(kept.id, picture)})
            yield sse({"type": kept.state if kept.state in _LAST else "failed", "message": kept.message})
            return
        async with aclosing(live.log.read(after, _QUIET_SECONDS)) as events:
            async for each in events:
                if each is None:
                    yield sse_comment("still here")
                else:
                    number, event = each
                    yield sse(event, number=f"{self._boot}-{number}")

    async def _work(self, request: Request) -> tuple[DrawJob, ImageRequest]:
        """Return what is asked for, in JSON or, with pictures, in a form."""
        state = self._state
        if request.headers.get("content-type", "").startswith("multipart/"):
            form = await form_body(request, 2, state.options.max_body_bytes)
            fields = form_fields(form, EditRequest)
            image = await state.picture(request, form.get("image"), "image")
            mask = await state.mask(request, form, fields, image)
            return draw_job(state.facts, state.options, fields, image, mask, is_previewed=True), fields
        plain = parsed(GenerationRequest, await json_body(request))
        return draw_job(state.facts, state.options, plain, is_previewed=True), plain

    def _owner(self, request: Request) -> str:
        """Return whose a job is: of a key and the name that the page made up; of nobody without a name."""
        headers: ClientHeader = request.state.headers
        key, _, _ = request.state.client[0].rpartition("@")
        return f"{key}:{headers.client}" if headers.client else ""

    def _refuse_others(self, kept: KeptJob, request: Request) -> None:
        """Refuse what is not for others than a job's owner; who owns none is who knows its name.

        Raises:
            WireError: it is another's.
        """
        if kept.owner and kept.owner != self._owner(request):
            raise WireError(403, "it is another's", code="not_yours")

    async def _kept(self, request: Request) -> KeptJob:
        kept = await asyncio.to_thread(self._store.job, request.path_params["id"])
        if kept is None:
            raise WireError(404, "there is no such job", code="not_found")
        return kept

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

    def _shown(self, kept: KeptJob) -> dict[str, Any]:
        """Return a job as the page reads it."""
        work = kept.work
        settings = settings_of(self._state.facts, work)
        return {
            "id": kept.id,
            "number": str(kept.number),
            "created": kept.created,
            "text": work.text,
            "state": kept.state,
            "message": kept.message,
            "seed": work.seeds[0],
            "n": len(work.seeds) if work.keep is None else work.keep,
            "candidates": len(work.seeds),
            "settings": settings,
            "is_edit": work.image is not None,
            "accepted": dict(kept.accepted),
            "pictures": [self._shown_picture(kept.id, each) for each in kept.pictures],
        }

    def _shown_picture(self, job_id: str, picture: KeptPicture) -> dict[str, Any]:
        return {
            "place": picture.place,
            "seed": picture.seed,
            "url": f"/pictures/{job_id}/{picture.place}.png",
            "facts": dict(picture.facts),
        }

    def _keep(self, live: _Live) -> None:
        self._live[live.kept.id] = live
        keeper = asyncio.create_task(self._keep_until_done(live))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep_until_done(self, live: _Live) -> None:
        """Keep pictures as they are done, and tell the job's readers."""
        kept = live.kept
        try:
            for picture in kept.pictures:
                live.log.add({"type": "picture", **self._shown_picture(kept.id, picture)})
            if live.job is None:
                live.job = await self._begun_again(live)
            if live.job is not None:
                async for each in live.job.log.read():
                    assert each is not None, "it waits for as long as it takes"
                    await self._take(live, each[1])
            else:
                await self._end(live, "cancelled" if live.is_stopped else "done", "")
        except Exception:
            LOG.exception("job %s could not be kept", kept.id)
            if live.job is not None:
                self._state.jobs.cancel(live.job)
            await self._end(live, "failed", "it could not be kept; the server's log says why")
        live.job = None  # which holds the pictures that it was given
        await asyncio.sleep(_LINGER_SECONDS)
        self._live.pop(kept.id, None)

    async def _begun_again(self, live: _Live) -> Job | None:
        """Return the job of what was asked for before the server ended, as soon as there is room for it."""
        work = await asyncio.to_thread(self._store.whole_work, live.kept)
        if work.keep is None:  # candidates that are there need not be drawn again
            there = {picture.seed for picture in live.kept.pictures}
            work = replace(work, seeds=tuple(seed for seed in work.seeds if seed not in there))
        if not work.seeds:
            return None
        while not live.is_stopped:
            try:
                return self._state.jobs.begin(work, live.client)
            except Busy:
                await asyncio.sleep(_ROOM_SECONDS)
            except Draining:
                raise asyncio.CancelledError from None
        return None

    async def _take(self, live: _Live, event: Any) -> None:
        kept, log = live.kept, live.log
        if isinstance(event, Accepted):
            accepted = asdict(event)
            await asyncio.to_thread(self._store.set_accepted, kept.id, accepted)
            log.add({"type": "accepted", **accepted})
        elif isinstance(event, Queued):
            log.forget(lambda other: other["type"] == "queued")
            log.add({"type": "queued", **asdict(event)})
        elif isinstance(event, Preview):
            await self._take_preview(live, event)
        elif isinstance(event, Picture):
            await self._take_picture(live, event)
        elif isinstance(event, Ended):
            await self._end(live, "done", "")
        elif isinstance(event, Refused):
            await self._end(live, "refused", event.message)
        elif isinstance(event, Broken):
            await self._end(live, "failed", "the picture could not be drawn; the server's log says why")
        elif isinstance(event, Cancelled) and live.is_stopped:
            await self._end(live, "cancelled", "")

    async def _take_preview(self, live: _Live, event: Preview) -> None:
        log = live.log
        if not log.num_readers:
            return
        assert live.job is not None
        assert isinstance(live.job.work, DrawJob)
        # A job that was begun again has only the seeds that were not drawn yet.
        seed = live.job.work.seeds[event.candidate]
        candidate = live.kept.work.seeds.index(seed)
        data = base64.b64encode(await _PREVIEW_KIND.file(event.pixels)).decode()
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

    async def _take_picture(self, live: _Live, event: Picture) -> None:
        kept = live.kept
        facts = picture_facts(self._state.facts, kept.work, event)
        facts["is_plain"] = event.is_plain
        place = event.place if kept.work.keep is not None else kept.work.seeds.index(event.seed)
        picture = KeptPicture(place=place, seed=event.seed, facts=facts)
        file = await _PNG.file(event.pixels, kept.work.text, facts)
        await asyncio.to_thread(self._store.keep, kept.id, picture, file)
        live.log.forget(
            lambda other: (
                other["type"] == "preview" and kept.work.keep is None and other["candidate"] == place
            )
        )
        live.log.add({"type": "picture", **self._shown_picture(kept.id, picture)})

    async def _end(self, live: _Live, state: Any, message: str) -> None:
        try:
            await asyncio.to_thread(self._store.set_state, live.kept.id, state, message)
        except Exception:  # a full disk, say: readers are told all the same
            LOG.exception("the state of job %s could not be kept", live.kept.id)
        live.log.forget(lambda other: other["type"] in ("preview", "queued"))
        live.log.add({"type": state, "message": message})
