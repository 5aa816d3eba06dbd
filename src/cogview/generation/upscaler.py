"""Upscaling of pictures: by a larger decoder of the same codes, or by super-resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.errors import UsageError
from cogview.generation.model import LoadedModel
from cogview.generation.options import UpscaleOptions
from cogview.generation.pictures import Picture, codes_of
from cogview.generation.super_resolution import FACTORS, SuperResolution
from cogview.generation.text_to_image import Progress
from cogview.generation.validation import check_pieces
from cogview.numbers import real_number, whole_number
from cogview.sequence.template import Codes

TOP_P = 0.8
"""Default top-p of super-resolution."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UpscaledImage:
    """Upscaled picture.

    Args:
        image: the picture, RGB.
        codes: that the picture was decoded from.
        seed: draws the same picture again from the same input, in any batch.
        text: as the user wrote it.
        drawn_text: what the model read, if it differs.
    """

    image: Image.Image
    codes: Int64[Tensor, "r s"] = field(repr=False)
    seed: int
    text: str
    drawn_text: str | None = None

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show."""
        return self.image._repr_png_()


class Upscaler:
    """Upscales pictures, and knows the sizes that a model draws.

    Args:
        model: with a decoder for the size, or an adapter or transformer for super-resolution.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def upscale(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        factor: int = 2,
        seed: int = 0,
        options: UpscaleOptions = UpscaleOptions(),  # noqa: B008 - frozen
        progress: Progress | None = None,
    ) -> list[UpscaledImage]:
        """Draw pictures again at two or four times the size that the model encodes.

        Without a named upscaler, the image tokenizer's decoder for that size draws the pictures' own codes, if there is
        one. An upscaler draws more codes; only then `seed` and the sampling options count.

        Args:
            images: pictures, paths or codes, of one grid; other sizes are scaled, and the middle square is cut out.
            texts: for each picture, or one for all.
            factor: 2 or 4.
            seed: of the first picture; the next has the next.
            options: how to upscale.
            progress: called with the number of codes so far, and of all, by an upscaler.

        Raises:
            UsageError: an empty text, an impossible number, no picture, unequal numbers of texts and pictures, or
                something that is refused.
            UnusableImage: a picture file cannot be read.

        Paper: section 3.1.
        """
        if whole_number("factor", factor) not in FACTORS:
            raise UsageError(f"factor must be {' or '.join(map(str, FACTORS))}, got {factor}")
        model, super_resolution = self._model, None
        if self.is_decoded(factor, options.upscaler):
            self.refuse_sampling(options)
        else:
            super_resolution = model.super_resolution(options.upscaler)
        codes = [
            torch.from_numpy(each)
            for each in self.codes_to_upscale(images, factor, options.upscaler, options.force)
        ]
        grids = {tuple(each.shape) for each in codes}
        if len(grids) > 1:
            raise UsageError(
                f"the pictures' codes have different grids, {sorted(grids)}: upscale those of one grid at a time"
            )
        texts = [texts] * len(codes) if isinstance(texts, str) else list(texts)
        if len(texts) != len(codes):
            raise UsageError(
                f"there are {len(codes)} pictures and {len(texts)} texts: give equally many, or one text"
            )
        if not all(text.strip() for text in texts):
            raise UsageError("a text is empty; say what the pictures show")
        if whole_number("seed", seed) < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        seeds = range(seed, seed + len(codes))
        spellings, high = {text: text for text in texts}, torch.stack(codes)
        if super_resolution is not None:
            adapter = model.adapter_for("super-resolution", options.upscaler)
            spellings = model.known_spellings(texts, adapter, options.strict)
            pieces = {text: model.text_tokenizer.encode(spellings[text]) for text in texts}
            check_pieces(pieces, super_resolution.template.low.max_text_pieces)
            high = super_resolution.upscale(
                high,
                [pieces[text] for text in texts],
                seeds,
                upscale_sampling_config(super_resolution, options.temperature, options.top_k, options.top_p),
                factor=factor,
                progress=progress,
            )
        size_pixels = max(codes[0].shape) * model.image_tokenizer.downsampling_factor * factor
        upscaled = model.decoder.decode_each(high, size_pixels)
        return [
            UpscaledImage(
                image=image,
                codes=each,
                seed=number,
                text=text,
                drawn_text=spellings[text] if spellings[text] != text else None,
            )
            for each, image, number, text in zip(high, upscaled, seeds, texts, strict=True)
        ]

    def is_decoded(self, factor: int, upscaler: str | None) -> bool:
        """Return whether a decoder upscales the codes that there are, without super-resolution.

        Args:
            factor: 1, 2 or 4.
            upscaler: name that the user gave; None prefers a decoder.
        """
        return factor == 1 or (upscaler is None and factor in self._model.image_tokenizer.scales)

    def codes_to_upscale(
        self, images: Picture | Sequence[Picture], factor: int, upscaler: str | None, force: bool = False
    ) -> list[Codes]:
        """Return the codes of pictures to upscale; arguments are those of `upscale`.

        Raises:
            UsageError: no picture, or without `force` one that the image tokenizer reconstructs badly or that is large
                enough already.
            UnusableImage: a picture file cannot be read.
        """
        model = self._model
        is_decoded = self.is_decoded(factor, upscaler)
        return codes_of(
            model,
            images,
            model.template if is_decoded else model.super_resolution(upscaler).template.low,
            not force,
            "force it (--force, force=True)",
            below_pixels=None if force else model.encoded_pixels * factor,
        )

    @staticmethod
    def refuse_sampling(options: UpscaleOptions) -> None:
        """Refuse sampling options where a decoder upscales.

        Raises:
            UsageError: one was given.
        """
        given = [name for name in ("temperature", "top_k", "top_p") if getattr(options, name) is not None]
        if given:
            raise UsageError(
                f"{given[0]} is for super-resolution, but the image tokenizer's decoder upscales here: name an "
                "upscaler, or leave this out"
            )

    @property
    def size_pixels(self) -> int:
        """Default longer side of pictures: twice the encoded size if there is a decoder for it."""
        model = self._model
        return model.encoded_pixels * max(scale for scale in model.image_tokenizer.scales if scale <= 2)

    def checked_size(self, size_pixels: int | None, upscale: int = 1, upscaler: str | None = None) -> int:
        """Return the longer side of the pictures to draw.

        Args:
            size_pixels: requested size; by default `self.size_pixels`, or `upscale` times the encoded size.
            upscale: 1, 2 or 4.
            upscaler: name that the user gave.

        Raises:
            UsageError: no decoder has that size, or `upscale` contradicts it.
        """
        model = self._model
        if size_pixels is not None:
            whole_number("size_pixels", size_pixels)
        upscaled = model.encoded_pixels * upscale
        if size_pixels is None:
            return self.size_pixels if upscale == 1 else upscaled
        if upscale > 1 and self.is_decoded(upscale, upscaler):
            if size_pixels != upscaled:
                raise UsageError(
                    f"size_pixels={size_pixels} and upscale={upscale}, which makes {upscaled} pixels, contradict each "
                    "other: give one of them"
                )
            return size_pixels
        rows, columns = model.template.grid_rows * upscale, model.template.grid_columns * upscale
        model.image_tokenizer.scale_for(size_pixels, rows, columns)
        return size_pixels


def upscale_sampling_config(
    upscaler: SuperResolution, temperature: float | int | None, top_k: int | None, top_p: float | int | None
) -> SamplingConfig:
    """Return the sampling settings of super-resolution, with its defaults for None.

    Raises:
        UsageError: a number is out of range.
    """
    own = upscaler.default_sampling
    return replace(
        own,
        temperature=own.temperature if temperature is None else real_number("temperature", temperature),
        top_k=top_k,
        top_p=TOP_P if top_p is None else real_number("top_p", top_p),
    )
