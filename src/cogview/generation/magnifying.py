"""Pictures at twice or four times their size: what a model with an adapter for super-resolution can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.errors import UsageError
from cogview.generation.captioning import CaptioningModel, Picture
from cogview.generation.parts import TaskModel
from cogview.generation.request import check_pieces
from cogview.generation.super_resolution import FACTORS, Magnifier
from cogview.generation.text_to_image import Progress
from cogview.image.pixels import tensor_to_images
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import Codes

TOP_P = 0.8
"""Share of the probability that a magnifier draws from by default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MagnifiedImage:
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


class MagnifyingModel(CaptioningModel):
    """A resident model that can magnify pictures, if it has an adapter, or a whole transformer, for super-resolution.

    Args:
        model: the parts.
    """

    @property
    def magnifier_names(self) -> list[str]:
        """The names of the adapters that magnify."""
        return self.names_for("super-resolution")

    def magnifier(self, name: str | None = None) -> Magnifier:
        """Return what magnifies; it shares what can be shared with the model.

        Args:
            name: of the adapter; only needed if there are several that magnify.

        Raises:
            UsageError: there is none of that name, or none at all, or several and none was named.
        """
        chosen = self._magnifying(name)
        template = chosen.template_of(SuperResolutionTemplate, self.template.vocabulary)
        return Magnifier(self.runner_of(chosen), template)

    def _magnifying(self, name: str | None) -> TaskModel:
        return self.adapter_for(
            "super-resolution",
            "magnifier",
            name,
            "this model has no adapter for super-resolution, so it cannot magnify: train one with cogview train "
            "super-resolution, and give its run as --magnifier, or to add_adapter",
        )

    def upscale(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        factor: int = 2,
        seed: int = 0,
        temperature: float | int | None = None,
        top_k: int | None = None,
        top_p: float | int | None = None,
        progress: Progress | None = None,
        magnifier: str | None = None,
        strict: bool = False,
        force: bool = False,
    ) -> list[MagnifiedImage]:
        """Draw pictures again at twice or four times the size that the model encodes.

        The image tokenizer's decoder for that size draws the pictures' own codes, if there is one and no magnifier is
        named (see `is_decoded`); a magnifier draws more codes, for which alone `seed`, `strict`, `temperature`, `top_k`
        and `top_p` are.

        Args:
            images: pictures, their paths or their codes, of one grid; other sizes are scaled to the model's and the
                middle square is cut out.
            texts: what each shows, or a single one for all.
            factor: 2 or 4.
            seed: of the first picture; the next has the next.
            temperature: below 1 prefers probable codes, above 1 levels them, 0 takes the most probable; 0 by default,
                and 1.02 for released weights.
            top_k: draw from the most probable codes only; from all if None.
            top_p: draw from the fewest codes that hold this share of the probability; 0.8 by default, 1 draws from all.
            progress: called with the numbers of codes read or drawn, and of all, by a magnifier.
            magnifier: the name of the adapter to magnify with.
            strict: refuse unknown words, rather than warn of them.
            force: take pictures that the image tokenizer hardly keeps, photographs for instance, with a warning, and
                those that have as many pixels already.

        Raises:
            UsageError: an empty text, an impossible number, no picture, other numbers of texts than of pictures, or
                something that is refused.
            UnusableImage: a file is no picture that can be read.

        Paper: section 3.1.
        """
        if factor not in FACTORS:
            raise UsageError(f"factor must be {' or '.join(map(str, FACTORS))}, got {factor}")
        is_decoded = self.is_decoded(factor, magnifier)
        chosen = None if is_decoded else self.magnifier(magnifier)
        if is_decoded:
            refuse_sampling({"temperature": temperature, "top_k": top_k, "top_p": top_p})
        codes = [torch.from_numpy(each) for each in self.codes_to_upscale(images, factor, magnifier, force)]
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
        if seed < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        seeds = range(seed, seed + len(codes))
        read, high = {text: text for text in told}, torch.stack(codes)
        if chosen is not None:
            config = self.magnifying_config(chosen, temperature, top_k, TOP_P if top_p is None else top_p)
            read = self.reading(told, self._magnifying(magnifier), strict)
            words = [read[text] for text in told]
            high = self.magnified(chosen, high, words, seeds, factor, config, progress)
        return [
            MagnifiedImage(
                image=self.decoded(
                    each, max(codes[0].shape) * self.image_tokenizer.downsampling_factor * factor
                ),
                codes=each,
                seed=number,
                text=text,
                drawn_text=read[text] if read[text] != text else None,
            )
            for each, number, text in zip(high, seeds, told, strict=True)
        ]

    def is_decoded(self, factor: int, magnifier: str | None) -> bool:
        """Return whether a decoder draws the codes that there are, and no magnifier draws more.

        Args:
            factor: 1, 2 or 4.
            magnifier: that was asked for; a model with a decoder for the size has it magnify only then.
        """
        return factor == 1 or (magnifier is None and factor in self.image_tokenizer.scales)

    def codes_to_upscale(
        self, images: Picture | Sequence[Picture], factor: int, magnifier: str | None, force: bool = False
    ) -> list[Codes]:
        """Return the codes of pictures that are to be enlarged; the arguments are those of `upscale`.

        Raises:
            UsageError: there is no picture, or without `force` one that the image tokenizer hardly keeps or that has as
                many pixels already.
            UnusableImage: a file is no picture that can be read.
        """
        is_decoded = self.is_decoded(factor, magnifier)
        template = self.template if is_decoded else self.magnifier(magnifier).template.low
        return self.codes_of(
            images,
            template,
            not force,
            "force it (--force, force=True)",
            below_pixels=None if force else self._encoded_pixels * factor,
        )

    def magnifying_config(
        self, magnifier: Magnifier, temperature: float | int | None, top_k: int | None, top_p: float | int
    ) -> SamplingConfig:
        """Return how to draw with a magnifier: at its own temperature, unless another is asked for.

        Raises:
            UsageError: an impossible number.
        """
        own = magnifier.default_sampling
        return replace(
            own,
            temperature=own.temperature if temperature is None else float(temperature),
            top_k=top_k,
            top_p=float(top_p),
        )

    def magnified(
        self,
        magnifier: Magnifier,
        codes: Int64[Tensor, "b r s"],
        texts: Sequence[str],
        seeds: Sequence[int],
        factor: int,
        config: SamplingConfig,
        progress: Progress | None = None,
    ) -> Int64[Tensor, "b R S"]:
        """Return the codes of magnified pictures, whose texts are words.

        Raises:
            UsageError: a text is empty, or holds nothing that the model reads, or the factor is impossible.
        """
        pieces = {text: self.text_tokenizer.encode(text) for text in texts}
        check_pieces(pieces, magnifier.template.low.max_text_pieces)
        return magnifier.magnify(
            codes, [pieces[text] for text in texts], seeds, config, factor=factor, progress=progress
        )

    def decoded(self, codes: Int64[Tensor, "r s"], size_pixels: int | None = None) -> Image.Image:
        """Return the picture of some codes, decoded by itself: convolutions round differently in other batches.

        Args:
            codes: of any grid.
            size_pixels: of its longer side; as large as it was encoded, by the tokenizer's own decoder, by default.

        Raises:
            UsageError: no decoder draws that size.
        """
        return tensor_to_images(self.image_tokenizer.decode(codes[None].to(self.device), size_pixels))[0]

    @property
    def size_pixels(self) -> int:
        """Return the longer side of the pictures that `generate` draws by default.

        It is twice that of the encoded picture if there is a decoder for it, else the same.
        """
        return self._encoded_pixels * max(scale for scale in self.image_tokenizer.scales if scale <= 2)

    @property
    def _encoded_pixels(self) -> int:
        template = self.template
        return max(template.grid_rows, template.grid_columns) * self.image_tokenizer.downsampling_factor

    def checked_size(self, size_pixels: int | None, upscale: int = 1, magnifier: str | None = None) -> int:
        """Return the longer side of pictures that are to be drawn.

        Args:
            size_pixels: what is asked for; by default the model's own `size_pixels`, or so many times what it encodes
                as `upscale` says.
            upscale: 1, 2 or 4.
            magnifier: that was asked for.

        Raises:
            UsageError: no decoder draws that size, or it is another than `upscale` says.
        """
        upscaled = self._encoded_pixels * upscale
        if size_pixels is None:
            return self.size_pixels if upscale == 1 else upscaled
        if upscale > 1 and self.is_decoded(upscale, magnifier):
            if size_pixels != upscaled:
                raise UsageError(
                    f"size {size_pixels} and upscale {upscale}, which makes {upscaled} pixels, contradict each other: "
                    "give one of them"
                )
            return size_pixels
        rows, columns = self.template.grid_rows * upscale, self.template.grid_columns * upscale
        self.image_tokenizer.scale_for(size_pixels, rows, columns)
        return size_pixels


def refuse_sampling(options: Mapping[str, Any]) -> None:
    """Refuse what only a magnifier could follow, where a decoder enlarges.

    Args:
        options: by name; None where one was not given.

    Raises:
        UsageError: one was given.
    """
    given = [name.replace("_", "-") for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} is for a magnifier, and the image tokenizer's decoder enlarges here: name a magnifier, or "
            f"leave {given[0]} out"
        )


def check_factor(factor: int) -> None:
    """Refuse what no picture can be magnified by.

    Raises:
        UsageError: neither 1, which leaves pictures as they are, nor a factor of super-resolution.
    """
    if factor not in (1, *FACTORS):
        raise UsageError(f"upscale must be 1, 2 or 4, got {factor}")
