"""Settings of a drawing, resolved against a model, and the prompts to draw."""

from collections.abc import Sequence
from dataclasses import dataclass

from cogview.decoding.config import SamplingConfig
from cogview.generation.drawer import CodeTask, Drawer
from cogview.generation.inpainting import given_after_drawn
from cogview.generation.model import LoadedModel
from cogview.generation.options import PictureOptions
from cogview.generation.ranker import CaptionRanking, FitRanking, Ranking
from cogview.generation.super_resolution import SuperResolution
from cogview.generation.upscaler import Upscaler, upscale_sampling_config
from cogview.generation.validation import check_request, texts_of_candidates
from cogview.sequence.template import Pieces


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A text with its candidates, which are ranked among each other.

    Args:
        index: number of the text among all texts of the caller, from 0.
        text: as the user wrote it.
        seeds: of the candidates.
        drawn_texts: what the model reads for each candidate.
        pieces: of each drawn text.
    """

    index: int
    text: str
    seeds: Sequence[int]
    drawn_texts: Sequence[str]
    pieces: Sequence[Pieces]


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTask:
    """`PictureOptions` checked and resolved against a model.

    Args:
        model: to draw with.
        options: as the user gave them.
        codes: settings of the candidates' codes.
        keep: candidates to keep of each text; all if None.
        ranking: of the candidates; None if they are not ranked.
        super_resolution: upscales those that are kept; None if they are not.
        upscale_sampling: for `super_resolution`.
        size_pixels: longer side of the pictures.
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
        """Check options, and resolve the names in them.

        Args:
            model: to draw with.
            options: as the user gave them.
            num_candidates: pictures of each text.
            keep: candidates to keep; if None all, unranked unless the options name a captioner.
            seed: of the first candidate.

        Raises:
            UsageError: an option is impossible, or names something that the model does not have.
            UnusableImage: a picture file cannot be read.
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
            for candidate_seed in range(seed, seed + num_candidates):
                given_after_drawn(codes.inpainting.mask.of(candidate_seed))
            ranking = FitRanking(codes.runner, codes.template, codes.inpainting.mask)
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
        """Pieces of a text that the model and the upscaler both read."""
        limits = [self.codes.template.max_text_pieces]
        if self.super_resolution is not None:
            limits.append(self.super_resolution.template.low.max_text_pieces)
        return min(limits)

    def num_codes(self, num_candidates: int) -> int:
        """Return the number of codes to draw for a text, including those of upscaling."""
        grid = self.codes.template.grid_rows, self.codes.template.grid_columns
        num = num_candidates * self.codes.template.num_codes_per_image
        if self.super_resolution is not None:
            num += self.super_resolution.num_codes(self.num_kept(num_candidates), grid, self.options.upscale)
        return num

    def num_kept(self, num_candidates: int) -> int:
        """Return the number of candidates to keep."""
        return num_candidates if self.keep is None else self.keep

    def prompts(self, texts: Sequence[str], seeds: Sequence[int], first_index: int = 0) -> list[Prompt]:
        """Tokenize texts, and warn of unknown words.

        Args:
            texts: as the user wrote them.
            seeds: of the candidates of each text.
            first_index: index of the first text.

        Raises:
            UsageError: a text has no piece, or an unknown word with `strict`.
        """
        options = self.options
        rows = texts_of_candidates(texts, seeds, options.balance_words)
        all_texts = [text for row in rows for text in row]
        spellings = self.model.known_spellings(all_texts, options.adapter, options.strict)
        pieces = Drawer(self.model).pieces_of([spellings[text] for text in all_texts], self.max_text_pieces)
        return [
            Prompt(
                index=index,
                text=text,
                seeds=seeds,
                drawn_texts=[spellings[each] for each in row],
                pieces=[pieces[spellings[each]] for each in row],
            )
            for index, (text, row) in enumerate(zip(texts, rows, strict=True), start=first_index)
        ]
