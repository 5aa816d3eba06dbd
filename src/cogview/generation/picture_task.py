"""Pictures from texts: candidates are drawn, ranked and magnified side by side, each as soon as it is possible."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.decoding.request import Drawn, Progressed
from cogview.generation.drawer import CodeTask, Drawer
from cogview.generation.inpainting import places_behind
from cogview.generation.model import LoadedModel
from cogview.generation.options import PictureOptions
from cogview.generation.picture_events import (
    CodesDrawn,
    GeneratedImage,
    PictureDone,
    PictureEvent,
    PicturePreview,
)
from cogview.generation.previews import PreviewOptions, Previews
from cogview.generation.ranker import CaptionRanking, FitRanking, Ranking, best_of
from cogview.generation.request import check_request, texts_of_candidates
from cogview.generation.sessions import Sessions
from cogview.generation.super_resolution import Magnifier, StageWindow
from cogview.generation.text_to_image import Progress
from cogview.generation.upscaler import Upscaler, magnifying_config
from cogview.sequence.template import Pieces


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedText:
    """A text, and the candidates that are drawn for it; they are ranked among each other.

    Args:
        index: of the text, which tells what is made of it from all else.
        text: as the user wrote it.
        seeds: of the candidates.
        words: what is drawn for each.
        pieces: of these.
    """

    index: int
    text: str
    seeds: Sequence[int]
    words: Sequence[str]
    pieces: Sequence[Pieces]


_Candidate = tuple[AskedText, int]
"""A text and the seed of one of its candidates."""

_MOST_LEFT = 32  # pictures that wait to be shown whole; a run of many texts must not gather them


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTask:
    """`PictureOptions` with all that they name at hand, checked before anything is drawn.

    Args:
        model: draws.
        options: as they were asked for.
        codes: what draws candidates.
        keep: how many of each text are kept; all if None.
        ranking: what they are ranked by, if they are.
        magnifier: draws those that are kept again, if they are.
        magnifying: how.
        size_pixels: of the longer side of the pictures.
    """

    model: LoadedModel
    options: PictureOptions
    codes: CodeTask
    keep: int | None
    ranking: Ranking | None
    magnifier: Magnifier | None
    magnifying: SamplingConfig
    size_pixels: int

    @classmethod
    def of(
        cls, model: LoadedModel, options: PictureOptions, num_candidates: int, keep: int | None, seed: int
    ) -> "PictureTask":
        """Return what draws as asked.

        Args:
            model: draws.
            options: how.
            num_candidates: pictures of each text.
            keep: how many of them are kept; all, and unranked unless the options name a captioner, if None.
            seed: of the first candidate.

        Raises:
            UsageError: something is impossible, not there or refused.
            UnusableImage: a file is no picture that can be read.
        """
        by_fit = options.rank_by == "fit"
        has_captioner = bool(model.parts.names_for("captioning"))
        is_ranked = by_fit or options.captioner is not None or (keep is not None and has_captioner)
        check_request(num_candidates, keep, seed, is_ranked)
        upscaler = Upscaler(model)
        captions = model.caption_model(options.captioner) if is_ranked and not by_fit else None
        is_decoded = upscaler.is_decoded(options.upscale, options.magnifier)
        magnifier = None if is_decoded else model.magnifier(options.magnifier)
        size_pixels = upscaler.checked_size(options.size_pixels, options.upscale, options.magnifier)
        codes = Drawer(model).task(options)
        ranking: Ranking | None = None if captions is None else CaptionRanking(captions)
        if by_fit:
            assert codes.inpainting is not None, "the options say so"
            for each in range(seed, seed + num_candidates):
                places_behind(codes.inpainting.places.of(each))
            ranking = FitRanking(codes.runner, codes.template, codes.inpainting.places)
        magnifying = codes.sampling
        if magnifier is not None:
            temperature = 0.0 if options.temperature == 0 else None
            magnifying = magnifying_config(magnifier, temperature, options.top_k, codes.sampling.top_p)
        return cls(
            model=model,
            options=options,
            codes=codes,
            keep=keep,
            ranking=ranking,
            magnifier=magnifier,
            magnifying=magnifying,
            size_pixels=size_pixels,
        )

    @property
    def max_text_pieces(self) -> int:
        """So many pieces of a text are read, by all that reads it."""
        rooms = [self.codes.template.max_text_pieces]
        if self.magnifier is not None:
            rooms.append(self.magnifier.template.low.max_text_pieces)
        return min(rooms)

    def num_codes(self, num_candidates: int) -> int:
        """Return how many codes a text's candidates take, those of magnifying among them."""
        grid = self.codes.template.grid_rows, self.codes.template.grid_columns
        num = num_candidates * self.codes.template.num_codes_per_image
        if self.magnifier is not None:
            num_kept = num_candidates if self.keep is None else self.keep
            num += self.magnifier.num_codes(num_kept, grid, self.options.upscale)
        return num

    def asked(self, texts: Sequence[str], seeds: Sequence[int], first_index: int = 0) -> list[AskedText]:
        """Return what is drawn for texts, after a look at their words.

        Args:
            texts: as a user writes them.
            seeds: of the candidates of each.
            first_index: of the first text.

        Raises:
            UsageError: a text holds nothing that the model reads, or an unknown word and `strict`.
        """
        options = self.options
        rows = texts_of_candidates(texts, seeds, options.balance_words)
        every = [text for row in rows for text in row]
        read = self.model.reading(every, options.adapter, options.strict)
        pieces = Drawer(self.model).pieces_of([read[text] for text in every], self.max_text_pieces)
        return [
            AskedText(
                index=index,
                text=text,
                seeds=seeds,
                words=[read[each] for each in row],
                pieces=[pieces[read[each]] for each in row],
            )
            for index, (text, row) in enumerate(zip(texts, rows, strict=True), start=first_index)
        ]

    def shown(
        self,
        asked: Iterable[AskedText],
        num_codes: int,
        progress: Progress | None = None,
        previews: PreviewOptions | None = None,
    ) -> Generator[PicturePreview | PictureDone, None, None]:
        """Yield pictures as `stream` does, and tell of codes by a callback.

        Args:
            asked: the texts.
            num_codes: that they take, all together.
            progress: called with the numbers of codes drawn and to be drawn.
            previews: how often pictures are shown that are still drawn.
        """
        num_done = 0
        with closing(self.stream(asked, previews)) as events:
            for event in events:
                if not isinstance(event, CodesDrawn):
                    yield event
                    continue
                num_done += event.num_codes
                if progress is not None:
                    progress(num_done, num_codes)

    def stream(
        self, asked: Iterable[AskedText], previews: PreviewOptions | None = None
    ) -> Generator[PictureEvent, None, None]:
        """Yield what is drawn, as it comes.

        A text is taken when there is room for it: texts may be many. A candidate is scored as soon as it is drawn, and
        what is kept is magnified as soon as all candidates of its text are scored. What comes of a text does not depend
        on this, as far as `Engine` holds that. Closing the iterator stops the work.

        Args:
            asked: the texts.
            previews: how often pictures are shown that are still drawn; never if None.

        Raises:
            CogViewError: the transformer's logits are not finite.
        """
        waiting = iter(asked)
        room = self.codes.runner.engine.max_batch
        shown: Previews[_Candidate] | None = None
        if previews is not None:
            template = self.codes.template
            grid = template.grid_rows, template.grid_columns
            shown = Previews(self.model.image_tokenizer, grid, previews)
        drawn: list[_DrawnPicture] = []
        with Sessions[PictureEvent]() as sessions:
            while True:
                while sessions.num_pending < room and (text := next(waiting, None)) is not None:
                    _TextInWork(self, sessions, text, drawn, shown).begin()
                if not sessions.num_pending:
                    break
                yield from sessions.step()
                yield from self._decoded(drawn)
                drawn.clear()
                if shown:
                    yield from map(_preview, shown.due())
                    yield from map(_preview, shown.rest(least=_MOST_LEFT))
            yield from map(_preview, shown.rest() if shown else ())

    def _decoded(self, drawn: "Sequence[_DrawnPicture]") -> Iterator[PictureDone]:
        """Yield pictures of codes. No pass runs meanwhile: its threads would wait for a core that decodes."""
        if not drawn:
            return
        codes = torch.stack([each.codes for each in drawn])
        for each, image in zip(drawn, self.model.decoder.decode_each(codes, self.size_pixels), strict=True):
            yield PictureDone(text_index=each.text_index, place=each.place, picture=each.picture(image))


def _preview(shown: tuple[_Candidate, Int64[Tensor, "r s"], Image.Image]) -> PicturePreview:
    (text, seed), codes, image = shown
    return PicturePreview(text_index=text.index, text=text.text, seed=seed, codes=codes, image=image)


@dataclass(frozen=True, kw_only=True, eq=False)
class _DrawnPicture:
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


class _TextInWork:
    """A text while pictures of it are drawn.

    Args:
        task: how.
        sessions: that do the work.
        asked: the text.
        drawn: takes pictures whose codes are done.
        previews: of its candidates, if they are shown.
    """

    def __init__(
        self,
        task: PictureTask,
        sessions: Sessions[PictureEvent],
        asked: AskedText,
        drawn: list[_DrawnPicture],
        previews: "Previews[_Candidate] | None",
    ) -> None:
        self._task = task
        self._sessions = sessions
        self._asked = asked
        self._drawn = drawn
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
                is_shown = self._task.ranking is None and self._task.magnifier is None
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
        """Decode a picture, or have it magnified first."""
        task, template, drawn = self._task, self._task.codes.template, self._codes[number]
        assert drawn is not None, "it was drawn"
        codes = drawn.reshape(template.grid_rows, template.grid_columns)
        if task.magnifier is None:
            self._end(number, place, codes)
            return
        pieces, seed = self._asked.pieces[number], self._asked.seeds[number]
        picture = task.magnifier.begin(codes, pieces, seed, task.magnifying, task.options.upscale)
        runner = task.magnifier.runner

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

        self._drawn.append(_DrawnPicture(text_index=asked.index, place=place, codes=held, picture=picture))
