"""Process that runs the model for the web server.

Separate, so that HTTP does not slow down the passes, and the server survives if the model runs out of memory.
"""

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

import cogview
from cogview.errors import CogViewError, UsageError, printable
from cogview.generation.blank_pictures import is_blank
from cogview.generation.job_scheduler import JobDone, JobFailed, JobScheduler, PictureJob
from cogview.generation.job_scheduler import JobEvent as SchedulerEvent
from cogview.generation.known_concepts import KnownConcepts, read_known_concepts
from cogview.generation.options import PictureOptions
from cogview.generation.picture_events import CodesDrawn, PictureDone
from cogview.generation.picture_task import PictureTask
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import PreviewOptions
from cogview.models.config import find_model_folder
from cogview.serving.messages import (
    Accepted,
    Answer,
    CancelJob,
    CaptionJob,
    Done,
    DrawJob,
    Failed,
    Heartbeat,
    JobEvent,
    JobReport,
    ModelFacts,
    Picture,
    Pixels,
    Preview,
    RankJob,
    Ready,
    Refused,
    Report,
    StartFailed,
    StartJob,
    UpscaleJob,
)
from cogview.serving.options import EngineOptions
from cogview.serving.side_jobs import SideJobs
from cogview.serving.suggestions import suggestions

PREVIEWS = PreviewOptions(per_second=10, max_share=0.05, is_prompt=True)
_WAIT_SECONDS = 0.5
_MOST_WORDS = 500


class EngineProcess:
    """Engine that runs jobs for a web server.

    The main thread runs the passes, one thread reads and checks commands, and one runs the side jobs, which share the
    engine with the passes.

    Args:
        pipeline: loaded model.
        options: with which it was loaded.
        connection: to the server.
    """

    def __init__(self, pipeline: Pipeline, options: EngineOptions, connection: Connection) -> None:
        self._pipeline = pipeline
        self._options = options
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: SimpleQueue[tuple[int, PictureJob] | int] = SimpleQueue()
        self._side_jobs = SideJobs[JobEvent]()
        self._engine = pipeline.model.drawing()[0].engine
        self._num_codes = 0
        self._seconds_per_code = 0.0
        self._last_active = time.monotonic()
        self._scheduler: JobScheduler | None = None
        self._number_by_job: dict[PictureJob, int] = {}
        self._job_by_number: dict[int, PictureJob] = {}

    def run(self) -> None:
        """Run until the server closes the connection; call `warm_up` first."""
        self._send(Ready(facts=self._facts()))
        for work in (self._listen, self._run_side_jobs, self._send_heartbeats):
            threading.Thread(target=self._run_or_exit, args=[work], daemon=True).start()
        self._run_or_exit(self._draw)  # the allocator reuses memory best in the main thread

    def _listen(self) -> None:
        """Read the server's commands."""
        while True:
            try:
                command = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # the server is gone
            if isinstance(command, CancelJob):
                self._side_jobs.cancel(command.number)
                self._inbox.put(command.number)
            else:
                self._accept(command)

    def _run_or_exit(self, work: Callable[[], None]) -> None:
        """Run a thread's work; if it fails, end the process, so that the server restarts it."""
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def warm_up(self) -> None:
        """Prepare weights and kernels, so that the first request is as fast as others."""
        pipeline, text = self._pipeline, "a"  # some captioners read few pieces
        for _ in pipeline.stream(text, 2, previews=PreviewOptions(per_second=100, max_share=1)):
            pass
        if pipeline.captioner_names:
            image = pipeline.generate(text, 1)[0].codes
            with suppress(UsageError):  # a text tokenizer may lack even this letter
                pipeline.rank(text, [image], pipeline.captioner_names[0])

    def _facts(self) -> ModelFacts:
        pipeline, options = self._pipeline, self._options
        parts, template = pipeline.model.parts, pipeline.template
        scales = pipeline.image_tokenizer.scales
        counts = {} if parts.words is None else parts.words.counts
        common = sorted(counts, key=lambda word: -counts[word])[:_MOST_WORDS]
        return ModelFacts(
            name=options.name,
            sizes=tuple(sorted(pipeline.model.encoded_pixels * scale for scale in scales)),
            size_pixels=pipeline.size_pixels,
            grid=(template.grid_rows, template.grid_columns),
            guidance=pipeline.guidance,
            top_p=pipeline.top_p,
            max_batch=self._options.max_batch,
            styles=tuple(parts.names_for("style", "text-to-image")),
            captioners=tuple(pipeline.captioner_names),
            upscalers=tuple(pipeline.upscaler_names),
            words=tuple(common),
            suggestions=suggestions(pipeline.model),
            known=KnownConcepts()
            if parts.words is None
            else read_known_concepts(find_model_folder(options.model)),
            num_parameters=parts.config.num_parameters,
            device=pipeline.device.type,
        )

    def _send(self, report: Report) -> None:
        with self._sending:
            try:
                self._connection.send(report)
            except OSError:
                os._exit(0)

    def _report(self, number: int, event: JobEvent) -> None:
        self._send(JobReport(number=number, event=event))

    def _accept(self, command: StartJob) -> None:
        """Check a job and queue it."""
        number, job = command.number, command.job
        with self._failures_reported(number):
            if isinstance(job, DrawJob):
                picture_job, accepted = self._picture_job(command, job)
                self._report(number, accepted)
                self._inbox.put((number, picture_job))
            else:
                self._report(number, Accepted())
                self._side_jobs.add(number, command.client, lambda: self._run_side_job(job))

    def _failures_reported(self, number: int) -> "_FailureReporter":
        return _FailureReporter(lambda event: self._report(number, event))

    def _picture_job(self, command: StartJob, job: DrawJob) -> tuple[PictureJob, Accepted]:
        """Prepare a job for the scheduler."""
        mask = job.mask.image() if isinstance(job.mask, Pixels) else job.mask
        image = None if job.image is None else job.image.image()
        options = PictureOptions(**job.options, image=image, mask=mask)
        model = self._pipeline.model
        task = PictureTask.of(model, options, len(job.seeds), job.keep, min(job.seeds))
        (prompt,) = task.prompts([job.text], job.seeds)
        num_pieces, most = len(prompt.pieces[0]), task.max_text_pieces
        accepted = Accepted(
            text=prompt.drawn_texts[0],
            unknown_words=tuple(model.unknown_words([job.text], options.adapter)),
            is_cut=num_pieces > most,
            num_pieces=min(num_pieces, most),
            num_codes=task.num_codes(len(job.seeds)),
        )
        return PictureJob(
            task=task, prompt=prompt, client=command.client, is_previewed=job.is_previewed
        ), accepted

    def _run_side_job(self, job: CaptionJob | RankJob | UpscaleJob) -> JobEvent:
        """Run a job that is not in the batch, and return its result."""
        pipeline = self._pipeline
        if isinstance(job, CaptionJob):
            (captions,) = pipeline.caption(job.image.image(), job.num_captions, seed=job.seed, **job.options)
            return Answer(data=[{"text": each.text, "caption_loss": each.caption_loss} for each in captions])
        if isinstance(job, RankJob):
            ranked = pipeline.rank(job.text, [each.image() for each in job.images])
            return Answer(data=[{"index": each.index, "caption_loss": each.caption_loss} for each in ranked])
        (larger,) = pipeline.upscale(job.image.image(), job.text or "a picture", job.factor, force=job.force)
        return Picture(place=0, seed=larger.seed, pixels=Pixels.of(larger.image))

    def _run_side_jobs(self) -> None:
        while True:
            number, answer = self._side_jobs.take()
            with self._failures_reported(number):
                self._report(number, answer())
                self._report(number, Done())

    def _draw(self) -> None:
        """Run passes while there are jobs."""
        max_batch = self._engine.max_batch
        with JobScheduler(
            previews=PREVIEWS,
            num_slots=max_batch,
            num_reserved=self._options.num_reserved,
            max_decoded=os.cpu_count() if self._pipeline.device.type == "cpu" else None,
            shows_rest=False,
        ) as self._scheduler:
            while True:
                self._read_inbox(self._scheduler)
                started = time.monotonic()
                num_codes = 0
                for picture_job, event in self._scheduler.step():
                    if isinstance(event, CodesDrawn):
                        num_codes += event.num_codes
                    self._report_scheduler_event(picture_job, event)
                self._last_active = time.monotonic()
                self._count_codes(num_codes, self._last_active - started)

    def _count_codes(self, num_codes: int, seconds: float) -> None:
        self._num_codes += num_codes
        if num_codes:
            lately = seconds / num_codes
            self._seconds_per_code += 0.05 * (lately - self._seconds_per_code)

    def _read_inbox(self, scheduler: JobScheduler) -> None:
        """Add and cancel jobs; wait for one if there is nothing to draw."""
        while True:
            try:
                item = self._inbox.get(block=scheduler.is_idle, timeout=_WAIT_SECONDS)
            except Empty:
                self._last_active = time.monotonic()
                if scheduler.is_idle:
                    continue
                return
            if isinstance(item, int):
                picture_job = self._job_by_number.pop(item, None)
                if picture_job is not None:
                    del self._number_by_job[picture_job]
                    scheduler.abort(picture_job)
                continue
            number, picture_job = item
            self._number_by_job[picture_job], self._job_by_number[number] = number, picture_job
            scheduler.add(picture_job)

    def _report_scheduler_event(self, picture_job: PictureJob, event: SchedulerEvent) -> None:
        """Report a job's event to the server."""
        number, seeds = self._number_by_job[picture_job], picture_job.prompt.seeds
        if isinstance(event, CodesDrawn):
            return
        if isinstance(event, PictureDone):
            picture = event.picture
            self._report(
                number,
                Picture(
                    place=event.place,
                    seed=picture.seed,
                    pixels=Pixels.of(picture.image),
                    caption_loss=picture.caption_loss,
                    drawn_text=picture.drawn_text,
                    is_plain=is_blank(picture.image),
                    num_passes=picture.num_passes,
                ),
            )
        elif isinstance(event, JobDone | JobFailed):
            del self._number_by_job[picture_job], self._job_by_number[number]
            self._report(number, Done() if isinstance(event, JobDone) else _failure_event(event.error))
        else:
            share = float((event.codes >= 0).double().mean())
            self._report(
                number,
                Preview(candidate=seeds.index(event.seed), share=share, pixels=Pixels.of(event.image)),
            )

    def _send_heartbeats(self) -> None:
        """Send a heartbeat each second, unless a pass hangs."""
        while True:
            time.sleep(1)
            if time.monotonic() - self._last_active > self._options.stuck_seconds:
                continue
            scheduler = self._scheduler
            self._send(
                Heartbeat(
                    num_running=0 if scheduler is None else scheduler.num_running,
                    num_waiting=0 if scheduler is None else scheduler.num_pending - scheduler.num_running,
                    num_passes=self._engine.num_passes,
                    num_codes=self._num_codes,
                    seconds_per_code=self._seconds_per_code,
                )
            )


@dataclass(frozen=True)
class _FailureReporter:
    """Context manager that reports an exception as the job's event."""

    tell: Callable[[JobEvent], None]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.tell(_failure_event(error))
        return True


def _failure_event(error: Exception) -> JobEvent:
    """Convert an error to an event: refusals keep their message, other errors are logged."""
    if isinstance(error, CogViewError):
        return Refused(message=printable(str(error)))
    traceback.print_exception(error)
    return Failed(message=printable(f"{type(error).__name__}: {error}"))


def main() -> None:
    """Read the options, load the model and run."""
    connection = Connection(int(sys.argv[1]))
    options: EngineOptions = connection.recv()
    warnings.simplefilter("ignore")
    try:
        folder = find_model_folder(options.model)  # asks a hub only once
        options = replace(options, model=str(folder))
        pipeline = cogview.load(
            folder,
            options.device,
            options.dtype,
            max_batch=options.max_batch + options.num_reserved,
            memory=options.memory,
            cache=options.cache,
            kernels=options.kernels,
        )
        process = EngineProcess(pipeline, options, connection)
        process.warm_up()
    except CogViewError as error:
        connection.send(StartFailed(message=printable(str(error)), is_usage=isinstance(error, UsageError)))
        return
    process.run()


if __name__ == "__main__":
    main()
