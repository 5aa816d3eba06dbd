"""Pictures of one caller, as they come."""

from collections.abc import Generator, Iterable
from contextlib import closing

from cogview.generation.picture_events import CodesDrawn, PictureDone, PictureEvent, PicturePreview
from cogview.generation.picture_task import AskedText, PictureTask
from cogview.generation.previews import PreviewOptions
from cogview.generation.studio import Order, OrderDone, OrderFailed, Studio
from cogview.generation.text_to_image import Progress


def picture_events(
    task: PictureTask, asked: Iterable[AskedText], previews: PreviewOptions | None = None
) -> Generator[PictureEvent, None, None]:
    """Yield what is drawn, as it comes.

    A text is taken when there is room for it: texts may be many. A candidate is scored as soon as it is drawn, and what
    is kept is upscaled as soon as all candidates of its text are scored. Closing the iterator stops the work.

    Args:
        task: how.
        asked: the texts.
        previews: how often pictures are shown that are still drawn; never if None.

    Raises:
        CogViewError: the transformer's logits are not finite.
    """
    waiting = iter(asked)
    room = task.codes.runner.engine.max_batch
    with Studio(previews=previews) as studio:
        while True:
            while studio.num_pending < room and (text := next(waiting, None)) is not None:
                studio.add(Order(task=task, asked=text))
            if studio.is_idle:
                break
            for _, told in studio.step():
                if isinstance(told, OrderFailed):
                    raise told.error
                if not isinstance(told, OrderDone):
                    yield told


def drawn_pictures(
    task: PictureTask,
    asked: Iterable[AskedText],
    num_codes: int,
    progress: Progress | None = None,
    previews: PreviewOptions | None = None,
) -> Generator[PicturePreview | PictureDone, None, None]:
    """Yield pictures alone, and tell of codes by a callback.

    Args:
        task: how.
        asked: the texts.
        num_codes: that they take, all together.
        progress: called with the numbers of codes drawn and to be drawn.
        previews: how often pictures are shown that are still drawn.
    """
    num_done = 0
    with closing(picture_events(task, asked, previews)) as events:
        for event in events:
            if not isinstance(event, CodesDrawn):
                yield event
                continue
            num_done += event.num_codes
            if progress is not None:
                progress(num_done, num_codes)
