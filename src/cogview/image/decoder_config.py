"""Configuration of an additional decoder. Does not import PyTorch."""

from dataclasses import dataclass

from cogview.errors import UsageError
from cogview.image.config import LEAST_PATCHES

SCALES = (1, 2, 4)
"""Possible sizes, in units of the encoded size."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape and losses of a decoder that refines the pictures of an image tokenizer's own decoder.

    Args:
        scales: sizes that it draws, in units of the encoded size: 1, 2 or 4.
        neighbourhood: side of the square of codes around a place, odd. Each code at each position of the square has a
            learnt vector, and these are summed: quickly learns exact repetitions, such as icons. 0 for none.
        neighbourhood_channels: width of these vectors.
        channels: width at the grid of codes and after each doubling.
        num_blocks: residual blocks at each of these grids.
        kernel_size: of the first convolution of a block, odd; 1 if the neighbourhood is sufficient.
        ground_levels: largest difference, of 255 levels, from the ground's colour, the commonest of a picture, at which
            a pixel gets that colour; up to twice as far it is moved towards it. For drawings on even grounds; 0 for
            none.
        l2_weight: of the mean squared error of pixels in [-1, 1].
        l1_weight: of their mean absolute error.
        edge_weight: of the mean absolute error of the differences between neighbouring pixels.
        perceptual_weight: of the distance between features of the task's backbone.
        perceptual_start_step: training step from which it is used.
        discriminator_weight: of the adversarial loss, times the adaptive weight.
        discriminator_start_step: training step from which the discriminator is trained and used.
        discriminator_channels: width of its first convolution.
        discriminator_layers: halvings of the grid before its last two convolutions.
        judged_pixels: side of a random crop of each picture for backbone and discriminator.

    Raises:
        UsageError: the numbers contradict each other.

    Paper: section 2.1 leaves the decoder's shape open; the losses are those of the VQGAN that section 3.4 cites.
    """

    scales: tuple[int, ...] = (1, 2, 4)
    neighbourhood: int = 0
    neighbourhood_channels: int = 128
    channels: tuple[int, ...] = (256, 128, 64, 48)
    num_blocks: tuple[int, ...] = (4, 4, 4, 3)
    kernel_size: int = 3
    ground_levels: int = 0
    l2_weight: float = 10.0
    l1_weight: float = 0.1
    edge_weight: float = 0.0
    perceptual_weight: float = 0.25
    perceptual_start_step: int = 0
    discriminator_weight: float = 0.2
    discriminator_start_step: int = 10_000
    discriminator_channels: int = 32
    discriminator_layers: int = 3
    judged_pixels: int = 128

    def __post_init__(self) -> None:
        if not self.scales or not set(self.scales) <= set(SCALES) or len(set(self.scales)) < len(self.scales):
            raise UsageError(f"decoder: scales must be some of 1, 2 and 4, each once, got {self.scales}")
        if len(self.channels) != len(self.num_blocks) or not self.channels:
            raise UsageError(
                f"decoder: channels and num_blocks must have one length, got {self.channels} and {self.num_blocks}"
            )
        if min(self.channels) < 1 or min(self.num_blocks) < 0:
            raise UsageError("decoder: channels must be at least 1 and num_blocks not negative")
        if self.neighbourhood < 0 or (self.neighbourhood and not self.neighbourhood % 2):
            raise UsageError(f"decoder: neighbourhood must be odd, or 0 for none, got {self.neighbourhood}")
        if min(self.kernel_size, self.neighbourhood_channels) < 1 or not self.kernel_size % 2:
            raise UsageError(
                f"decoder: kernel_size must be odd and neighbourhood_channels at least 1, got {self.kernel_size} and "
                f"{self.neighbourhood_channels}"
            )
        if not 0 <= self.ground_levels <= 255:
            raise UsageError(f"decoder: ground_levels must be 0 to 255, got {self.ground_levels}")
        weights = (
            self.l2_weight,
            self.l1_weight,
            self.edge_weight,
            self.perceptual_weight,
            self.discriminator_weight,
        )
        starts = self.perceptual_start_step, self.discriminator_start_step
        if not all(0.0 <= weight < float("inf") for weight in weights) or min(starts) < 0:
            raise UsageError("decoder: weights and start steps must not be negative")
        if min(self.discriminator_channels, self.discriminator_layers) < 1:
            raise UsageError("decoder: discriminator_channels and discriminator_layers must be at least 1")
        if self.judged_pixels < LEAST_PATCHES * 2**self.discriminator_layers:
            raise UsageError(
                f"decoder: discriminator_layers {self.discriminator_layers} leave nothing of judged_pixels "
                f"{self.judged_pixels}: give {LEAST_PATCHES * 2**self.discriminator_layers} or more"
            )

    def check_codes(self, downsampling_factor: int) -> None:
        """Check that the doublings fit the size of a code's square.

        Args:
            downsampling_factor: side in pixels of the square that a code stands for.

        Raises:
            UsageError: a doubling would split a pixel.
        """
        finest = 2 ** (len(self.channels) - 1)
        for scale in sorted(self.scales):
            if downsampling_factor * scale % finest:
                raise UsageError(
                    f"decoder: {len(self.channels)} channels are {finest} places a code, and a code is "
                    f"{downsampling_factor * scale} pixels at scale {scale}: give channels fewer entries, or leave "
                    "that scale out"
                )

    @property
    def num_blocks_in_all(self) -> int:
        """Return the number of blocks with weights."""
        return sum(self.num_blocks) + len(self.channels)
