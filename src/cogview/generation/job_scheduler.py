"""Scheduler of picture jobs: draws those of any number of callers side by side, step by step."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from cogview.decoding.engine import Runner
from cogview.decoding.request import Progressed, Request, SequenceResult
from cogview.generation.dispatcher import Listener, RequestDispatcher, Ticket
from cogview.generation.fair_queue import Client, FairQueue
from cogview.generation.picture_events import GeneratedImage, PictureDone, PictureEvent, PicturePreview
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.generation.previews import Preview, PreviewOptions, Previews
from cogview.generation.prompt_workflow import Candidate, PromptWorkflow, UndecodedPicture
from cogview.generation.urgency import UrgencyLimit


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureJob:
    """Pictures of one prompt for one caller.

    Args:
        task: how to draw.
        prompt: text, and seeds of its candidates.
        client: who the job is for.
        is_previewed: whether to yield previews.
    """

    task: PictureTask
    prompt: Prompt
    client: Client = ()
    is_previewed: bool = True


class JobDone:
    """All pictures of a job are done."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JobFailed:
    """A job failed.

    Args:
        error: why.
    """

    error: Exception


JobEvent: TypeAlias = PictureEvent | JobDone | JobFailed


class JobScheduler:
    """Draws the pictures of many jobs; a step runs one pass of the transformer for all. Not thread-safe.

    The pictures of a job do not depend on other jobs, as far as `Engine` ensures that.

    Args:
        previews: how often to yield previews; never if None.
        num_slots: requests that run at once, shared fairly among clients; the engines decide if None.
        num_reserved: of these slots, for clients that have none.
        max_decoded: pictures decoded between two passes, while all other jobs wait; all that are drawn if None.
        shows_rest: before a job ends, yield the previews of whole pictures that are not kept, however long it takes.
    """

    def __init__(
        self,
        *,
        previews: PreviewOptions | None = None,
        num_slots: int | None = None,
        num_reserved: int = 0,
        max_decoded: int | None = None,
        shows_rest: bool = True,
    ) -> None:
        self._preview_options = previews
        self._max_decoded = max_decoded
        self._shows_rest = shows_rest
        self._dispatcher = RequestDispatcher[_PromptEvent]()
        self._queue = FairQueue[_QueuedRequest](num_slots, num_reserved)
        self._urgency = UrgencyLimit()
        self._running: dict[Prompt, _RunningJob] = {}
        self._undecoded: list[tuple[_RunningJob, UndecodedPicture]] = []
        self._previews: dict[Hashable, Previews[Candidate]] = {}

    def __enter__(self) -> "JobScheduler":
        return self

    def __exit__(self, *error: object) -> None:
        self._dispatcher.__exit__(*error)

    @property
    def num_pending(self) -> int:
        """Number of requests that wait or run."""
        return self._dispatcher.num_pending + len(self._queue)

    @property
    def num_running(self) -> int:
        """Number of requests that the engines have."""
        return self._dispatcher.num_pending

    @property
    def is_idle(self) -> bool:
        """Whether no job is left."""
        return not self._running

    def add(self, job: PictureJob) -> None:
        """Start a job as soon as there is room."""
        running = _RunningJob(job=job, queue=self._queue, previews=self._previews_for(job))
        self._running[job.prompt] = running
        workflow = PromptWorkflow(
            job.task,
            running,
            job.prompt,
            lambda picture: self._undecoded.append((running, picture)),
            running.previews,
        )
        workflow.begin()
        running.has_begun = True

    def abort(self, job: PictureJob) -> None:
        """Stop a job without another event; do nothing if it is done or unknown."""
        running = self._running.pop(job.prompt, None)
        if running is None:
            return
        self._queue.remove(job.client, lambda request: request.job is running)
        for ticket in running.tickets:
            self._dispatcher.abort(ticket)
            self._queue.release(job.client)
        self._undecoded = [each for each in self._undecoded if each[0] is not running]
        running.forget_previews()

    def step(self) -> Iterator[tuple[PictureJob, JobEvent]]:
        """Run a pass, and yield the events of all jobs; jobs may be added and aborted meanwhile."""
        for prompt, event in self._events():
            if prompt not in self._running:  # aborted or failed meanwhile
                continue
            job = self._running[prompt].job
            if isinstance(event, PicturePreview):
                self._was_shown(self._running[prompt])
            if isinstance(event, JobFailed):
                self.abort(job)
            elif isinstance(event, JobDone):
                self._running.pop(prompt).forget_previews()
            yield job, event

    def _events(self) -> "Iterator[_PromptEvent]":
        yield from self._start_requests()
        yield from self._dispatcher.step()
        yield from self._decode()
        for previews in self._previews.values():
            yield from map(_preview_event, previews.due())

    def _start_requests(self) -> "Iterator[_PromptEvent]":
        """Submit queued requests to the engines while there are slots."""
        self._urgency.begin_step(self._has_urgent)
        while (request := self._queue.take()) is not None:
            running = request.job
            try:
                request.ticket = self._dispatcher.add(
                    request.runner, request.request, request.on_event, request.on_failure
                )
                running.tickets.add(request.ticket)
                if self._is_urgent(running):
                    running.urgent = request.ticket
                    self._urgency.join()
                    self._dispatcher.set_urgent(request.ticket, True)
            except Exception as error:
                self._queue.release(running.job.client)
                yield running.job.prompt, JobFailed(error=error)

    def _was_shown(self, running: "_RunningJob") -> None:
        running.was_shown = True
        if running.urgent is not None:
            self._dispatcher.set_urgent(running.urgent, False)
            running.urgent = None

    def _is_urgent(self, running: "_RunningJob") -> bool:
        """Return whether a client's only request waits for its first preview."""
        options = self._preview_options
        is_prompt = options is not None and options.is_prompt and running.previews is not None
        is_new = not running.was_shown and self._queue.held_by(running.job.client) == 1
        return is_prompt and is_new and self._urgency.may_join

    @property
    def _has_urgent(self) -> bool:
        return any(running.urgent is not None for running in self._running.values())

    def _decode(self) -> "Iterator[_PromptEvent]":
        """Decode pictures. No pass runs meanwhile: its threads would wait for a core that decodes."""
        if not self._undecoded or self._has_urgent:
            return
        key = _decoding_key(*self._undecoded[0])
        batch = [each for each in self._undecoded if _decoding_key(*each) == key][: self._max_decoded]
        self._undecoded = [each for each in self._undecoded if each not in batch]
        task = batch[0][0].job.task
        codes = torch.stack([picture.codes for _, picture in batch])
        try:
            images = task.model.decoder.decode_each(codes, task.size_pixels)
            for (running, picture), image in zip(batch, images, strict=True):
                yield running.done(picture, picture.with_pixels(image))
                if running.is_done:
                    yield from running.rest() if self._shows_rest else ()
                    yield running.job.prompt, JobDone()
        except Exception as error:
            for running, _ in batch:
                yield running.job.prompt, JobFailed(error=error)

    def _previews_for(self, job: PictureJob) -> Previews[Candidate] | None:
        """Return the previews that a job shares with all that are decoded alike."""
        if self._preview_options is None or not job.is_previewed:
            return None
        tokenizer, template = job.task.model.image_tokenizer, job.task.codes.template
        grid = template.grid_rows, template.grid_columns
        key = tokenizer, grid
        if key not in self._previews:
            self._previews[key] = Previews(tokenizer, grid, self._preview_options)
        return self._previews[key]


_PromptEvent: TypeAlias = tuple[Prompt, JobEvent]


@dataclass(kw_only=True, eq=False)
class _RunningJob:
    """A job and its requests; those that continue a picture go before those that begin one.

    Args:
        job: to run.
        queue: where its requests wait.
        previews: of its pictures, if they are shown.
    """

    job: PictureJob
    queue: "FairQueue[_QueuedRequest]"
    previews: Previews[Candidate] | None
    tickets: set[Ticket] = field(default_factory=set)
    has_begun: bool = False
    num_done: int = 0
    urgent: Ticket | None = None
    was_shown: bool = False

    def add(self, runner: Runner, request: Request, listener: Listener[PictureEvent]) -> None:
        """Queue a request."""
        queued = _QueuedRequest(job=self, runner=runner, request=request, listener=listener)
        self.queue.add(self.job.client, queued, is_continuation=self.has_begun)

    def done(self, undecoded: UndecodedPicture, picture: GeneratedImage) -> "_PromptEvent":
        """Count a finished picture, and return its event."""
        self.num_done += 1
        return self.job.prompt, PictureDone(
            text_index=undecoded.text_index, place=undecoded.place, picture=picture
        )

    @property
    def is_done(self) -> bool:
        return self.num_done == self.job.task.num_kept(len(self.job.prompt.seeds))

    def rest(self) -> "Iterator[_PromptEvent]":
        """Yield previews of the whole pictures that are not kept."""
        if self.previews is not None:
            yield from map(_preview_event, self.previews.rest(self._candidates))

    def forget_previews(self) -> None:
        if self.previews is not None:
            for candidate in self._candidates:
                self.previews.end(candidate, is_shown=True)

    @property
    def _candidates(self) -> list[Candidate]:
        return [(self.job.prompt, seed) for seed in self.job.prompt.seeds]


@dataclass(kw_only=True, eq=False)
class _QueuedRequest:
    """A request of a job, until its result is there."""

    job: _RunningJob
    runner: Runner
    request: Request
    listener: Listener[PictureEvent]
    ticket: Ticket | None = None

    def on_event(self, event: Progressed | SequenceResult) -> "Iterator[_PromptEvent]":
        prompt = self.job.job.prompt
        if isinstance(event, SequenceResult):
            self._end()
        try:
            for picture_event in self.listener(event):
                yield prompt, picture_event
        except Exception as error:
            yield prompt, JobFailed(error=error)

    def on_failure(self, error: Exception) -> "Iterator[_PromptEvent]":
        self._end()
        yield self.job.job.prompt, JobFailed(error=error)

    def _end(self) -> None:
        assert self.ticket is not None, "it was begun"
        self.job.tickets.discard(self.ticket)
        if self.job.urgent == self.ticket:
            self.job.urgent = None
        self.job.queue.release(self.job.job.client)


def _decoding_key(running: _RunningJob, picture: UndecodedPicture) -> Hashable:
    """Return what must be equal for pictures to be decoded together."""
    task = running.job.task
    return task.model, task.size_pixels, tuple(picture.codes.shape)


def _preview_event(preview: Preview[Candidate]) -> _PromptEvent:
    (prompt, seed), codes, image = preview
    return prompt, PicturePreview(
        text_index=prompt.index, text=prompt.text, seed=seed, codes=codes, image=image
    )
