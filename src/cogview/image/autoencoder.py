"""What every image tokenizer is: an encoder, a codebook and a decoder."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cogview.image.config import AutoencoderConfig
from cogview.image.quantizers.build import build_quantizer


@dataclass(frozen=True, kw_only=True)
class AutoencoderOutput:
    """What a training pass gives.

    Args:
        reconstruction: decoded images, in [-1, 1] but for overshoot.
        loss: the scalar to minimise.
        l1: mean absolute error of normalised pixels.
        l2: mean squared error of normalised pixels.
        codes: the code of each grid cell.
        vectors: the encoder's outputs, detached; the quantizer's `update` learns from them.
        metrics: detached means over the pictures: of `l1`, `l2` (of normalised pixels), `commitment`, and `psnr`, the
            ratio (dB) of each picture by itself.
    """

    reconstruction: Float[Tensor, "b c y x"]
    loss: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    l2: Float[Tensor, ""]
    codes: Int64[Tensor, "b r s"]
    vectors: Float[Tensor, "b d r s"]
    metrics: dict[str, Tensor]


class Autoencoder(nn.Module):
    """Encode images as grids of codes and decode them.

    Args:
        config: of the codebook and the pixels.
        encoder: maps normalised pixels to vectors of the codebook's width.
        decoder: maps such vectors to normalised pixels.

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
        # Pixels live in [-1, 1] here and the statistics speak of [0, 1]. Computed by NumPy: to compute on the meta
        # device, PyTorch 2.13 imports its compiler, which takes longer than to draw a picture.
        mean, std = (np.asarray(each, np.float32) for each in (config.pixel_mean, config.pixel_std))
        self.register_buffer("pixel_mean", torch.from_numpy(2 * mean - 1).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.from_numpy(2 * std).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> AutoencoderOutput:
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
