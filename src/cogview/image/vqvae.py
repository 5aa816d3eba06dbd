"""The VQ-VAE: convolutions from pixels to a grid of codes and back."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import VQVAEConfig
from cogview.image.quantizers.build import build_quantizer


@dataclass(frozen=True, kw_only=True)
class VQVAEOutput:
    """What a training pass gives.

    Args:
        reconstruction: decoded images, in [-1, 1] but for overshoot.
        loss: the scalar to minimise.
        codes: the code of each grid cell.
        vectors: the encoder's outputs, detached; the quantizer's `update` learns from them.
        metrics: detached scalars: `l1`, `l2` (of normalised pixels), `psnr` (dB) and `commitment`.
    """

    reconstruction: Float[Tensor, "b c y x"]
    loss: Float[Tensor, ""]
    codes: Int64[Tensor, "b r s"]
    vectors: Float[Tensor, "b d r s"]
    metrics: dict[str, Tensor]


class VQVAE(nn.Module):
    """Encode images as grids of codes and decode them.

    Differs from the paper: a configuration may fold pixels into patches, add residual blocks and mix l1 into the loss.
    The defaults do none of it.

    Args:
        config: shapes and training constants.

    Paper: section 2.1.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.quantizer = build_quantizer(config)
        self.decoder = build_decoder(config)
        # Pixels live in [-1, 1] here and the statistics speak of [0, 1].
        mean, std = torch.tensor(config.pixel_mean), torch.tensor(config.pixel_std)
        self.register_buffer("pixel_mean", (2.0 * mean - 1.0).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", (2.0 * std).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> VQVAEOutput:
        """Encode, quantize, decode and score.

        What a codebook learns without a gradient it learns in `quantizer.update`, not here.

        Args:
            images: in [-1, 1]; sides multiples of the downsampling factor.
        """
        pixels = self._normalise(images)
        vectors = self.encoder(pixels).float()
        quantized = self.quantizer.quantize(vectors)
        decoded = self.decoder(quantized.vectors).float()
        error = decoded - pixels
        l1, l2 = error.abs().mean(), error.square().mean()
        loss = self.config.l2_weight * l2 + self.config.l1_weight * l1 + quantized.loss
        reconstruction = self._denormalise(decoded)
        with torch.no_grad():
            # Half the difference, since [-1, 1] is twice as wide as the [0, 1] that PSNR speaks of.
            squared = ((reconstruction.clamp(-1.0, 1.0) - images) / 2.0).square().mean()
            metrics = {"l1": l1.detach(), "l2": l2.detach(), "commitment": quantized.loss.detach()}
            metrics["psnr"] = -10.0 * squared.clamp_min(1e-10).log10()
        return VQVAEOutput(
            reconstruction=reconstruction,
            loss=loss,
            codes=quantized.codes,
            vectors=vectors.detach(),
            metrics=metrics,
        )

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Return the codes of images in [-1, 1]."""
        return self.quantizer.nearest(self.encoder(self._normalise(images)))

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b c y x"]:
        """Return the images of codes, clamped to [-1, 1]."""
        decoded = self.decoder(self.quantizer.look_up(codes)).float()
        return self._denormalise(decoded).clamp(-1.0, 1.0)

    def _normalise(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return (images - self.pixel_mean) / self.pixel_std

    def _denormalise(self, pixels: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return pixels * self.pixel_std + self.pixel_mean


class ResidualBlock(nn.Module):
    """Add a 3x3 (or smaller) and a 1x1 convolution of the rectified input to the input.

    The last convolution starts at zero, so a new block is the identity and no normalisation is needed.

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
        """Refine features at one resolution."""
        hidden = self.widen(nn.functional.relu(features))
        return features + self.project(nn.functional.relu(hidden))


def build_encoder(config: VQVAEConfig) -> nn.Sequential:
    """Return the layers from normalised pixels to vectors.

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
        layers.append(nn.ReLU())
        channels = width
    layers.append(initialise_convolution(nn.Conv2d(channels, config.code_size, 1), gain=1.0))
    return nn.Sequential(*layers)


def build_decoder(config: VQVAEConfig) -> nn.Sequential:
    """Return the layers from codebook vectors to normalised pixels."""
    layers: list[nn.Module] = []
    channels = config.code_size
    if config.decoder_stem_channels:
        stem = nn.Conv2d(channels, config.decoder_stem_channels, 3, padding=1)
        layers.append(initialise_convolution(stem, gain=1.0))
        channels = config.decoder_stem_channels
        layers.extend(ResidualBlock(channels) for _ in range(config.decoder_stem_blocks))
        layers.append(nn.ReLU())
    for width, num_blocks in zip(config.decoder_channels, config.decoder_blocks, strict=True):
        layers.append(initialise_convolution(nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)))
        layers.extend(ResidualBlock(width) for _ in range(num_blocks))
        layers.append(nn.ReLU())
        channels = width
    layers.append(initialise_convolution(nn.Conv2d(channels, 3 * config.patch_size_pixels**2, 1), gain=1.0))
    if config.patch_size_pixels > 1:
        layers.append(nn.PixelShuffle(config.patch_size_pixels))
    return nn.Sequential(*layers)


def initialise_convolution(layer: nn.Conv2d | nn.ConvTranspose2d, gain: float = 2.0**0.5) -> nn.Module:
    """Draw weights that keep the variance of activations through the layer and its rectifier.

    Args:
        layer: the convolution; a transposed one of stride s sums over 1/s^2 of its kernel at each output.
        gain: on the deviation of the output: sqrt(2) before a rectifier, 1 before none.
    """
    fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in //= layer.stride[0] * layer.stride[1]
    nn.init.normal_(layer.weight, std=gain / fan_in**0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
