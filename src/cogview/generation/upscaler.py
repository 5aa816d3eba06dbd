"""Pictures at twice or four times their size: by a decoder of the codes that there are, or by an upscaler of more."""

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
from cogview.generation.request import check_pieces
from cogview.generation.super_resolution import FACTORS, SuperResolution
from cogview.generation.text_to_image import Progress
from cogview.numbers import real_number, whole_number
from cogview.sequence.template import Codes

TOP_P = 0.8
"""Share of the probability that an upscaler draws from by default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UpscaledImage:
    """A picture that was drawn again, larger.

    Args:
        image: the picture, RGB.
        codes: what it was decoded from.
        seed: draws the same picture again from the same one, alone or in any company.
        text: what the picture was said to show.
        drawn_text: what was read for the text, if that is another; None elsewhere.
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
    """Upscales pictures, and knows in which sizes a model draws.

    Args:
        model: with a decoder for the size, or an adapter, or a whole transformer, for super-resolution.
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
        """Draw pictures again at twice or four times the size that the model encodes.

        The image tokenizer's decoder for that size draws the pictures' own codes, if there is one and no upscaler is
        named; an upscaler draws more codes, for which alone `seed` and the options for sampling are.

        Args:
            images: pictures, their paths or their codes, of one grid; other sizes are scaled to the model's and the
                middle square is cut out.
            texts: what each shows, or a single one for all.
            factor: 2 or 4.
            seed: of the first picture; the next has the next.
            options: how.
            progress: called with the numbers of codes read or drawn, and of all, by an upscaler.

        Raises:
            UsageError: an empty text, an impossible number, no picture, other numbers of texts than of pictures, or
                something that is refused.
            UnusableImage: a file is no picture that can be read.

        Paper: section 3.1.
        """
        if whole_number("factor", factor) not in FACTORS:
            raise UsageError(f"factor must be {' or '.join(map(str, FACTORS))}, got {factor}")
        model, chosen = self._model, None
        if self.is_decoded(factor, options.upscaler):
            self.refuse_sampling(options)
        else:
            chosen = model.super_resolution(options.upscaler)
        codes = [
            torch.from_numpy(each)
            for each in self.codes_to_upscale(images, factor, options.upscaler, options.force)
        ]
        grids = {tuple(each.shape) for each in codes}
        if len(grids) > 1:
            raise UsageError(
                f"the pictures have codes of unlike grids, {sorted(grids)}: give those of one at a time"
            )
        told = [texts] * len(codes) if isinstance(texts, str) else list(texts)
        if len(told) != len(codes):
            raise UsageError(
                f"there are {len(codes)} pictures and {len(told)} texts: give as many, or a single text"
            )
        if not all(text.strip() for text in told):
            raise UsageError("a text is empty; say what the pictures show")
        if whole_number("seed", seed) < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        seeds = range(seed, seed + len(codes))
        read, high = {text: text for text in told}, torch.stack(codes)
        if chosen is not None:
            adapter = model.adapter_for("super-resolution", options.upscaler)
            read = model.reading(told, adapter, options.strict)
            pieces = {text: model.text_tokenizer.encode(read[text]) for text in told}
            check_pieces(pieces, chosen.template.low.max_text_pieces)
            high = chosen.upscale(
                high,
                [pieces[text] for text in told],
                seeds,
                upscale_sampling_config(chosen, options.temperature, options.top_k, options.top_p),
                factor=factor,
                progress=progress,
            )
        size_pixels = max(codes[0].shape) * model.image_tokenizer.downsampling_factor * factor
        drawn = model.decoder.decode_each(high, size_pixels)
        return [
            UpscaledImage(
                image=image,
                codes=each,
                seed=number,
                text=text,
                drawn_text=read[text] if read[text] != text else None,
            )
            for each, image, number, text in zip(high, drawn, seeds, told, strict=True)
        ]

    def is_decoded(self, factor: int, upscaler: str | None) -> bool:
        """Return whether a decoder draws the codes that there are, and no upscaler draws more.

        Args:
            factor: 1, 2 or 4.
            upscaler: that was asked for; a model with a decoder for the size has it upscale only then.
        """
        return factor == 1 or (upscaler is None and factor in self._model.image_tokenizer.scales)

    def codes_to_upscale(
        self, images: Picture | Sequence[Picture], factor: int, upscaler: str | None, force: bool = False
    ) -> list[Codes]:
        """Return the codes of pictures that are to be upscaled; the arguments are those of `upscale`.

        Raises:
            UsageError: there is no picture, or without `force` one that the image tokenizer hardly keeps or that has as
                many pixels already.
            UnusableImage: a file is no picture that can be read.
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
        """Refuse what only an upscaler could follow, where a decoder enlarges.

        Raises:
            UsageError: it was given.
        """
        given = [name for name in ("temperature", "top_k", "top_p") if getattr(options, name) is not None]
        if given:
            name = given[0].replace("_", "-")
            raise UsageError(
                f"{name} is for an upscaler, and the image tokenizer's decoder enlarges here: name an upscaler, or "
                f"leave {name} out"
            )

    @property
    def size_pixels(self) -> int:
        """The longer side of the pictures that are drawn by default.

        It is twice that of the encoded picture if there is a decoder for it, else the same.
        """
        model = self._model
        return model.encoded_pixels * max(scale for scale in model.image_tokenizer.scales if scale <= 2)

    def checked_size(self, size_pixels: int | None, upscale: int = 1, upscaler: str | None = None) -> int:
        """Return the longer side of pictures that are to be drawn.

        Args:
            size_pixels: what is asked for; by default the model's own `size_pixels`, or so many times what it encodes
                as `upscale` says.
            upscale: 1, 2 or 4.
            upscaler: that was asked for.

        Raises:
            UsageError: no decoder draws that size, or it is another than `upscale` says.
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
                    f"size {size_pixels} and upscale {upscale}, which makes {upscaled} pixels, contradict each other: "
                    "give one of them"
                )
            return size_pixels
        rows, columns = model.template.grid_rows * upscale, model.template.grid_columns * upscale
        model.image_tokenizer.scale_for(size_pixels, rows, columns)
        return size_pixels


def upscale_sampling_config(
    upscaler: SuperResolution, temperature: float | int | None, top_k: int | None, top_p: float | int | None
) -> SamplingConfig:
    """Return how to draw with an upscaler: at its own temperature and from 80 %, unless told otherwise.

    Raises:
        UsageError: an impossible number.
    """
    own = upscaler.default_sampling
    return replace(
        own,
        temperature=own.temperature if temperature is None else real_number("temperature", temperature),
        top_k=top_k,
        top_p=TOP_P if top_p is None else real_number("top_p", top_p),
    )
