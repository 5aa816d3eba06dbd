"""Workflow of a prompt: draw candidates, rank them, upscale those that are kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.request import Progressed, SequenceResult
from cogview.generation.dispatcher import RequestSink
from cogview.generation.drawer import CodeTask
from cogview.generation.picture_events import CodesDrawn, GeneratedImage, PictureEvent
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.generation.previews import Previews
from cogview.generation.ranker import Ranking, best_of
from cogview.generation.super_resolution import StageWindow
from cogview.sequence.template import Pieces

Candidate = tuple[Prompt, int]
"""A prompt and the seed of one of its candidates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UndecodedPicture:
    """A picture whose codes are all drawn.

    Args:
        text_index: index of its prompt.
        place: among the pictures of its prompt.
        codes: to decode.
        with_pixels: returns the finished picture, given its pixels.
    """

    text_index: int
    place: int
    codes: Int64[Tensor, "r s"]
    with_pixels: Callable[[Image.Image], GeneratedImage]


class PromptWorkflow:
    """Draws a prompt's candidates, ranks them and upscales those that are kept, each as early as possible.

    Args:
        task: how.
        requests: where to submit requests.
        prompt: to draw.
        on_drawn: called with each picture whose codes are done.
        previews: of the candidates, if they are shown.
    """

    def __init__(
        self,
        task: PictureTask,
        requests: RequestSink[PictureEvent],
        prompt: Prompt,
        on_drawn: Callable[[UndecodedPicture], None],
        previews: Previews[Candidate] | None,
    ) -> None:
        self._task = task
        self._requests = requests
        self._prompt = prompt
        self._on_drawn = on_drawn
        self._previews = previews
        self._nums_passes = [0] * len(prompt.seeds)
        self._codes: list[Int64[np.ndarray, "n"] | None] = [None] * len(prompt.seeds)
        self._losses: list[float | None] = [None] * len(prompt.seeds)

    def begin(self) -> None:
        """Submit all candidates."""
        for number, (seed, pieces) in enumerate(zip(self._prompt.seeds, self._prompt.pieces, strict=True)):
            self._add_candidate(number, self._task.codes, seed, pieces)

    def _add_candidate(self, number: int, codes: CodeTask, seed: int, pieces: Pieces) -> None:
        def on_event(event: Progressed | SequenceResult) -> Iterator[PictureEvent]:
            if isinstance(event, Progressed):
                if self._previews is not None:
                    self._previews.take((self._prompt, seed), event.first, event.tokens)
                yield self._codes_drawn(number, len(event.tokens))
                return
            self._codes[number] = event.tokens
            self._nums_passes[number] += event.num_passes
            if self._previews is not None:
                is_shown = self._task.ranking is None and self._task.super_resolution is None
                self._previews.end((self._prompt, seed), is_shown=is_shown)
            if self._task.ranking is None:
                self._keep(number, number)
            else:
                self._add_score(number, self._task.ranking, event.tokens)

        self._requests.add(codes.runner, codes.request(pieces, seed), on_event)

    def _add_score(self, number: int, ranking: Ranking, codes: Int64[np.ndarray, "n"]) -> None:
        def on_event(event: Progressed | SequenceResult) -> Iterator[PictureEvent]:
            if isinstance(event, SequenceResult):
                self._losses[number] = ranking.loss(event, self._prompt.seeds[number])
                self._rank()
            return iter(())

        self._requests.add(ranking.runner, ranking.request(self._prompt.pieces[number], codes), on_event)

    def _rank(self) -> None:
        """Keep the best once all are scored."""
        codes = [each for each in self._codes if each is not None]
        losses = [each for each in self._losses if each is not None]
        if len(losses) == len(self._losses):
            for place, number in enumerate(best_of(codes, losses, self._task.keep)):
                self._keep(number, place)

    def _keep(self, number: int, place: int) -> None:
        """Pass a picture on to be decoded, or upscale it first."""
        task, template, codes = self._task, self._task.codes.template, self._codes[number]
        assert codes is not None, "it was drawn"
        codes = codes.reshape(template.grid_rows, template.grid_columns)
        if task.super_resolution is None:
            self._end(number, place, codes)
            return
        pieces, seed = self._prompt.pieces[number], self._prompt.seeds[number]
        picture = task.super_resolution.begin(
            codes, pieces, seed, task.upscale_sampling, task.options.upscale
        )
        runner = task.super_resolution.runner

        def add_windows() -> None:
            for window, request in picture.new_requests():
                self._requests.add(runner, request, listener(window))

        def listener(window: StageWindow) -> Callable[[Progressed | SequenceResult], Iterator[PictureEvent]]:
            def on_event(event: Progressed | SequenceResult) -> Iterator[PictureEvent]:
                if isinstance(event, Progressed):
                    yield self._codes_drawn(number, len(event.tokens))
                    return
                picture.take(window, event.tokens)
                self._nums_passes[number] += event.num_passes
                add_windows()
                if picture.is_done:
                    self._end(number, place, picture.codes)

            return on_event

        add_windows()

    def _codes_drawn(self, number: int, num_codes: int) -> CodesDrawn:
        return CodesDrawn(text_index=self._prompt.index, seed=self._prompt.seeds[number], num_codes=num_codes)

    def _end(self, number: int, place: int, codes: Int64[np.ndarray, "r s"]) -> None:
        """Pass a picture on to be decoded."""
        task, prompt, loss = self._task, self._prompt, self._losses[number]
        seed = prompt.seeds[number]
        if self._previews is not None:
            self._previews.end((prompt, seed), is_shown=True)
        by_fit = task.options.rank_by == "fit"
        tensor = torch.from_numpy(codes)

        def with_pixels(image: Image.Image) -> GeneratedImage:
            if task.options.keeps_pixels and task.codes.inpainting is not None:
                image = task.codes.inpainting.with_given_pixels(image, seed)
            return GeneratedImage(
                image=image,
                codes=tensor,
                seed=seed,
                text=prompt.text,
                caption_loss=None if by_fit else loss,
                fit_loss=loss if by_fit else None,
                drawn_text=prompt.drawn_texts[number] if prompt.drawn_texts[number] != prompt.text else None,
                num_passes=self._nums_passes[number],
            )

        self._on_drawn(
            UndecodedPicture(text_index=prompt.index, place=place, codes=tensor, with_pixels=with_pixels)
        )
