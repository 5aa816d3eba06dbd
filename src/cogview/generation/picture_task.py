"""Pictures from texts: candidates are drawn, ranked and upscaled side by side, each as soon as it is possible."""

from collections.abc import Sequence
from dataclasses import dataclass

from cogview.decoding.config import SamplingConfig
from cogview.generation.drawer import CodeTask, Drawer
from cogview.generation.inpainting import places_behind
from cogview.generation.model import LoadedModel
from cogview.generation.options import PictureOptions
from cogview.generation.ranker import CaptionRanking, FitRanking, Ranking
from cogview.generation.request import check_request, texts_of_candidates
from cogview.generation.super_resolution import SuperResolution
from cogview.generation.upscaler import Upscaler, upscale_sampling_config
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTask:
    """`PictureOptions` with all that they name at hand, checked before anything is drawn.

    Args:
        model: draws.
        options: as they were asked for.
        codes: what draws candidates.
        keep: how many of each text are kept; all if None.
        ranking: what they are ranked by, if they are.
        super_resolution: draws those that are kept again, if they are.
        upscale_sampling: how.
        size_pixels: of the longer side of the pictures.
    """

    model: LoadedModel
    options: PictureOptions
    codes: CodeTask
    keep: int | None
    ranking: Ranking | None
    super_resolution: SuperResolution | None
    upscale_sampling: SamplingConfig
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
        is_decoded = upscaler.is_decoded(options.upscale, options.upscaler)
        super_resolution = None if is_decoded else model.super_resolution(options.upscaler)
        size_pixels = upscaler.checked_size(options.size_pixels, options.upscale, options.upscaler)
        codes = Drawer(model).task(options)
        ranking: Ranking | None = None if captions is None else CaptionRanking(captions)
        if by_fit:
            assert codes.inpainting is not None, "the options say so"
            for each in range(seed, seed + num_candidates):
                places_behind(codes.inpainting.places.of(each))
            ranking = FitRanking(codes.runner, codes.template, codes.inpainting.places)
        upscale_sampling = codes.sampling
        if super_resolution is not None:
            temperature = 0.0 if options.temperature == 0 else None
            upscale_sampling = upscale_sampling_config(
                super_resolution, temperature, options.top_k, codes.sampling.top_p
            )
        return cls(
            model=model,
            options=options,
            codes=codes,
            keep=keep,
            ranking=ranking,
            super_resolution=super_resolution,
            upscale_sampling=upscale_sampling,
            size_pixels=size_pixels,
        )

    @property
    def max_text_pieces(self) -> int:
        """So many pieces of a text are read, by all that reads it."""
        rooms = [self.codes.template.max_text_pieces]
        if self.super_resolution is not None:
            rooms.append(self.super_resolution.template.low.max_text_pieces)
        return min(rooms)

    def num_codes(self, num_candidates: int) -> int:
        """Return how many codes a text's candidates take, those of upscaling among them."""
        grid = self.codes.template.grid_rows, self.codes.template.grid_columns
        num = num_candidates * self.codes.template.num_codes_per_image
        if self.super_resolution is not None:
            num += self.super_resolution.num_codes(self.num_kept(num_candidates), grid, self.options.upscale)
        return num

    def num_kept(self, num_candidates: int) -> int:
        """Return how many of a text's candidates are kept."""
        return num_candidates if self.keep is None else self.keep

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
