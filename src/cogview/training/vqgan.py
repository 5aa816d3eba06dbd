"""Training task of a VQGAN, stage 1 for one domain, with its discriminator."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cogview.image.config import VQGANConfig
from cogview.image.pixels import as_float
from cogview.image.vqgan import VQGAN
from cogview.training.adversary import Adversary, Perception
from cogview.training.image_tokenizer import Images, ImageTokenizerTask, means_over_pictures
from cogview.training.task import Batch, Metrics


class VQGANTask(ImageTokenizerTask):
    """Training task of a VQGAN, its discriminator and pictures.

    Args:
        config: shapes, loss weights, and start of the discriminator.
        images: pictures of one size, with sides that are multiples of the downsampling factor.
        seed: of the initial weights and the order of the pictures.
        batch_size: pictures per step.
        perception: the frozen perceptual distance; None leaves it out.

    Paper: section 3.4.
    """

    def __init__(
        self,
        config: VQGANConfig,
        images: Images,
        *,
        seed: int,
        batch_size: int,
        perception: Perception | None = None,
    ):
        super().__init__(config, images, seed=seed, batch_size=batch_size)
        assert isinstance(self.autoencoder, VQGAN)
        self.vqgan = self.autoencoder
        self.adversary = Adversary(config.discriminator_channels, config.discriminator_layers, seed + 1)
        self.discriminator = self.adversary.discriminator
        # One module, so that a checkpoint holds both and their optimizer states.
        self.module = nn.ModuleDict({"vqgan": self.vqgan, "discriminator": self.discriminator})
        self.vqgan_config = config
        self.perception = perception

    def batch(self, step: int) -> Batch:
        """Return the pictures of a step, and for each whether the discriminator has started."""
        batch = super().batch(step)
        has_started = torch.full((self.batch_size,), step >= self.vqgan_config.discriminator_start_step)
        return {**batch, "has_started": has_started}

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the sum of both sides' losses, and metrics."""
        images, config = as_float(batch["images"]), self.vqgan_config
        output = self.reconstruct(images)
        loss, metrics, num_pictures = output.loss, dict(output.metrics), len(images)
        reconstruction = config.l1_weight * output.l1 + config.l2_weight * output.l2
        if self.perception is not None and config.perceptual_weight:
            perceived = config.perceptual_weight * self.perception(output.reconstruction, images).mean()
            reconstruction, loss = reconstruction + perceived, loss + perceived
            metrics["perceptual"] = perceived.detach()
        if not bool(batch["has_started"][0]):
            return loss, means_over_pictures(metrics, num_pictures)
        adversarial_loss, discriminator_loss, adversarial_metrics = self.adversary.losses(
            output.reconstruction, images, reconstruction, self.vqgan.last_layer, config.discriminator_weight
        )
        return loss + adversarial_loss + discriminator_loss, means_over_pictures(
            metrics | adversarial_metrics, num_pictures
        )
