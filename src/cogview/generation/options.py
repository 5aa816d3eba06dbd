"""How pictures are drawn, captioned and upscaled: one frozen object each, from the user's call to the engine."""

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from torch import Tensor

from cogview.decoding.config import Sampler
from cogview.errors import UsageError
from cogview.generation.inpainting import Mask
from cogview.generation.picture_events import GeneratedImage
from cogview.generation.pictures import Picture
from cogview.generation.super_resolution import FACTORS
from cogview.numbers import real_number, whole_number

RankBy = Literal["caption", "fit"]


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """How codes are drawn.

    Args:
        temperature: below 1 prefers probable codes, above 1 levels them; 0 always takes the most probable, so that all
            candidates are one picture.
        top_k: draw from the most probable codes only; from all if None.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, what the text says is followed more closely than it was learnt, with twice the rows to
            compute; for models that were trained with some texts dropped. The model's own by default.
        sampler: how random numbers become codes; "inversion" draws what was drawn before there was a choice.
        adapter: the name of the one to draw with (see `Pipeline.adapters`); none by default.
        adapter_strength: how many times what it learnt to add it adds; below 1 a style is weaker, and things are more
            as the model draws them without.
        strict: refuse words that the model has never seen, rather than warn of them.
        image: draw a part of this picture anew, one that was generated among others; its path, or its codes.
        mask: which part: "upper", "lower", "left" or "right", a share of the codes such as 0.3, elsewhere for each
            seed, or a picture that is white there.
    """

    temperature: float | int = 1.0
    top_k: int | None = None
    top_p: float | int | None = None
    guidance: float | int | None = None
    sampler: Sampler = "gumbel"
    adapter: str | None = None
    adapter_strength: float | int = 1.0
    strict: bool = False
    image: Picture | GeneratedImage | None = None
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if (self.image is None) != (self.mask is None):
            raise UsageError(
                "an image needs a mask that says what of it is to be drawn anew, and a mask an image: give both"
            )
        if self.adapter is not None and not isinstance(self.adapter, str):
            raise UsageError(f"adapter must be the name of one, got {self.adapter!r}")
        real_number("adapter_strength", self.adapter_strength)
        if self.adapter is None and self.adapter_strength != 1:
            raise UsageError(
                f"adapter_strength is {self.adapter_strength:g}, but no adapter is drawn with: name one (--adapter)"
            )


@dataclass(frozen=True, kw_only=True)
class PictureOptions(CodeOptions):
    """How pictures are drawn, ranked and enlarged.

    Args:
        captioner: the name of the adapter to rank with, if there are several; if given, all are ranked by default.
        upscale: 2 or 4 draws those that are kept at so many times the size that is encoded: by the image tokenizer's
            decoder, if there is one for it and no upscaler is named; else an adapter for super-resolution draws more
            codes, with the same `top_k` and `top_p`.
        upscaler: the name of the adapter to upscale with.
        size_pixels: of the pictures' longer side; of the sizes that the image tokenizer's decoders draw, by default the
            model's own, `Pipeline.size_pixels`, or that times `upscale`.
        balance_words: give each word for people a gender and a skin tone, in turn from seed to seed; see
            `cogview.text.word_replacing`.
        keeps_pixels: give back exactly the pixels of `image` outside of `mask`.
        rank_by: what decides which candidates are kept: "caption" is CapLoss, "fit" how probable the codes of `image`
            are that stand behind what was drawn.
    """

    captioner: str | None = None
    upscale: int = 1
    upscaler: str | None = None
    size_pixels: int | None = None
    balance_words: bool = False
    keeps_pixels: bool = False
    rank_by: RankBy = "caption"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank_by not in get_args(RankBy):
            raise UsageError(f"rank_by must be caption or fit, got {self.rank_by!r}")
        if whole_number("upscale", self.upscale) not in (1, *FACTORS):
            raise UsageError(f"upscale must be 1, 2 or 4, got {self.upscale}")
        if self.upscale == 1 and self.upscaler is not None:
            raise UsageError("an upscaler has nothing to upscale: add --upscale 2, or 4 (upscale=2)")
        if self.image is None and (self.keeps_pixels or self.rank_by == "fit"):
            raise UsageError(
                "keeping pixels and ranking by fit are for an image of which a part is drawn anew: give one"
            )
        if self.keeps_pixels and isinstance(self.image, Tensor):
            raise UsageError("codes have no pixels to keep: give the picture itself")


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """How captions are written.

    Args:
        temperature: with 0, the best texts of a beam search are given; over 0, texts are drawn, and the beams are
            without effect.
        top_k: draw from the most probable pieces only; from all if None.
        top_p: draw from the fewest pieces that hold this share of the probability.
        max_pieces: of a text; as many as the model has room for by default.
        length_penalty: of the beam search: 0 prefers short texts, 1 ranks by the mean log p of a piece.
        captioner: the name of the adapter, if there are several.
        language: "zh" or "en": pieces with letters of other scripts are not written; as the model likes by default.
        strict: refuse a picture that the image tokenizer hardly keeps, rather than warn of it.
    """

    temperature: float | int = 0.0
    top_k: int | None = None
    top_p: float | int = 1.0
    max_pieces: int | None = None
    length_penalty: float | int = 1.0
    captioner: str | None = None
    language: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How pictures are upscaled; all but `upscaler` and `force` are for an upscaler alone.

    Args:
        temperature: below 1 prefers probable codes, above 1 levels them, 0 takes the most probable; 0 by default, and
            1.02 for released weights.
        top_k: draw from the most probable codes only; from all if None.
        top_p: draw from the fewest codes that hold this share of the probability; 0.8 by default, 1 draws from all.
        upscaler: the name of the adapter to upscale with.
        strict: refuse unknown words, rather than warn of them.
        force: take pictures that the image tokenizer hardly keeps, photographs for instance, with a warning, and those
            that have as many pixels already.
    """

    temperature: float | int | None = None
    top_k: int | None = None
    top_p: float | int | None = None
    upscaler: str | None = None
    strict: bool = False
    force: bool = False


class CodeArguments(TypedDict, total=False):
    """The fields of `CodeOptions` as arguments."""

    temperature: float | int
    top_k: int | None
    top_p: float | int | None
    guidance: float | int | None
    sampler: Sampler
    adapter: str | None
    adapter_strength: float | int
    strict: bool
    image: Picture | GeneratedImage | None
    mask: Mask | None


class PictureArguments(CodeArguments, total=False):
    """The fields of `PictureOptions` as arguments."""

    captioner: str | None
    upscale: int
    upscaler: str | None
    size_pixels: int | None
    balance_words: bool
    keeps_pixels: bool
    rank_by: RankBy


class CaptionArguments(TypedDict, total=False):
    """The fields of `CaptionOptions` as arguments."""

    temperature: float | int
    top_k: int | None
    top_p: float | int
    max_pieces: int | None
    length_penalty: float | int
    captioner: str | None
    language: str | None
    strict: bool


class UpscaleArguments(TypedDict, total=False):
    """The fields of `UpscaleOptions` as arguments."""

    temperature: float | int | None
    top_k: int | None
    top_p: float | int | None
    upscaler: str | None
    strict: bool
    force: bool
