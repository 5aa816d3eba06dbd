"""A text while pictures of it are drawn: candidates, their scores, and larger pictures of those that are kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.request import Drawn, Progressed
from cogview.generation.drawer import CodeTask
from cogview.generation.picture_events import CodesDrawn, GeneratedImage, PictureEvent
from cogview.generation.picture_task import AskedText, PictureTask
from cogview.generation.previews import Previews
from cogview.generation.ranker import Ranking, best_of
from cogview.generation.sessions import TakesRequests
from cogview.generation.super_resolution import StageWindow
from cogview.sequence.template import Pieces

Candidate = tuple[AskedText, int]
"""A text and the seed of one of its candidates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnPicture:
    """A picture of which all codes are drawn.

    Args:
        text_index: of its text.
        place: among those of its text.
        codes: of it.
        picture: all but its pixels.
    """

    text_index: int
    place: int
    codes: Int64[Tensor, "r s"]
    picture: Callable[[Image.Image], GeneratedImage]


class TextInWork:
    """A text while pictures of it are drawn.

    Args:
        task: how.
        sessions: that do the work.
        asked: the text.
        on_drawn: is given pictures whose codes are done.
        previews: of its candidates, if they are shown.
    """

    def __init__(
        self,
        task: PictureTask,
        sessions: TakesRequests[PictureEvent],
        asked: AskedText,
        on_drawn: Callable[[DrawnPicture], None],
        previews: Previews[Candidate] | None,
    ) -> None:
        self._task = task
        self._sessions = sessions
        self._asked = asked
        self._on_drawn = on_drawn
        self._previews = previews
        self._nums_passes = [0] * len(asked.seeds)
        self._codes: list[Int64[np.ndarray, "n"] | None] = [None] * len(asked.seeds)
        self._losses: list[float | None] = [None] * len(asked.seeds)

    def begin(self) -> None:
        """Add all candidates."""
        for number, (seed, pieces) in enumerate(zip(self._asked.seeds, self._asked.pieces, strict=True)):
            self._add_candidate(number, self._task.codes, seed, pieces)

    def _add_candidate(self, number: int, codes: CodeTask, seed: int, pieces: Pieces) -> None:
        def told(event: Progressed | Drawn) -> Iterator[PictureEvent]:
            if isinstance(event, Progressed):
                if self._previews is not None:
                    self._previews.take((self._asked, seed), event.first, event.tokens)
                yield self._codes_drawn(number, len(event.tokens))
                return
            self._codes[number] = event.tokens
            self._nums_passes[number] += event.num_passes
            if self._previews is not None:
                is_shown = self._task.ranking is None and self._task.super_resolution is None
                self._previews.end((self._asked, seed), is_shown=is_shown)
            if self._task.ranking is None:
                self._keep(number, number)
            else:
                self._add_score(number, self._task.ranking, event.tokens)

        self._sessions.add(codes.runner, codes.request(pieces, seed), told)

    def _add_score(self, number: int, ranking: Ranking, codes: Int64[np.ndarray, "n"]) -> None:
        def told(event: Progressed | Drawn) -> Iterator[PictureEvent]:
            if isinstance(event, Drawn):
                self._losses[number] = ranking.loss(event, self._asked.seeds[number])
                self._rank()
            return iter(())

        self._sessions.add(ranking.runner, ranking.request(self._asked.pieces[number], codes), told)

    def _rank(self) -> None:
        """Keep the best, if all are scored."""
        codes = [each for each in self._codes if each is not None]
        losses = [each for each in self._losses if each is not None]
        if len(losses) == len(self._losses):
            for place, number in enumerate(best_of(codes, losses, self._task.keep)):
                self._keep(number, place)

    def _keep(self, number: int, place: int) -> None:
        """Decode a picture, or have it upscaled first."""
        task, template, drawn = self._task, self._task.codes.template, self._codes[number]
        assert drawn is not None, "it was drawn"
        codes = drawn.reshape(template.grid_rows, template.grid_columns)
        if task.super_resolution is None:
            self._end(number, place, codes)
            return
        pieces, seed = self._asked.pieces[number], self._asked.seeds[number]
        picture = task.super_resolution.begin(
            codes, pieces, seed, task.upscale_sampling, task.options.upscale
        )
        runner = task.super_resolution.runner

        def add_windows() -> None:
            for window, request in picture.new_requests():
                self._sessions.add(runner, request, listener(window))

        def listener(window: StageWindow) -> Callable[[Progressed | Drawn], Iterator[PictureEvent]]:
            def told(event: Progressed | Drawn) -> Iterator[PictureEvent]:
                if isinstance(event, Progressed):
                    yield self._codes_drawn(number, len(event.tokens))
                    return
                picture.take(window, event.tokens)
                self._nums_passes[number] += event.num_passes
                add_windows()
                if picture.is_done:
                    self._end(number, place, picture.codes)

            return told

        add_windows()

    def _codes_drawn(self, number: int, num_codes: int) -> CodesDrawn:
        return CodesDrawn(text_index=self._asked.index, seed=self._asked.seeds[number], num_codes=num_codes)

    def _end(self, number: int, place: int, codes: Int64[np.ndarray, "r s"]) -> None:
        """Have pixels made of codes."""
        task, asked, loss = self._task, self._asked, self._losses[number]
        seed = asked.seeds[number]
        if self._previews is not None:
            self._previews.end((asked, seed), is_shown=True)
        by_fit = task.options.rank_by == "fit"
        held = torch.from_numpy(codes)

        def picture(image: Image.Image) -> GeneratedImage:
            if task.options.keeps_pixels and task.codes.inpainting is not None:
                image = task.codes.inpainting.with_given_pixels(image, seed)
            return GeneratedImage(
                image=image,
                codes=held,
                seed=seed,
                text=asked.text,
                caption_loss=None if by_fit else loss,
                fit_loss=loss if by_fit else None,
                drawn_text=asked.words[number] if asked.words[number] != asked.text else None,
                num_passes=self._nums_passes[number],
            )

        self._on_drawn(DrawnPicture(text_index=asked.index, place=place, codes=held, picture=picture))
