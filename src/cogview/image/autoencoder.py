"""Base class of image tokenizers: encoder, codebook and decoder."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import AutoencoderConfig
from cogview.image.quantizers.build import build_quantizer


@dataclass(frozen=True, kw_only=True)
class AutoencoderOutput:
    """Output of a training pass.

    Args:
        reconstruction: decoded images in [-1, 1], except for overshoot.
        loss: the scalar to minimise.
        l1: mean absolute error of normalised pixels.
        l2: mean squared error of normalised pixels.
        codes: the code of each grid cell.
        vectors: the encoder's outputs, detached; the quantizer's `update` learns from them.
        metrics: detached means over the pictures: `l1`, `l2` (of normalised pixels), `commitment`, and `psnr` (dB, of
            each picture by itself).
    """

    reconstruction: Float[Tensor, "b c y x"]
    loss: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    l2: Float[Tensor, ""]
    codes: Int64[Tensor, "b r s"]
    vectors: Float[Tensor, "b d r s"]
    metrics: dict[str, Tensor]


class Autoencoder(nn.Module):
    """Autoencoder from images to grids of codes and back.

    Args:
        config: of codebook and pixels.
        encoder: from normalised pixels to vectors of the codebook's width.
        decoder: from such vectors to normalised pixels.

    Paper: section 2.1.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: AutoencoderConfig, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.quantizer = build_quantizer(config)
        self.decoder = decoder
        # Statistics are of [0, 1], pixels here in [-1, 1]. Computed by NumPy: on the meta device, PyTorch 2.13 would
        # import its compiler, which takes longer than drawing a picture.
        mean, std = (np.asarray(each, np.float32) for each in (config.pixel_mean, config.pixel_std))
        self.register_buffer("pixel_mean", torch.from_numpy(2 * mean - 1).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.from_numpy(2 * std).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> AutoencoderOutput:
        """Encode, quantize, decode and compute the losses.

        Codebooks that learn without a gradient do so in `quantizer.update`.

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
            # Half the difference, since PSNR is defined for [0, 1].
            squared = ((reconstruction.clamp(-1.0, 1.0) - images) / 2.0).square().mean((1, 2, 3))
            metrics = {"l1": l1.detach(), "l2": l2.detach(), "commitment": quantized.loss.detach()}
            metrics["psnr"] = -10.0 * squared.clamp_min(1e-10).log10().mean()
        return AutoencoderOutput(
            reconstruction=reconstruction,
            loss=loss,
            l1=l1,
            l2=l2,
            codes=quantized.codes,
            vectors=vectors.detach(),
            metrics=metrics,
        )

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Encode images in [-1, 1]."""
        return self.quantizer.nearest(self.encoder(self._normalise(images)))

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "b r s"], scale: int = 1) -> Float[Tensor, "b c y x"]:
        """Decode codes to images, clamped to [-1, 1].

        Args:
            codes: of the images.
            scale: one of `config.scales`.
        """
        vectors = self.quantizer.look_up(codes)
        decoded = (self.decoder(vectors) if scale == 1 else self.decoder(vectors, scale)).float()
        return self._denormalise(decoded).clamp(-1.0, 1.0)

    def _normalise(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return (images - self.pixel_mean) / self.pixel_std

    def _denormalise(self, pixels: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return pixels * self.pixel_std + self.pixel_mean
