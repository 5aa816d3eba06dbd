"""Convolutional VQ-VAE."""

from jaxtyping import Float
from torch import Tensor, nn

from cogview.image.autoencoder import Autoencoder
from cogview.image.config import VQVAEConfig


class VQVAE(Autoencoder):
    """Convolutional autoencoder with a codebook.

    Differs from the paper: a configuration may fold pixels into patches, add residual blocks and add an L1 loss. The
    defaults do not.

    Paper: section 2.1.
    """

    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig):
        super().__init__(config, build_encoder(config), build_decoder(config))


class ResidualBlock(nn.Module):
    """Residual block of a 3x3 (or smaller) and a 1x1 convolution.

    The last convolution starts at zero, so that a new block is the identity and needs no normalisation.

    Args:
        channels: width in, between and out.
        kernel_size: of the first convolution, odd.
    """

    def __init__(self, channels: int, kernel_size: int = 3):
        super().__init__()
        self.widen = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.project = nn.Conv2d(channels, channels, 1)
        initialise_convolution(self.widen)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        """Apply the block."""
        hidden = self.widen(nn.functional.relu(features))
        return features + self.project(nn.functional.relu(hidden))


def build_encoder(config: VQVAEConfig) -> nn.Sequential:
    """Build the layers from normalised pixels to vectors.

    With no patches and no residual blocks, the convolutions' indices are those of the released weights (0, 2, 4, 6).
    """
    layers: list[nn.Module] = []
    size = config.encoder_kernel_size
    if config.patch_size_pixels > 1:
        layers.append(nn.PixelUnshuffle(config.patch_size_pixels))
    channels = 3 * config.patch_size_pixels**2
    for width, num_blocks in zip(config.encoder_channels, config.encoder_blocks, strict=True):
        halving = nn.Conv2d(channels, width, size, stride=2, padding=size // 2 - 1)
        layers.append(initialise_convolution(halving))
        layers.extend(ResidualBlock(width, kernel_size=size - 1) for _ in range(num_blocks))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    layers.append(initialise_convolution(nn.Conv2d(channels, config.code_size, 1), gain=1.0))
    return nn.Sequential(*layers)


def build_decoder(config: VQVAEConfig) -> nn.Sequential:
    """Build the layers from codebook vectors to normalised pixels."""
    layers: list[nn.Module] = []
    channels = config.code_size
    if config.decoder_stem_channels:
        stem = nn.Conv2d(channels, config.decoder_stem_channels, 3, padding=1)
        layers.append(initialise_convolution(stem, gain=1.0))
        channels = config.decoder_stem_channels
        layers.extend(ResidualBlock(channels) for _ in range(config.decoder_stem_blocks))
        layers.append(nn.ReLU(inplace=True))
    for width, num_blocks in zip(config.decoder_channels, config.decoder_blocks, strict=True):
        layers.append(initialise_convolution(nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)))
        layers.extend(ResidualBlock(width) for _ in range(num_blocks))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    layers.append(initialise_convolution(nn.Conv2d(channels, 3 * config.patch_size_pixels**2, 1), gain=1.0))
    if config.patch_size_pixels > 1:
        layers.append(nn.PixelShuffle(config.patch_size_pixels))
    return nn.Sequential(*layers)


def initialise_convolution(layer: nn.Conv2d | nn.ConvTranspose2d, gain: float = 2.0**0.5) -> nn.Module:
    """Initialise weights so that the layer and its ReLU keep the variance of activations.

    Args:
        layer: the convolution; a transposed one of stride s sums over 1/s^2 of its kernel at each output.
        gain: of the output's standard deviation: sqrt(2) before a ReLU, otherwise 1.
    """
    fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in //= layer.stride[0] * layer.stride[1]
    nn.init.normal_(layer.weight, std=gain / fan_in**0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
