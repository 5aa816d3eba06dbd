"""Stage 1 for one domain: a VQGAN against its discriminator, in the same loop as everything else."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from cogview.image.adversary import PatchDiscriminator, adaptive_weight, discriminator_hinge_loss
from cogview.image.config import VQGANConfig
from cogview.image.pixels import as_float
from cogview.image.vqgan import VQGAN
from cogview.training.image_tokenizer import Images, ImageTokenizerTask, means_over_pictures
from cogview.training.task import Batch, Metrics

Perception = Callable[[Tensor, Tensor], Tensor]
"""Maps two batches of pictures [b c y x] in [-1, 1] to their perceptual distances [b]."""


class VQGANTask(ImageTokenizerTask):
    """Show the training loop a VQGAN, its discriminator and its pictures.

    Both sides of the argument are one loss with one backward pass: the VQGAN hears the discriminator as it is, held
    still, and the discriminator sees the decoded pictures as they are, held still. Both then take their step at once.

    Differs from the usual way: that lets the discriminator step after the VQGAN has, and decodes the pictures twice.

    Args:
        config: shapes, weights of the losses, and when the discriminator starts.
        images: pictures of one size, whose sides are multiples of the downsampling factor.
        seed: decides the initial weights and the order of the pictures.
        batch_size: pictures a step.
        perception: the perceptual distance, held still; None leaves it out.

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.discriminator = PatchDiscriminator(
                config.discriminator_channels, config.discriminator_layers
            )
        # In one module, so that a checkpoint holds both, and both optimizers' state.
        self.module = nn.ModuleDict({"vqgan": self.vqgan, "discriminator": self.discriminator})
        self.vqgan_config = config
        self.perception = perception

    def batch(self, step: int) -> Batch:
        """Return the pictures of a step, and whether the discriminator has started by then, for each of them."""
        batch = super().batch(step)
        has_started = torch.full((self.batch_size,), step >= self.vqgan_config.discriminator_start_step)
        return {**batch, "has_started": has_started}

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return both sides' losses in one, and what they are made of."""
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
        adversarial = -self._held_still(output.reconstruction).mean()
        weight = config.discriminator_weight * adaptive_weight(
            reconstruction, adversarial, self.vqgan.last_layer
        )
        on_real, on_decoded = self.discriminator(images), self.discriminator(output.reconstruction.detach())
        arguing = discriminator_hinge_loss(on_real, on_decoded)
        metrics |= {
            "adversarial": adversarial.detach(),
            "adaptive_weight": weight,
            "discriminator_hinge": arguing.detach(),
            "verdict_on_real": on_real.detach().mean(),
            "verdict_on_decoded": on_decoded.detach().mean(),
        }
        return loss + weight * adversarial + arguing, means_over_pictures(metrics, num_pictures)

    def _held_still(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 r s"]:
        """Return the discriminator's verdict with a gradient for the pictures and none for itself."""
        weights = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        verdict: Tensor = functional_call(self.discriminator, weights, images)
        return verdict
