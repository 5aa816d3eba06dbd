"""Adversarial training of a decoder against a discriminator."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from cogview.image.adversary import PatchDiscriminator, adaptive_weight, discriminator_hinge_loss

Perception = Callable[[Tensor, Tensor], Tensor]
"""Perceptual distances [b] of two batches of pictures [b c y x] in [-1, 1]."""


class Adversary:
    """A discriminator, and the adversarial losses of both sides.

    Both sides share one backward pass and step together: the decoder's loss holds the discriminator fixed, and the
    discriminator's holds the pictures fixed.

    Differs from common practice, where the discriminator steps second and the pictures are decoded twice.

    Args:
        channels: width of the discriminator's first convolution.
        num_layers: halvings of the grid before its last two convolutions.
        seed: of its initial weights.
    """

    def __init__(self, channels: int, num_layers: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = PatchDiscriminator(channels, num_layers)

    def losses(
        self,
        drawn: Float[Tensor, "b c y x"],
        real: Float[Tensor, "b c y x"],
        reconstruction: Float[Tensor, ""],
        last_layer: Tensor,
        weight: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], dict[str, Tensor]]:
        """Return the decoder's adversarial loss, the discriminator's loss, and metrics.

        Args:
            drawn: decoded pictures in [-1, 1].
            real: their targets.
            reconstruction: pixel and perceptual loss, to balance the adversarial loss with.
            last_layer: weight of the layer that outputs pixels.
            weight: factor on top of the adaptive one.
        """
        adversarial = -self._held_still(drawn).mean()
        total_weight = weight * adaptive_weight(reconstruction, adversarial, last_layer)
        on_real, on_drawn = self.discriminator(real), self.discriminator(drawn.detach())
        discriminator_loss = discriminator_hinge_loss(on_real, on_drawn)
        return (
            total_weight * adversarial,
            discriminator_loss,
            {
                "adversarial": adversarial.detach(),
                "adaptive_weight": total_weight,
                "discriminator_hinge": discriminator_loss.detach(),
                "verdict_on_real": on_real.detach().mean(),
                "verdict_on_decoded": on_drawn.detach().mean(),
            },
        )

    def _held_still(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 r s"]:
        """Return the discriminator's logits with a gradient for the pictures only."""
        weights = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        verdict: Tensor = functional_call(self.discriminator, weights, images)
        return verdict
