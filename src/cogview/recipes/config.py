"""What a recipe returns: the whole of a run, as frozen dataclasses that the command line can override."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cogview.data.config import MaskingConfig, check_share
from cogview.errors import UsageError
from cogview.image.config import LEAST_PATCHES, AutoencoderConfig, VQGANConfig, VQVAEConfig
from cogview.image.decoder_config import DecoderConfig
from cogview.sequence.config import CaptionPositions
from cogview.text.config import TextCase, TextTokenizerConfig
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.transformer.config import AdapterConfig, InitialisationConfig, TransformerConfig
from cogview.world.config import ClothingDataConfig, DefaultDataConfig, PeopleDataConfig, StyleDataConfig


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerRecipe:
    """Stage 1: pixels to codes.

    Args:
        vqvae: shape and losses of the image tokenizer.
        size_pixels: side of the square that training pictures are resized and cropped to.
        training: how it is trained.

    Raises:
        UsageError: the square is not made of whole codes.

    Paper: 2.1.
    """

    vqvae: VQVAEConfig
    size_pixels: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        _check_size(self.size_pixels, self.vqvae)
        _check_precision(self.training)


@dataclass(frozen=True, kw_only=True)
class VQGANRecipe:
    """Stage 1 for one domain: pixels to codes, with an adversary.

    Args:
        vqgan: shape and losses of the image tokenizer and of its discriminator.
        size_pixels: side of the square that training pictures are resized and cropped to.
        training: how both are trained.

    Raises:
        UsageError: the square is not made of whole codes, or is too small for the discriminator.

    Paper: 3.4.
    """

    vqgan: VQGANConfig
    size_pixels: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        _check_size(self.size_pixels, self.vqgan)
        _check_precision(self.training)
        layers = self.vqgan.discriminator_layers
        is_heard = self.vqgan.discriminator_start_step < self.training.num_steps
        if is_heard and self.size_pixels < LEAST_PATCHES * 2**layers:
            raise UsageError(
                f"vqgan.discriminator_layers {layers} leave nothing of {self.size_pixels} pixels: take pictures of "
                f"{LEAST_PATCHES * 2**layers} pixels or more, or fewer layers"
            )
        if self.training.compile:
            raise UsageError(
                "training.compile: a VQGAN's adaptive weight is made of gradients, which cannot be compiled: no compile"
            )


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """Codes of an image tokenizer that stands to sharper and larger pixels.

    Args:
        decoder: shape and losses of the decoder and of its discriminator.
        size_pixels: side of the square at which training pictures are encoded; each scale is so many times as large.
        training: how it is trained.

    Raises:
        UsageError: what is judged is too large, or something is asked for that is for transformers.

    Paper: 2.1.
    """

    decoder: DecoderConfig
    size_pixels: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        _check_precision(self.training)
        least = LEAST_PATCHES * 2**self.decoder.discriminator_layers
        if self.size_pixels < 1:
            raise UsageError(f"size_pixels must be at least 1, got {self.size_pixels}")
        is_heard = self.decoder.discriminator_start_step < self.training.num_steps
        if is_heard and self.size_pixels * min(self.decoder.scales) < least:
            raise UsageError(
                f"decoder.discriminator_layers {self.decoder.discriminator_layers} leave nothing of "
                f"{self.size_pixels * min(self.decoder.scales)} pixels: take larger pictures, or fewer layers"
            )
        if self.training.compile:
            raise UsageError(
                "training.compile: the adaptive weight is made of gradients, which cannot be compiled"
            )


def _check_size(size_pixels: int, config: AutoencoderConfig) -> None:
    """Refuse a square that is not made of whole codes."""
    factor = config.downsampling_factor
    if size_pixels < factor or size_pixels % factor:
        raise UsageError(
            f"size_pixels must be a multiple of {factor}, the pixels that one code stands for, got {size_pixels}"
        )


def _check_precision(training: TrainingConfig) -> None:
    """Refuse what is for transformers."""
    if training.precision.endswith("_o2"):
        raise UsageError(
            f"training.precision {training.precision} is for transformers: an image tokenizer's codebook is float32; "
            "take bfloat16"
        )


@dataclass(frozen=True, kw_only=True)
class TokenShape:
    """The tokens that a text-to-image recipe is made for.

    Training takes all four from its tokens; `cogview plan` counts with these before there are any.

    Args:
        num_image_codes: of the image tokenizer.
        num_text_pieces: of the text tokenizer.
        grid_rows: rows of codes of a picture.
        grid_columns: columns.
    """

    num_image_codes: int = 8_192
    num_text_pieces: int = 50_000
    grid_rows: int = 32
    grid_columns: int = 32


@dataclass(frozen=True, kw_only=True)
class FewCodesFirstConfig:
    """How a run begins: with sequences of few codes, many of them hidden, from which texts are learnt fast.

    Such a step holds as many codes as one of whole pictures, of so many times as many pictures.

    Args:
        fraction: the share of the steps, from the first, that are so; none by default.
        kept_codes: codes of a picture that such a sequence holds.
        masked_codes: the largest share of them that are read as [MASK].

    Raises:
        UsageError: shares that are none.
    """

    fraction: float = 0.0
    kept_codes: int = 64
    masked_codes: float = 1.0

    def __post_init__(self) -> None:
        for name in ("fraction", "masked_codes"):
            check_share(f"few_codes_first.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class TextToImageRecipe:
    """Stage 2: words and codes in one sequence.

    Args:
        transformer: shape and stabilisers; `vocabulary_size` and `num_positions` are replaced by what the
            token shards ask for.
        initialisation: where its weights start.
        max_text_pieces: longer texts are clipped and counted.
        image_positions: position of the first code: right after the text, as in the paper, or at a fixed place.
        token_loss: weights and normaliser of the loss.
        masking: what sequences leave out.
        mixed_codes: the largest share of a picture's codes that are read as another picture's while training, so that
            the text is looked at; see `cogview.data.loader.MixedCodeBatches`. Beyond the paper, off by default.
        mixed_codes_at_end: what that share has become, evenly, at the last step; the same by default.
        text_case: how the model will read capitals: as they are written, or, where a word is not known so, in the
            spelling that its captions most often had.
        few_codes_first: whether and how the run begins with few codes, before what `masking` says.
        training: how it is trained.
        made_for: the tokens that the recipe has in mind; nothing is trained by it.

    Paper: 2.2-2.4.
    """

    transformer: TransformerConfig
    initialisation: InitialisationConfig = field(default_factory=InitialisationConfig)
    max_text_pieces: int
    image_positions: Literal["after_text", "fixed"]
    token_loss: TokenLossConfig
    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)
    mixed_codes: float = 0.0
    mixed_codes_at_end: float | None = None
    text_case: TextCase = "as_written"
    few_codes_first: FewCodesFirstConfig = field(default_factory=FewCodesFirstConfig)
    training: TrainingConfig
    made_for: Annotated[TokenShape, tyro.conf.Suppress] = field(default_factory=TokenShape)

    def __post_init__(self) -> None:
        """Refuse rows and columns where a position has neither, and shares that are none."""
        if self.initialisation.positions == "rows_and_columns" and self.image_positions != "fixed":
            raise UsageError(
                "initialisation.positions rows_and_columns needs image_positions fixed: after a text of any length, "
                f"a position is that of many rows and columns; got {self.image_positions}"
            )
        check_share("mixed_codes", self.mixed_codes)
        if self.mixed_codes_at_end is not None:
            check_share("mixed_codes_at_end", self.mixed_codes_at_end)
        if (self.mixed_codes or self.mixed_codes_at_end) and self.training.batch_size < 2:
            raise UsageError(
                f"mixed_codes takes codes of the batch's other pictures, and training.batch_size is "
                f"{self.training.batch_size}: give 2 or more, or mixed_codes 0"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A further task, learnt from a model that has been trained: its base.

    Args:
        adapter: what is learnt beside the base, which stays as it is; None to learn all weights of a copy of it.
        token_loss: weights and normaliser of the loss.
        attention: how it is computed while training; None for the base's own way. `fused` is equal to `relaxed` but for
            rounding, and holds no matrix of scores, which is what long sequences spend their time and memory on.
        training: how it is trained.

    Paper: 3, where all weights are learnt.
    """

    adapter: tyro.conf.AvoidSubcommands[AdapterConfig | None]
    token_loss: TokenLossConfig
    attention: Literal["relaxed", "fused"] | None = None
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True)
class StyleRecipe(FinetuneRecipe):
    """Text to image in one style.

    Args:
        masking: what sequences leave out.
        trains_words: whether an adapter has its own rows of the embedding for the pieces of the texts that it learns
            from. Words that the base never saw need it: all their rows have drifted the same way and are hardly to be
            told apart. It overrides `adapter.token_rows`.

    Paper: 3.3.
    """

    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)
    trains_words: bool = False


@dataclass(frozen=True, kw_only=True)
class CaptioningRecipe(FinetuneRecipe):
    """A picture's codes to text.

    Args:
        positions: of codes and pieces, as `CaptionTemplate` says; by default those that suit the base.
        trains_words: whether an adapter has its own rows of the embedding, and of the head, for the pieces of the
            captions that it learns, as in `StyleRecipe`.

    Paper: 3.2.
    """

    positions: CaptionPositions | None = None
    trains_words: bool = False


@dataclass(frozen=True, kw_only=True)
class SuperResolutionRecipe(FinetuneRecipe):
    """Codes to codes of twice the rows and columns.

    Args:
        high_positions: where the positions of the high codes start; see `SuperResolutionTemplate`.
        window_share: the share of sequences that are windows of larger pictures, where there are such.
        masking: what sequences leave out of the high codes: these foretell each other, and where they are masked the
            low ones have to be read.

    Paper: 3.1.
    """

    high_positions: Literal["restart", "after_low"] = "restart"
    window_share: float = 0.5
    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_share("window_share", self.window_share)


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """A data set to build: the default one at some size, the pictures of a style, people, or clothing.

    Args:
        data: what it holds.
    """

    data: tyro.conf.AvoidSubcommands[
        DefaultDataConfig | StyleDataConfig | PeopleDataConfig | ClothingDataConfig
    ]


@dataclass(frozen=True, kw_only=True)
class TextTokenizerRecipe:
    """What the bundled text tokenizer is trained on.

    Args:
        tokenizer: size and coverage.
        num_scenes: scenes whose captions are learnt from, each once in Chinese and once in English; a tenth as many
            with held-out objects come on top.
        seed: of the scenes and captions.
        packages_folder: a folder with the archive of emojibase; None fetches it with npm.
    """

    tokenizer: TextTokenizerConfig = field(default_factory=TextTokenizerConfig)
    num_scenes: int = 6_000
    seed: int = 0
    packages_folder: Path | None = None
