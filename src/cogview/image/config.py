"""Configurations of image tokenizers. Does not import PyTorch."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

from cogview.errors import UsageError

FOLDER_NAME = "image_tokenizer"
"""Name of an image tokenizer's folder in models and token folders."""

LEAST_PATCHES = 3
"""Smallest side of the grid before a discriminator's last two convolutions; each layer halves the picture."""

CodebookMethod = Literal["nearest_neighbour", "gumbel", "moving_average", "fixed", "normalised", "projected"]
CodebookInitialisation = Literal["encoder_outputs", "random"]
DecoderOutput = Literal["pixels", "wavelets"]


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """Codebook and its training.

    Args:
        num_codes: entries of the codebook, |V|.
        code_size: width of one codebook vector, d.
        codebook: training method: the paper's (a) `nearest_neighbour` by gradient, (b) `gumbel` sampling, (c)
            `moving_average` of the vectors assigned to each code, (d) `fixed` after initialisation; or, not in the
            paper, `normalised`: (a) on the unit sphere, for a `code_size` of about 8; `projected`: (b) with a learnt
            linear map of the encoder's vectors in place of distances.
        codebook_initialisation: clusters of `encoder_outputs`, or `random` vectors from N(0, 1).
        codebook_weight: of the loss that pulls codes to the encoder's vectors, for (a) and `normalised`.
        commitment_weight: of the loss that pulls the encoder's vectors to their codes; (b) has none.
        gumbel_temperatures: tau of (b) at the first step and after annealing.
        gumbel_annealing_steps: steps over which tau falls geometrically.
        decay: of the moving averages of (c)'s codebook and of all methods' cluster sizes, in (0, 1).
        smoothing_epsilon: Laplace smoothing of the moving cluster sizes.
        codebook_start_step: training step at which the codebook is initialised from the encoder's vectors; before it
            the vectors pass unquantized, so that the codebook starts from features, not from noise.
        revival_every_steps: interval at which rarely used codes move to vectors with large errors; 0 for never.
        revival_threshold: codes below this share of the mean cluster size are revived.

    Raises:
        UsageError: the numbers contradict each other.

    Paper: section 2.1 and figure 2.
    """

    num_codes: int = 8192
    code_size: int = 256
    codebook: CodebookMethod = "moving_average"
    codebook_initialisation: CodebookInitialisation = "encoder_outputs"
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    gumbel_temperatures: tuple[float, float] = (1.0, 0.01)
    gumbel_annealing_steps: int = 1_000
    decay: float = 0.99
    smoothing_epsilon: float = 1e-5
    codebook_start_step: int = 0
    revival_every_steps: int = 100
    revival_threshold: float = 0.03

    def __post_init__(self) -> None:
        if min(self.num_codes, self.code_size) < 1:
            raise UsageError("image tokenizer: codes and code size must be at least 1")
        # A config file may contain anything, and a wrong choice would silently act as another one.
        choices = {"codebook": CodebookMethod, "codebook_initialisation": CodebookInitialisation}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                wanted = ", ".join(get_args(kind))
                raise UsageError(
                    f"image tokenizer: {name} must be one of {wanted}, got {getattr(self, name)!r}"
                )
        if not 0.0 < self.decay < 1.0 or not math.isfinite(self.commitment_weight):
            raise UsageError(f"image tokenizer: decay must lie in (0, 1), got {self.decay}")
        if min(self.gumbel_temperatures) <= 0.0 or self.gumbel_annealing_steps < 1:
            raise UsageError(
                "image tokenizer: gumbel_temperatures must be greater than 0 and gumbel_annealing_steps at least 1, "
                f"got {self.gumbel_temperatures} and {self.gumbel_annealing_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(CodebookConfig, ABC):
    """Common part of image tokenizers: codebook, pixel normalisation and reconstruction losses.

    Args:
        pixel_mean: subtracted from pixels in [0, 1], for red, green and blue.
        pixel_std: divisor after that.
        l2_weight: weight of the mean squared error of normalised pixels, the paper's loss.
        l1_weight: weight of the mean absolute error of normalised pixels.

    Raises:
        UsageError: the numbers contradict each other.
    """

    pixel_mean: tuple[float, float, float] = (0.79093, 0.76271, 0.75340)
    pixel_std: tuple[float, float, float] = (0.30379, 0.32279, 0.32800)
    l2_weight: float = 1.0
    l1_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise UsageError(
                "image tokenizer: pixel_mean and pixel_std must have three numbers each, for red, green and blue, "
                f"got {self.pixel_mean} and {self.pixel_std}"
            )
        if min(self.pixel_std) <= 0.0:
            raise UsageError(f"image tokenizer: pixel_std must be positive, got {self.pixel_std}")

    @property
    @abstractmethod
    def downsampling_factor(self) -> int:
        """Return the side in pixels of the square that a code stands for."""

    @property
    @abstractmethod
    def num_blocks_in_all(self) -> int:
        """Return the number of blocks with weights in encoder and decoder."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Return the sizes that the decoder draws, in units of the encoded size."""
        return (1,)


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(AutoencoderConfig):
    """Convolutional VQ-VAE; the defaults are the released CogView tokenizer.

    The encoder folds `patch_size_pixels` squares of pixels into channels, halves the grid once per entry of
    `encoder_channels`, and maps to `code_size`; the decoder is its mirror image. Both are fully convolutional and
    accept pictures whose sides are multiples of `downsampling_factor`.

    The other arguments are those of `AutoencoderConfig` and `CodebookConfig`.

    Args:
        patch_size_pixels: side of the pixel squares folded into channels (1: none, the release).
        encoder_channels: width after each halving, finest grid first.
        encoder_blocks: residual blocks after each halving.
        encoder_kernel_size: of the halving convolutions. 4, the release: receptive fields of neighbouring codes
            overlap. 2: a code depends on its own square of pixels alone, and residual blocks are 1x1.
        decoder_stem_channels: width of a 3x3 convolution at the code grid; 0 for none, the release.
        decoder_stem_blocks: residual blocks after the stem, at the code grid.
        decoder_channels: width after each doubling, coarsest grid first.
        decoder_blocks: residual blocks after each doubling.

    Raises:
        UsageError: the numbers contradict each other.

    Paper: sections 2.1 and 2.2.
    """

    patch_size_pixels: int = 1
    encoder_channels: tuple[int, ...] = (512, 512, 512)
    encoder_blocks: tuple[int, ...] = (0, 0, 0)
    encoder_kernel_size: int = 4
    decoder_stem_channels: int = 0
    decoder_stem_blocks: int = 0
    decoder_channels: tuple[int, ...] = (512, 512, 512)
    decoder_blocks: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {
            "encoder_channels": len(self.encoder_channels),
            "encoder_blocks": len(self.encoder_blocks),
            "decoder_channels": len(self.decoder_channels),
            "decoder_blocks": len(self.decoder_blocks),
        }
        if len(set(lengths.values())) != 1 or not self.encoder_channels:
            raise UsageError(
                f"image tokenizer: {lengths} must have one length, at least 1; give one entry per halving of the grid"
            )
        if min(self.patch_size_pixels, *self.encoder_channels, *self.decoder_channels) < 1:
            raise UsageError("image tokenizer: patch size and channels must be at least 1")
        if self.encoder_kernel_size not in (2, 4):
            raise UsageError(
                f"image tokenizer: encoder_kernel_size must be 2 or 4, got {self.encoder_kernel_size}"
            )
        if self.decoder_stem_blocks and not self.decoder_stem_channels:
            raise UsageError("image tokenizer: decoder_stem_blocks needs decoder_stem_channels > 0")

    @property
    def downsampling_factor(self) -> int:
        """Return the side in pixels of the square that a code stands for."""
        return int(self.patch_size_pixels * 2 ** len(self.encoder_channels))

    @property
    def num_blocks_in_all(self) -> int:
        """Return the number of blocks with weights in encoder and decoder."""
        blocks = (*self.encoder_blocks, self.decoder_stem_blocks, *self.decoder_blocks)
        return 2 * len(self.encoder_channels) + sum(blocks)


@dataclass(frozen=True, kw_only=True)
class VQGANConfig(AutoencoderConfig):
    """VQGAN: residual convolutions and attention, trained with a perceptual loss and a discriminator.

    The defaults are the published shape of factor 16 with 16,384 codes and 256 channels. The other arguments are those
    of `AutoencoderConfig` and `CodebookConfig`.

    Args:
        channels: width at the finest grid.
        channel_factors: width at each grid, finest first, in units of `channels`; each but the first halves the grid.
        num_blocks: residual blocks at each grid of the encoder; the decoder has one more.
        attention_grids: grids whose blocks are each followed by self-attention, 0 the finest.
        bottom_attentions: self-attentions between the two blocks at the bottom: 1, as published, or 0.
        decoder_output: `pixels`; or `wavelets`, the Haar transform of pictures of twice the encoded size, whose mean
            over squares of 2 x 2 pixels is the picture in the encoded size. Only converted weights have it.
        norm_groups: groups of channels of a GroupNorm. Small groups, above all single channels, lose a picture's
            colour: give each at least four channels.
        inner_size: width between the convolutions and the codebook's `code_size`.
        dropout: probability, in training, in each residual block.
        perceptual_weight: of the distance between features of the task's backbone.
        discriminator_weight: of the adversarial loss, times the adaptive weight.
        discriminator_start_step: training step from which the discriminator is trained and used; pictures before it are
            too blurred.
        discriminator_channels: width of its first convolution.
        discriminator_layers: halvings of the grid before its last two convolutions.

    Raises:
        UsageError: the numbers contradict each other.

    Paper: section 3.4; the shape is that of the VQGAN it cites.
    """

    num_codes: int = 16_384
    codebook: CodebookMethod = "nearest_neighbour"
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    l2_weight: float = 0.0
    l1_weight: float = 1.0
    channels: int = 128
    channel_factors: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    attention_grids: tuple[int, ...] = (4,)
    bottom_attentions: int = 1
    decoder_output: DecoderOutput = "pixels"
    norm_groups: int = 32
    inner_size: int = 256
    dropout: float = 0.0
    perceptual_weight: float = 1.0
    discriminator_weight: float = 0.8
    discriminator_start_step: int = 10_000
    discriminator_channels: int = 64
    discriminator_layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (
            "channels",
            "num_blocks",
            "norm_groups",
            "inner_size",
            "discriminator_channels",
            "discriminator_layers",
        )
        if (
            not self.channel_factors
            or min(*self.channel_factors, *(getattr(self, name) for name in numbers)) < 1
        ):
            raise UsageError(f"image tokenizer: channel_factors, {', '.join(numbers)} must be at least 1")
        widths = {self.channels * factor for factor in self.channel_factors}
        if any(width % self.norm_groups for width in widths):
            raise UsageError(
                f"image tokenizer: widths must be multiples of norm_groups {self.norm_groups}, got "
                f"{sorted(widths)}"
            )
        if not all(0 <= grid < len(self.channel_factors) for grid in self.attention_grids):
            raise UsageError(
                f"image tokenizer: attention_grids must lie in 0..{len(self.channel_factors) - 1}, got "
                f"{self.attention_grids}"
            )
        if self.bottom_attentions not in (0, 1):
            raise UsageError(
                f"image tokenizer: bottom_attentions must be 0 or 1, got {self.bottom_attentions}"
            )
        if self.decoder_output not in get_args(DecoderOutput):
            raise UsageError(
                f"image tokenizer: decoder_output must be pixels or wavelets, got {self.decoder_output!r}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"image tokenizer: dropout must be in [0, 1), got {self.dropout}")
        if min(self.perceptual_weight, self.discriminator_weight) < 0 or self.discriminator_start_step < 0:
            raise UsageError(
                "image tokenizer: perceptual_weight, discriminator_weight and discriminator_start_step must not be "
                "negative"
            )

    @property
    def downsampling_factor(self) -> int:
        """Return the side in pixels of the square that a code stands for."""
        return int(2 ** (len(self.channel_factors) - 1))

    @property
    def num_blocks_in_all(self) -> int:
        """Return the number of blocks with weights in encoder and decoder."""
        return (2 * self.num_blocks + 1) * len(self.channel_factors)

    @property
    def scales(self) -> tuple[int, ...]:
        """Return the sizes that the decoder draws, in units of the encoded size."""
        return (1, 2) if self.decoder_output == "wavelets" else (1,)
