"""The engine's process: it holds the model, draws what the web server asks for, and ends when the server does.

A process of its own keeps HTTP's work from the passes, and the server alive if the model's memory runs out.
"""

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
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
    Alive,
    Answer,
    Begin,
    Broken,
    Cancel,
    CannotBegin,
    CaptionJob,
    DrawJob,
    Ended,
    JobEvent,
    ModelFacts,
    Picture,
    Pixels,
    Preview,
    RankJob,
    Ready,
    Refused,
    Report,
    Told,
    UpscaleJob,
)
from cogview.serving.options import EngineOptions
from cogview.serving.side_jobs import SideJobs
from cogview.serving.suggestions import suggestions

PREVIEWS = PreviewOptions(per_second=10, max_share=0.05, is_prompt=True)
_WAIT_SECONDS = 0.5
_MOST_WORDS = 500


class EngineProcess:
    """Draws for a web server at the other end of a pipe.

    One thread looks at what comes and prepares it, one runs the passes, and one does what draws nothing: it shares the
    passes, so nothing waits for it.

    Args:
        pipeline: draws.
        options: how it was loaded.
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
        self._ticked = time.monotonic()
        self._studio: JobScheduler | None = None
        self._number_of: dict[PictureJob, int] = {}
        self._order_of: dict[int, PictureJob] = {}

    def run(self) -> None:
        """Draw until the server goes away; `warm_up` comes first."""
        self._send(Ready(facts=self._facts()))
        for work in (self._listen, self._answer_side_jobs, self._tell_alive):
            threading.Thread(target=self._guarded, args=[work], daemon=True).start()
        self._guarded(self._draw)  # in the main thread, where memory is reused best

    def _listen(self) -> None:
        """Take what the server says."""
        while True:
            try:
                command = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # the server is gone: nobody waits for what is being drawn
            if isinstance(command, Cancel):
                self._side_jobs.cancel(command.number)
                self._inbox.put(command.number)
            else:
                self._take(command)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread whose end is that of the process, so that the server begins another."""
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def warm_up(self) -> None:
        """Prepare weights and kernels, so that the first request takes no longer than others."""
        pipeline = self._pipeline
        for _ in pipeline.stream("warm up", 2, previews=PreviewOptions(per_second=100, max_share=1)):
            pass
        if pipeline.captioner_names:
            image = pipeline.generate("warm up", 1)[0].codes
            pipeline.rank("warm up", [image], pipeline.captioner_names[0])

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

    def _tell(self, number: int, event: JobEvent) -> None:
        self._send(Told(number=number, event=event))

    def _take(self, command: Begin) -> None:
        """Look at a job, and put it where it will be carried out."""
        number, job = command.number, command.job
        with self._failures_of(number):
            if isinstance(job, DrawJob):
                order, accepted = self._order(command, job)
                self._tell(number, accepted)
                self._inbox.put((number, order))
            else:
                self._tell(number, Accepted())
                self._side_jobs.add(number, command.client, lambda: self._answered(job))

    def _failures_of(self, number: int) -> "_Failures":
        return _Failures(lambda event: self._tell(number, event))

    def _order(self, command: Begin, job: DrawJob) -> tuple[PictureJob, Accepted]:
        """Return what draws a job, and what is told of it."""
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

    def _answered(self, job: CaptionJob | RankJob | UpscaleJob) -> JobEvent:
        """Carry out a job that is done at once."""
        pipeline = self._pipeline
        if isinstance(job, CaptionJob):
            (captions,) = pipeline.caption(job.image.image(), job.num_captions, seed=job.seed, **job.options)
            return Answer(data=[{"text": each.text, "caption_loss": each.caption_loss} for each in captions])
        if isinstance(job, RankJob):
            ranked = pipeline.rank(job.text, [each.image() for each in job.images])
            return Answer(data=[{"index": each.index, "caption_loss": each.caption_loss} for each in ranked])
        (larger,) = pipeline.upscale(job.image.image(), job.text or "a picture", job.factor, force=job.force)
        return Picture(place=0, seed=larger.seed, pixels=Pixels.of(larger.image))

    def _answer_side_jobs(self) -> None:
        while True:
            number, answer = self._side_jobs.take()
            with self._failures_of(number):
                self._tell(number, answer())
                self._tell(number, Ended())

    def _draw(self) -> None:
        """Run passes while there is something to draw."""
        max_batch = self._engine.max_batch
        with JobScheduler(
            previews=PREVIEWS,
            num_slots=max_batch,
            num_reserved=self._options.num_reserved,
            max_decoded=os.cpu_count() if self._pipeline.device.type == "cpu" else None,
            shows_rest=False,
        ) as self._studio:
            while True:
                self._read_inbox(self._studio)
                started = time.monotonic()
                num_codes = 0
                for order, told in self._studio.step():
                    if isinstance(told, CodesDrawn):
                        num_codes += told.num_codes
                    self._tell_of(order, told)
                self._ticked = time.monotonic()
                self._count(num_codes, self._ticked - started)

    def _count(self, num_codes: int, seconds: float) -> None:
        self._num_codes += num_codes
        if num_codes:
            lately = seconds / num_codes
            self._seconds_per_code += 0.05 * (lately - self._seconds_per_code)

    def _read_inbox(self, studio: JobScheduler) -> None:
        """Take what came; wait for something if there is nothing to draw."""
        while True:
            try:
                item = self._inbox.get(block=studio.is_idle, timeout=_WAIT_SECONDS)
            except Empty:
                self._ticked = time.monotonic()
                if studio.is_idle:
                    continue
                return
            if isinstance(item, int):
                order = self._order_of.pop(item, None)
                if order is not None:
                    del self._number_of[order]
                    studio.abort(order)
                continue
            number, order = item
            self._number_of[order], self._order_of[number] = number, order
            studio.add(order)

    def _tell_of(self, order: PictureJob, told: SchedulerEvent) -> None:
        """Tell the server what is told of an order."""
        number, seeds = self._number_of[order], order.prompt.seeds
        if isinstance(told, CodesDrawn):
            return
        if isinstance(told, PictureDone):
            picture = told.picture
            self._tell(
                number,
                Picture(
                    place=told.place,
                    seed=picture.seed,
                    pixels=Pixels.of(picture.image),
                    caption_loss=picture.caption_loss,
                    drawn_text=picture.drawn_text,
                    is_plain=is_blank(picture.image),
                    num_passes=picture.num_passes,
                ),
            )
        elif isinstance(told, JobDone | JobFailed):
            del self._number_of[order], self._order_of[number]
            self._tell(number, Ended() if isinstance(told, JobDone) else _failure(told.error))
        else:
            share = float((told.codes >= 0).double().mean())
            self._tell(
                number,
                Preview(candidate=seeds.index(told.seed), share=share, pixels=Pixels.of(told.image)),
            )

    def _tell_alive(self) -> None:
        """Tell each second how it goes, but not while a pass goes on for longer than it should."""
        while True:
            time.sleep(1)
            if time.monotonic() - self._ticked > self._options.stuck_seconds:
                continue
            studio = self._studio
            self._send(
                Alive(
                    num_running=0 if studio is None else studio.num_running,
                    num_waiting=0 if studio is None else studio.num_pending - studio.num_running,
                    num_passes=self._engine.num_passes,
                    num_codes=self._num_codes,
                    seconds_per_code=self._seconds_per_code,
                )
            )


@dataclass(frozen=True)
class _Failures:
    """Tells of a job's failure, and goes on."""

    tell: Callable[[JobEvent], None]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.tell(_failure(error))
        return True


def _failure(error: Exception) -> JobEvent:
    """Return an error as what is told of it: what the user can mend in its words, all else to the log alone."""
    if isinstance(error, CogViewError):
        return Refused(message=printable(str(error)))
    traceback.print_exception(error)
    return Broken(message=printable(f"{type(error).__name__}: {error}"))


def main() -> None:
    """Begin with what the server sends first."""
    connection = Connection(int(sys.argv[1]))
    options: EngineOptions = connection.recv()
    warnings.simplefilter("ignore")  # what users should know is told by itself
    try:
        folder = find_model_folder(options.model)  # a hub is asked once
        options = replace(options, model=str(folder))
        pipeline = cogview.load(
            folder,
            options.device,
            options.dtype,
            max_batch=options.max_batch + options.num_reserved,
            memory=options.memory,
            cache=options.cache,
        )
        process = EngineProcess(pipeline, options, connection)
        process.warm_up()
    except CogViewError as error:
        connection.send(CannotBegin(message=printable(str(error)), is_usage=isinstance(error, UsageError)))
        return
    process.run()


if __name__ == "__main__":
    main()
