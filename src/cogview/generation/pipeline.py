"""The pipeline: what users hold, from words to pictures in one call."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack, overload

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from PIL import Image
from torch import Tensor

from cogview.errors import UsageError
from cogview.generation.captioning import Picture, best_of
from cogview.generation.given import drawn_places, fit_losses, with_given_pixels
from cogview.generation.magnifying import MagnifyingModel, check_factor
from cogview.generation.one_colour import is_one_coloured
from cogview.generation.options import CodeArguments, CodeOptions, PictureArguments, PictureOptions
from cogview.generation.placement import resolve_device, resolve_dtype
from cogview.generation.pretrained import find_model_folder, load_pretrained
from cogview.generation.request import check_pieces, check_request, texts_of_candidates
from cogview.generation.text_to_image import Progress, draw, picture_request
from cogview.image.pixels import read_image


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedImage:
    """One picture that was drawn.

    Args:
        image: the picture, RGB.
        codes: what it was decoded from.
        seed: draws the same picture again, alone or in any company.
        text: what it was drawn for.
        caption_loss: how badly the text fits the picture, in nats per piece; None if the pictures were not ranked.
        fit_loss: how badly the given codes behind what was drawn fit it, in nats per code; None if the pictures were
            not ranked by it.
        drawn_text: what was drawn for the text, where `balance_words` replaced words in it or the model reads words in
            another spelling; None elsewhere.
    """

    image: Image.Image
    codes: Int64[Tensor, "r s"] = field(repr=False)
    seed: int
    text: str
    caption_loss: float | None = None
    fit_loss: float | None = None
    drawn_text: str | None = None

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.image._repr_png_()


class Pipeline(MagnifyingModel):
    """A model that draws pictures for texts.

    The weights are prepared for drawing once, by the first call of `generate`: after changing them, make a new one.

    Args:
        model: the parts.
    """

    @overload
    def generate(
        self,
        text: str,
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        *,
        progress: Progress | None = ...,
        **options: Unpack[PictureArguments],
    ) -> list[GeneratedImage]: ...

    @overload
    def generate(
        self,
        text: Sequence[str],
        num_candidates: int = ...,
        keep: int | None = ...,
        seed: int = ...,
        *,
        progress: Progress | None = ...,
        **options: Unpack[PictureArguments],
    ) -> list[list[GeneratedImage]]: ...

    def generate(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        keep: int | None = None,
        seed: int = 0,
        *,
        progress: Progress | None = None,
        **options: Unpack[PictureArguments],
    ) -> list[GeneratedImage] | list[list[GeneratedImage]]:
        """Draw pictures for one text or for several.

        Candidate i has the seed `seed + i`, for each text alike; with `num_candidates=1` that seed draws the same
        picture again.

        Args:
            text: a text, or several; one longer than the model reads loses its end, with a warning.
            num_candidates: pictures of each text.
            keep: how many of them to return, the best ones by CapLoss; all, without ranking them, if None. Needs a
                captioner, unless it is all of them.
            seed: of the first candidate; not negative.
            progress: called with the numbers of codes drawn and to be drawn, those of magnifying among them.
            options: those of `PictureOptions`: temperature, top_k, top_p, guidance, sampler, adapter, adapter_strength,
                strict, image, mask, captioner, upscale, magnifier, size_pixels, balance_words, keeps_pixels and
                rank_by.

        Returns:
            The candidates of the text in the order of their seeds, or of CapLoss, the best first, if they were ranked;
            for several texts, a list of such lists.

        Raises:
            UsageError: an empty text, an impossible number, or an unknown word that is refused.
        """
        is_single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        drawn = self._pictures(texts, num_candidates, keep, seed, PictureOptions(**options), progress)
        _warn_of_one_colour(drawn, self.sampling(top_p=options.get("top_p")).top_p)
        return drawn[0] if is_single else drawn

    def _pictures(
        self,
        texts: Sequence[str],
        num_candidates: int,
        keep: int | None,
        seed: int,
        options: PictureOptions,
        progress: Progress | None,
    ) -> list[list[GeneratedImage]]:
        """Draw, rank and enlarge."""
        captioner, upscale, magnifier = options.captioner, options.upscale, options.magnifier
        by_fit = options.rank_by == "fit"
        is_ranked = by_fit or captioner is not None or (keep is not None and bool(self.captioner_names))
        check_request(texts, num_candidates, keep, seed, is_ranked)
        check_factor(upscale)
        # What is missing is found out before the codes are drawn, not after.
        ranker = self.captioner(captioner) if is_ranked and not by_fit else None
        enlarger = None if self.is_decoded(upscale, magnifier) else self.magnifier(magnifier)
        size = self.checked_size(options.size_pixels, upscale, magnifier)
        num_kept = len(texts) * (num_candidates if keep is None else keep)
        num_drawn = len(texts) * num_candidates * self.template.num_codes_per_image
        grid = self.template.grid_rows, self.template.grid_columns
        num_all = num_drawn + (enlarger.num_codes(num_kept, grid, upscale) if enlarger else 0)
        asked = texts_of_candidates(texts, num_candidates, seed, options.balance_words)
        read = self.reading(itertools.chain(*asked), options.adapter, options.strict)
        words = [[read[text] for text in row] for row in asked]
        codes = self._draw(words, [seed] * len(texts), options, _counted(progress, 0, num_all))
        is_drawn = [self._drawn_places(options, seed + number) for number in range(num_candidates)]
        # What a candidate was drawn for counts, so that no way of balancing words is preferred to another.
        kept = [
            best_of(each, self._fit(options, row, each, is_drawn), keep)
            if by_fit
            else self.best(ranker, row, each, keep)
            for row, each in zip(words, codes, strict=True)
        ]
        chosen = [(index, number, loss) for index, row in enumerate(kept) for number, loss in row]
        shown = torch.stack([codes[index, number] for index, number, _ in chosen])
        if enlarger is not None:
            config = self.magnifying_config(
                enlarger,
                0.0 if options.temperature == 0 else None,
                options.top_k,
                self.top_p if options.top_p is None else options.top_p,
            )
            shown = self.magnified(
                enlarger,
                shown,
                [words[index][number] for index, number, _ in chosen],
                [seed + number for _, number, _ in chosen],
                upscale,
                config,
                _counted(progress, num_drawn, num_all),
            )
        drawn: list[list[GeneratedImage]] = [[] for _ in texts]
        for (index, number, loss), each in zip(chosen, shown, strict=True):
            said = words[index][number]
            image, places = self.decoded(each, size), is_drawn[number]
            if options.keeps_pixels and places is not None and options.mask is not None:
                image = with_given_pixels(image, _as_image(options.image), options.mask, places)
            drawn[index].append(
                GeneratedImage(
                    image=image,
                    codes=each,
                    seed=seed + number,
                    text=texts[index],
                    caption_loss=None if by_fit else loss,
                    fit_loss=loss if by_fit else None,
                    drawn_text=said if said != texts[index] else None,
                )
            )
        return drawn

    def generate_codes(
        self,
        text: str | Sequence[str],
        num_candidates: int = 4,
        seed: int | Sequence[int] = 0,
        *,
        progress: Progress | None = None,
        **options: Unpack[CodeArguments],
    ) -> Int64[Tensor, "n b r s"]:
        """Return the codes of the pictures that `generate` would draw, [texts, candidates, rows, columns].

        No image tokenizer is needed. The arguments are those of `generate`, with the options of `CodeOptions`; words
        are not replaced, and `seed` may also be that of the first candidate of each text by itself.

        Raises:
            UsageError: an empty text or an impossible number.
        """
        texts = [text] if isinstance(text, str) else list(text)
        seeds = [seed] * len(texts) if isinstance(seed, int) else list(seed)
        check_request(texts, num_candidates, None, min(seeds, default=0))
        if len(seeds) != len(texts):
            raise UsageError(
                f"there are {len(texts)} texts and {len(seeds)} seeds: give one for all, or one for each"
            )
        how = CodeOptions(**options)
        read = self.reading(texts, how.adapter, how.strict)
        words = texts_of_candidates([read[text] for text in texts], num_candidates, min(seeds))
        return self._draw(words, seeds, how, progress)

    def _draw(
        self,
        rows: Sequence[Sequence[str]],
        first_seeds: Sequence[int],
        options: CodeOptions,
        progress: Progress | None,
    ) -> Int64[Tensor, "n b r s"]:
        """Draw the codes of a checked request's rows of candidates."""
        config = self.sampling(
            options.temperature, options.top_k, options.top_p, options.guidance, options.sampler
        )
        if config.guidance != 1 and self.guidance == 1:
            warnings.warn(
                f"guidance {config.guidance:g} compares with pictures drawn without a text, which this model does not "
                "say it was trained for (--dropped-texts); if they come out spoilt, leave it out",
                stacklevel=4,
            )
        pieces = {text: self.text_tokenizer.encode(text) for row in rows for text in row}
        runner, template = self.drawer(options.adapter, options.adapter_strength)
        check_pieces(pieces, template.max_text_pieces)
        codes_of_image = None
        if options.image is not None:
            (codes_of_image,) = self.codes_of(options.image, template, options.strict)
            codes_of_image = template.checked_codes(codes_of_image)

        def given(seed: int) -> Int64[np.ndarray, "n"] | None:
            places = self._drawn_places(options, seed)
            if codes_of_image is None or places is None:
                return None
            return np.where(places.ravel(), -1, codes_of_image)

        requests = [
            picture_request(runner, template, pieces[text], seed, config, given(seed))
            for row, first in zip(rows, first_seeds, strict=True)
            for seed, text in enumerate(row, first)
        ]
        codes = draw(runner, requests, progress)
        return codes.view(len(rows), len(rows[0]), template.grid_rows, template.grid_columns)

    def _drawn_places(self, options: CodeOptions, seed: int) -> Bool[np.ndarray, "r s"] | None:
        """Return which codes a candidate draws; None if all."""
        if options.mask is None:
            return None
        grid = self.template.grid_rows, self.template.grid_columns
        factor = 1 if isinstance(options.image, Tensor) else self.image_tokenizer.downsampling_factor
        return drawn_places(options.mask, seed, grid, factor)

    def _fit(
        self,
        options: CodeOptions,
        texts: Sequence[str],
        codes: Int64[Tensor, "b r s"],
        is_drawn: Sequence[Bool[np.ndarray, "r s"] | None],
    ) -> Float64[np.ndarray, "b"]:
        """Return how badly the given codes behind what each candidate drew fit it."""
        runner, template = self.drawer(options.adapter, options.adapter_strength)
        places = [each for each in is_drawn if each is not None]
        pieces = [self.text_tokenizer.encode(text) for text in texts]
        return fit_losses(runner, template, pieces, list(codes.numpy()), places)


def _as_image(picture: Picture | None) -> Image.Image:
    assert isinstance(picture, Image.Image | str | Path), "codes are refused"
    return picture if isinstance(picture, Image.Image) else read_image(picture)


def _warn_of_one_colour(drawn: Sequence[Sequence[GeneratedImage]], top_p: float) -> None:
    """Say of which texts all pictures are all but one colour, and what helps."""
    texts = [row[0].text for row in drawn if all(is_one_coloured(picture.image) for picture in row)]
    if texts:
        more = f"; there are {len(texts):,} such texts" if len(texts) > 1 else ""
        cure = (
            f"draw with top-p 1 (--top-p 1), not {top_p:g}, or train longer" if top_p < 1 else "train longer"
        )
        warnings.warn(
            f"all that was drawn for {texts[0]!r} is of one colour: if that is not asked for, {cure}{more}",
            stacklevel=3,
        )


def _counted(progress: Progress | None, num_before: int, num_all: int) -> Progress | None:
    """Return what reports a part of the work as a part of all of it."""
    if progress is None:
        return None
    return lambda num_done, _: progress(num_before + num_done, num_all)


def load(
    path_or_hub_id: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """Load a model.

    Args:
        path_or_hub_id: a model folder, the folder of a training run, `OWNER/NAME` on the Hugging Face hub (the only
            case in which the network is used), or None for the bundled model.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one by default.
        dtype: of the transformer's weights: float32, bfloat16 or float16, as torch's dtype or as a name. By default
            float32 on CPU and bfloat16 on a GPU that computes it. A model that is to be saved again should be loaded
            as float32, which holds every stored dtype exactly.

    Raises:
        UsageError: the device or the dtype is unknown or not to be had here.
        CogViewError: there is no such model, it is incomplete, of another version, or its parts do not belong
            together.
    """
    place = resolve_device(device)
    model = load_pretrained(find_model_folder(path_or_hub_id), place, resolve_dtype(dtype, place))
    return Pipeline(model)
