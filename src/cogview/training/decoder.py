"""Training task of a decoder for a fixed image tokenizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.data.loader import batch_indices
from cogview.errors import UsageError
from cogview.image.decoder import RefiningDecoder
from cogview.image.decoder_config import DecoderConfig
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from cogview.training.adversary import Adversary, Perception
from cogview.training.image_tokenizer import Images, means_over_pictures
from cogview.training.task import Batch, Metrics, Scalars


class DecoderTask:
    """Training task of a decoder, its discriminator, and pictures at each of its scales.

    Pictures are encoded at scale 1 by the frozen encoder and codebook. Steps take the scales in turn.

    Args:
        config: shape, loss weights, and start of the discriminator.
        tokenizer: makes the codes.
        images: the same pictures by scale: uint8 [n y x c] at scale 1, and larger by that factor at other scales.
        seed: of the initial weights, the order of pictures and the windows of perceptual and adversarial losses.
        batch_size: pictures per step.
        perception: the frozen perceptual distance; None leaves it out.

    Raises:
        UsageError: the decoder does not fit the tokenizer, or the pictures do not fit each other.

    Paper: section 2.1; the losses are those of the VQGAN of section 3.4.
    """

    channels_last = True

    def __init__(
        self,
        config: DecoderConfig,
        tokenizer: ImageTokenizer,
        images: Mapping[int, Images],
        *,
        seed: int,
        batch_size: int,
        perception: Perception | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = tokenizer.new_decoder(config)
        if len({len(each) for each in images.values()}) != 1 or not {1, *config.scales} <= set(images):
            counts = {scale: len(each) for scale, each in images.items()}
            raise UsageError(f"the same pictures are needed at scale 1 and at {config.scales}, got {counts}")
        self.config, self.tokenizer, self.images = config, tokenizer, dict(images)
        self.seed, self.batch_size, self.perception = seed, batch_size, perception
        self.adversary = Adversary(config.discriminator_channels, config.discriminator_layers, seed + 1)
        self.module: nn.Module = nn.ModuleDict(
            {"decoder": self.decoder, "discriminator": self.adversary.discriminator}
        )

    def batch(self, step: int) -> Batch:
        """Return a step's pictures as uint8, at scale 1 and at the step's scale."""
        indices = batch_indices(self.seed, step, self.batch_size, len(self.images[1]))
        scale = self.config.scales[step % len(self.config.scales)]
        encoded, wanted = (
            torch.from_numpy(np.stack([self.images[each][int(index)] for index in indices])).permute(
                0, 3, 1, 2
            )
            for each in (1, scale)
        )
        sides = np.asarray(wanted.shape[2:])
        random = np.random.Generator(np.random.PCG64([self.seed, step]))
        corners = random.integers(0, sides - self._window(sides) + 1, size=(self.batch_size, 2))
        is_seen, is_heard = (
            torch.full((self.batch_size,), step >= start)
            for start in (self.config.perceptual_start_step, self.config.discriminator_start_step)
        )
        return {
            "encoded": encoded,
            "wanted": wanted,
            "corners": torch.from_numpy(corners),
            "is_seen": is_seen,
            "is_heard": is_heard,
        }

    def _window(self, sides: Any) -> Any:
        """Return the sides of the perceptual and adversarial window."""
        return np.minimum(sides, self.config.judged_pixels)

    def num_items(self, batch: Batch) -> tuple[int, str]:
        """Return the number of pictures."""
        return len(batch["wanted"]), "images"

    def work(self, batch: Batch) -> dict[str, float]:
        """Return nothing: there are only pictures to count."""
        return {}

    def telemetry(self, batch: Batch) -> Scalars:
        """Return nothing: all metrics come from the loss."""
        return {}

    def after_step(self, step: int) -> Scalars:
        """Do nothing: all state is learnt by gradient."""
        return {}

    def advice(self, completed_steps: int, metrics: Mapping[str, float]) -> list[str]:
        """Return nothing."""
        return []

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the sum of both sides' losses, and metrics."""
        config = self.config
        real = as_float(batch["wanted"])
        scale = real.shape[-1] // batch["encoded"].shape[-1]
        codes, vectors, drawing = self._decoded(as_float(batch["encoded"]))
        drawn = self.decoder(codes, vectors, drawing, [scale], even_ground=False)[scale]
        loss, metrics = torch.zeros((), device=real.device), {}
        for name, weight, error_of in (
            ("l2", config.l2_weight, F.mse_loss),
            ("l1", config.l1_weight, F.l1_loss),
            ("edge", config.edge_weight, edge_error),
        ):
            if weight:
                error = error_of(drawn, real)
                loss, metrics[name] = loss + weight * error, error.detach()
        shown = self.decoder.with_even_ground(drawn, drawing)
        metrics[f"psnr_x{scale}"] = mean_psnr(shown.detach(), real)
        seen, wanted = (self._windows(each, batch["corners"]) for each in (shown, real))
        if self.perception is not None and config.perceptual_weight and bool(batch["is_seen"][0]):
            perceived = config.perceptual_weight * self.perception(seen, wanted).mean()
            loss = loss + perceived
            metrics["perceptual"] = perceived.detach()
        if bool(batch["is_heard"][0]) and config.discriminator_weight:
            adversarial_loss, discriminator_loss, adversarial_metrics = self.adversary.losses(
                seen, wanted, loss, self.decoder.last_layer, config.discriminator_weight
            )
            loss, metrics = loss + adversarial_loss + discriminator_loss, metrics | adversarial_metrics
        return loss, means_over_pictures(metrics, len(real))

    @torch.no_grad()
    def _decoded(self, images: Float[Tensor, "b c y x"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the codes, their vectors, and the tokenizer's own decoding."""
        self.tokenizer.autoencoder.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self.tokenizer.first_drawing(self.tokenizer.encode(images))

    def _windows(
        self, images: Float[Tensor, "b c y x"], corners: Int64[Tensor, "b 2"]
    ) -> Float[Tensor, "b c _ _"]:
        """Return a window of each picture."""
        height, width = self._window(images.shape[2:]).tolist()
        return torch.stack(
            [
                image[:, row : row + height, column : column + width]
                for image, (row, column) in zip(images, corners.tolist(), strict=True)
            ]
        )

    def trained(self) -> RefiningDecoder:
        """Return a copy of the current decoder on the CPU."""
        copy = self.tokenizer.new_decoder(self.config)
        copy.load_state_dict(self.decoder.state_dict())
        return copy


def edge_error(drawn: Float[Tensor, "b c y x"], real: Float[Tensor, "b c y x"]) -> Float[Tensor, ""]:
    """Return the mean absolute error of differences between vertical and horizontal neighbours."""
    error = drawn - real
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def mean_psnr(drawn: Float[Tensor, "b c y x"], real: Float[Tensor, "b c y x"]) -> Float[Tensor, ""]:
    """Return the mean PSNR of pictures in [-1, 1], in dB."""
    # Half the difference: PSNR is defined on [0, 1], half as wide as [-1, 1].
    squared = ((drawn.clamp(-1.0, 1.0) - real) / 2.0).square().mean((1, 2, 3))
    return -10.0 * squared.clamp_min(1e-10).log10().mean()
