"""Recipes: all settings of a run, as frozen dataclasses that the command line can override."""

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
    """Training of an image tokenizer, stage 1.

    Args:
        vqvae: shape and losses of the image tokenizer.
        size_pixels: side of the square to which training pictures are resized and cropped.
        training: of the image tokenizer.

    Raises:
        UsageError: the side is not a multiple of a code's.

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
    """Training of a VQGAN, stage 1 for one domain.

    Args:
        vqgan: shape and losses of the image tokenizer and its discriminator.
        size_pixels: side of the square to which training pictures are resized and cropped.
        training: of both.

    Raises:
        UsageError: the side is not a multiple of a code's, or is too small for the discriminator.

    Paper: 3.4.
    """

    vqgan: VQGANConfig
    size_pixels: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        _check_size(self.size_pixels, self.vqgan)
        _check_precision(self.training)
        if self.vqgan.decoder_output != "pixels":
            raise UsageError("vqgan.decoder_output wavelets is for converted weights: train with pixels")
        layers = self.vqgan.discriminator_layers
        is_adversarial = self.vqgan.discriminator_start_step < self.training.num_steps
        if is_adversarial and self.size_pixels < LEAST_PATCHES * 2**layers:
            raise UsageError(
                f"vqgan.discriminator_layers {layers} leave nothing of {self.size_pixels} pixels: take pictures of "
                f"{LEAST_PATCHES * 2**layers} pixels or more, or fewer layers"
            )
        if self.training.compile:
            raise UsageError(
                "training.compile: a VQGAN's adaptive weight needs gradients, which cannot be compiled: turn it off"
            )


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """Training of an additional decoder for an image tokenizer.

    Args:
        decoder: shape and losses of the decoder and its discriminator.
        size_pixels: side of the square at which training pictures are encoded; scales are multiples of it.
        training: of the decoder.

    Raises:
        UsageError: pictures are too small for the discriminator, or a setting is for transformers alone.

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
        is_adversarial = self.decoder.discriminator_start_step < self.training.num_steps
        if is_adversarial and self.size_pixels * min(self.decoder.scales) < least:
            raise UsageError(
                f"decoder.discriminator_layers {self.decoder.discriminator_layers} leave nothing of "
                f"{self.size_pixels * min(self.decoder.scales)} pixels: take larger pictures, or fewer layers"
            )
        if self.training.compile:
            raise UsageError(
                "training.compile: the adaptive weight needs gradients, which cannot be compiled: turn it off"
            )


def _check_size(size_pixels: int, config: AutoencoderConfig) -> None:
    """Check that a side is a multiple of a code's."""
    factor = config.downsampling_factor
    if size_pixels < factor or size_pixels % factor:
        raise UsageError(
            f"size_pixels must be a multiple of {factor}, the side of a code's square, got {size_pixels}"
        )


def _check_precision(training: TrainingConfig) -> None:
    """Check that a precision is not for transformers alone."""
    if training.precision.endswith("_o2"):
        raise UsageError(
            f"training.precision {training.precision} is for transformers: an image tokenizer's codebook is float32; "
            "take bfloat16"
        )


@dataclass(frozen=True, kw_only=True)
class TokenShape:
    """Tokens that a text-to-image recipe is made for.

    Training reads all four from its tokens; `cogview plan` uses these.

    Args:
        num_image_codes: of the image tokenizer.
        num_text_pieces: of the text tokenizer.
        grid_rows: rows of codes of a picture.
        grid_columns: columns of codes of a picture.
    """

    num_image_codes: int = 8_192
    num_text_pieces: int = 50_000
    grid_rows: int = 32
    grid_columns: int = 32


@dataclass(frozen=True, kw_only=True)
class FewCodesFirstConfig:
    """First phase of a run: sequences of few codes, many of them masked, from which texts are learnt fast.

    Such a step has as many codes as one of whole pictures, from more pictures.

    Args:
        fraction: share of the steps in this phase; none by default.
        kept_codes: codes of a picture in a sequence.
        masked_codes: largest share of them that is read as [MASK].

    Raises:
        UsageError: a share is not in [0, 1].
    """

    fraction: float = 0.0
    kept_codes: int = 64
    masked_codes: float = 1.0

    def __post_init__(self) -> None:
        for name in ("fraction", "masked_codes"):
            check_share(f"few_codes_first.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class TextToImageRecipe:
    """Training of a transformer from text to image, stage 2.

    Args:
        transformer: shape and stabilisers; `vocabulary_size` and `num_positions` are replaced by those of the token
            shards.
        initialisation: of its weights.
        max_text_pieces: longer texts are cut and counted.
        image_positions: position of the first code: right after the text, as in the paper, or fixed.
        padded_texts: whether all texts are filled up to one length, without separators, as masks of a grid need. Not in
            the paper, but in ruDALL-E.
        token_loss: weights and normaliser of the loss.
        masking: what sequences leave out.
        mixed_codes: largest share of a picture's codes that are replaced by another picture's in training, so that the
            model needs the text; see `cogview.data.loader.MixedCodeBatches`. Not in the paper, off by default.
        mixed_codes_at_end: that share at the last step, reached linearly; the same by default.
        text_case: how the model reads capitals: as written, or, if a word is unknown so, in the most frequent spelling
            of its captions.
        few_codes_first: first phase with few codes, before `masking` applies.
        training: of the transformer.
        made_for: tokens for `cogview plan`; not used in training.

    Paper: 2.2-2.4.
    """

    transformer: TransformerConfig
    initialisation: InitialisationConfig = field(default_factory=InitialisationConfig)
    max_text_pieces: int
    image_positions: Literal["after_text", "fixed"]
    padded_texts: bool = False
    token_loss: TokenLossConfig
    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)
    mixed_codes: float = 0.0
    mixed_codes_at_end: float | None = None
    text_case: TextCase = "as_written"
    few_codes_first: FewCodesFirstConfig = field(default_factory=FewCodesFirstConfig)
    training: TrainingConfig
    made_for: Annotated[TokenShape, tyro.conf.Suppress] = field(default_factory=TokenShape)

    def __post_init__(self) -> None:
        """Check that the settings are consistent, and the range of shares."""
        if self.initialisation.positions == "rows_and_columns" and self.image_positions != "fixed":
            raise UsageError(
                "initialisation.positions rows_and_columns needs image_positions fixed: after texts of any length, "
                f"positions have no fixed row and column; got {self.image_positions}"
            )
        if self.padded_texts and self.image_positions != "fixed":
            raise UsageError(f"padded_texts needs image_positions fixed, got {self.image_positions}")
        if self.transformer.attention_pattern == "grid":
            if not self.padded_texts:
                raise UsageError("attention_pattern grid needs padded_texts, so that each code has one place")
            if self.masking.kept_codes is not None or self.few_codes_first.fraction:
                raise UsageError(
                    "attention_pattern grid goes by the place of each code, so none can be left out: give no "
                    "kept_codes and no few_codes_first.fraction"
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
    """Finetuning of a trained model, the base, for a further task.

    Args:
        adapter: adapter to train with the base frozen; None to train all weights of a copy of it.
        token_loss: weights and normaliser of the loss.
        attention: implementation in training; by default the base's. `fused` equals `relaxed` except for rounding, and
            needs no matrix of scores, which dominates time and memory of long sequences.
        training: of the adapter or copy.

    Paper: 3, where all weights are trained.
    """

    adapter: tyro.conf.AvoidSubcommands[AdapterConfig | None]
    token_loss: TokenLossConfig
    attention: Literal["relaxed", "fused"] | None = None
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True)
class StyleRecipe(FinetuneRecipe):
    """Finetuning on a style.

    Args:
        masking: what sequences leave out.
        trains_words: train a row of the embedding in the adapter for each piece of its training texts. Words that the
            base never saw need it, for their rows are almost equal. Overrides `adapter.token_rows`.

    Paper: 3.3.
    """

    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)
    trains_words: bool = False


@dataclass(frozen=True, kw_only=True)
class CaptioningRecipe(FinetuneRecipe):
    """Finetuning for captioning, from codes to text.

    Args:
        positions: of codes and pieces, see `CaptionTemplate`; by default those that suit the base.
        trains_words: train a row of embedding and head in the adapter for each piece of its captions. Words that the
            base never saw need it.

    Paper: 3.2.
    """

    positions: CaptionPositions | None = None
    trains_words: bool = False


@dataclass(frozen=True, kw_only=True)
class SuperResolutionRecipe(FinetuneRecipe):
    """Finetuning for super-resolution, from codes to twice their rows and columns.

    Args:
        high_positions: where the positions of the high codes start; see `SuperResolutionTemplate`.
        window_share: share of sequences that are windows of larger pictures, if there are such.
        masking: what sequences leave out of the high codes: they predict each other, and masking forces the model to
            use the low codes.

    Paper: 3.1.
    """

    high_positions: Literal["restart", "after_low"] = "restart"
    window_share: float = 0.5
    masking: Annotated[MaskingConfig, tyro.conf.arg(name="")] = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        """Check the range of the share."""
        check_share("window_share", self.window_share)


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Data set to build: default data, a style, people or clothing.

    Args:
        data: configuration of the data set.
    """

    data: tyro.conf.AvoidSubcommands[
        DefaultDataConfig | StyleDataConfig | PeopleDataConfig | ClothingDataConfig
    ]


@dataclass(frozen=True, kw_only=True)
class TextTokenizerRecipe:
    """Training of the bundled text tokenizer.

    Args:
        tokenizer: size and coverage.
        num_scenes: scenes with one caption in Chinese and one in English each; a tenth as many with held-out objects
            are added.
        seed: of the scenes and captions.
        packages_folder: a folder with the archive of emojibase; by default it is fetched with npm.
    """

    tokenizer: TextTokenizerConfig = field(default_factory=TextTokenizerConfig)
    num_scenes: int = 6_000
    seed: int = 0
    packages_folder: Path | None = None
