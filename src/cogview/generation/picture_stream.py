"""Stream of the pictures of one caller."""

from collections.abc import Generator, Iterable
from contextlib import closing

from cogview.generation.job_scheduler import JobDone, JobFailed, JobScheduler, PictureJob
from cogview.generation.picture_events import CodesDrawn, PictureDone, PictureEvent, PicturePreview
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.generation.previews import PreviewOptions
from cogview.generation.text_to_image import Progress


def picture_events(
    task: PictureTask, prompts: Iterable[Prompt], previews: PreviewOptions | None = None
) -> Generator[PictureEvent, None, None]:
    """Draw prompts, and yield events as they come.

    A prompt is taken when there is room for it, so there may be many. A candidate is scored as soon as it is drawn;
    candidates are upscaled as soon as all of their prompt are scored. Closing the iterator stops the work.

    Args:
        task: how to draw.
        prompts: to draw.
        previews: how often to yield previews; never if None.

    Raises:
        CogViewError: the transformer's logits are not finite.
    """
    waiting = iter(prompts)
    room = task.codes.runner.engine.max_batch
    with JobScheduler(previews=previews) as scheduler:
        while True:
            while scheduler.num_pending < room and (prompt := next(waiting, None)) is not None:
                scheduler.add(PictureJob(task=task, prompt=prompt))
            if scheduler.is_idle:
                break
            for _, event in scheduler.step():
                if isinstance(event, JobFailed):
                    raise event.error
                if not isinstance(event, JobDone):
                    yield event


def drawn_pictures(
    task: PictureTask,
    prompts: Iterable[Prompt],
    num_codes: int,
    progress: Progress | None = None,
    previews: PreviewOptions | None = None,
) -> Generator[PicturePreview | PictureDone, None, None]:
    """Yield pictures alone, and report codes to a callback.

    Args:
        task: how to draw.
        prompts: to draw.
        num_codes: of all prompts.
        progress: called with the number of codes drawn so far, and `num_codes`.
        previews: how often to yield previews; never if None.
    """
    num_done = 0
    with closing(picture_events(task, prompts, previews)) as events:
        for event in events:
            if not isinstance(event, CodesDrawn):
                yield event
                continue
            num_done += event.num_codes
            if progress is not None:
                progress(num_done, num_codes)
