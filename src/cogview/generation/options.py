"""Options of drawing, captioning and upscaling."""

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
    """How to draw codes.

    Args:
        temperature: below 1 prefers probable codes, above 1 flattens the distribution; 0 is greedy, so that all
            candidates are one picture.
        top_k: draw from the most probable codes only; from all if None.
        top_p: draw from the fewest codes that hold this share of the probability; the model's own by default.
        guidance: above 1 follows the text more closely than trained, at twice the computation; for models trained with
            dropped texts. The model's own by default.
        sampler: how random numbers become codes; "inversion" reproduces pictures from before there was a choice.
        adapter: name of the adapter to draw with (see `Pipeline.adapters`); none by default.
        adapter_strength: factor of the adapter's weights; below 1 a style is weaker.
        strict: refuse words that the model has never seen, instead of warning.
        image: picture to inpaint: a generated one, a picture, a path, or codes.
        mask: part to draw anew: "upper", "lower", "left" or "right", a share of the codes such as 0.3 (other ones for
            each seed), or a picture that is white there.
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
                "an image needs a mask of the part to draw anew, and a mask needs an image: give both"
            )
        if self.adapter is not None and not isinstance(self.adapter, str):
            raise UsageError(f"adapter must be the name of an adapter, got {self.adapter!r}")
        real_number("adapter_strength", self.adapter_strength)
        if self.adapter is None and self.adapter_strength != 1:
            raise UsageError(
                f"adapter_strength is {self.adapter_strength:g}, but there is no adapter: name one (--adapter)"
            )


@dataclass(frozen=True, kw_only=True)
class PictureOptions(CodeOptions):
    """How to draw, rank and upscale pictures.

    Args:
        captioner: name of the adapter to rank with, if there are several; if given, candidates are ranked by default.
        upscale: 2 or 4 upscales the pictures that are kept: by the image tokenizer's decoder, if it has one for the
            size and no upscaler is named; else by super-resolution, with the same `top_k` and `top_p`.
        upscaler: name of the adapter to upscale with.
        size_pixels: longer side of the pictures, a size that the image tokenizer decodes; by default
            `Pipeline.size_pixels`, or `upscale` times the encoded size.
        balance_words: give each word for people a gender and a skin tone, in turn from seed to seed; see
            `cogview.text.word_replacing`.
        keeps_pixels: restore the exact pixels of `image` outside of `mask`.
        rank_by: "caption" is CapLoss, "fit" the loss of the codes of `image` after the drawn ones.
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
            raise UsageError("keeping pixels and ranking by fit are for an image with a mask: give both")
        if self.keeps_pixels and isinstance(self.image, Tensor):
            raise UsageError("codes have no pixels to keep: give the picture itself")


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """How to write captions.

    Args:
        temperature: 0 is beam search; above 0, captions are sampled, without beams.
        top_k: draw from the most probable pieces only; from all if None.
        top_p: draw from the fewest pieces that hold this share of the probability.
        max_pieces: maximum of a caption; by default what the model has room for.
        length_penalty: of the beam search: 0 prefers short texts, 1 ranks by the mean log p of a piece.
        captioner: name of the adapter, if there are several.
        language: "zh" or "en" excludes pieces with letters of other scripts; any language by default.
        strict: refuse pictures that the image tokenizer reconstructs badly, instead of warning.
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
    """How to upscale pictures; all but `upscaler` and `force` are for super-resolution alone.

    Args:
        temperature: below 1 prefers probable codes, above 1 flattens the distribution, 0 is greedy; 0 by default, and
            1.02 for released weights.
        top_k: draw from the most probable codes only; from all if None.
        top_p: draw from the fewest codes that hold this share of the probability; 0.8 by default.
        upscaler: name of the adapter to upscale with.
        strict: refuse unknown words, instead of warning.
        force: accept pictures that the image tokenizer reconstructs badly, such as photographs, with a warning, and
            pictures that are large enough already.
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
