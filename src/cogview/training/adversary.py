"""The argument with a discriminator that trains whatever draws pictures, in the same loop as everything else."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from cogview.image.adversary import PatchDiscriminator, adaptive_weight, discriminator_hinge_loss

Perception = Callable[[Tensor, Tensor], Tensor]
"""Maps two batches of pictures [b c y x] in [-1, 1] to their perceptual distances [b]."""


class Adversary:
    """A discriminator, and the loss of both sides of the argument.

    Both sides are one loss with one backward pass: what draws hears the discriminator as it is, held still, and the
    discriminator sees the pictures as they are, held still. Both then take their step at once.

    Differs from the usual way: that lets the discriminator step second, and draws the pictures twice.

    Args:
        channels: width of the discriminator's first convolution.
        num_layers: halvings of the grid before its last two convolutions.
        seed: decides its initial weights.
    """

    def __init__(self, channels: int, num_layers: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = PatchDiscriminator(channels, num_layers)

    def argue(
        self,
        drawn: Float[Tensor, "b c y x"],
        real: Float[Tensor, "b c y x"],
        reconstruction: Float[Tensor, ""],
        last_layer: Tensor,
        weight: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of what draws, that of the discriminator, and what they are made of.

        Args:
            drawn: pictures in [-1, 1].
            real: what they should look like.
            reconstruction: the loss of pixels and perception, against which the argument is weighed.
            last_layer: the weight that writes the pixels.
            weight: on top of the adaptive one.
        """
        adversarial = -self._held_still(drawn).mean()
        weighed = weight * adaptive_weight(reconstruction, adversarial, last_layer)
        on_real, on_drawn = self.discriminator(real), self.discriminator(drawn.detach())
        arguing = discriminator_hinge_loss(on_real, on_drawn)
        return (
            weighed * adversarial,
            arguing,
            {
                "adversarial": adversarial.detach(),
                "adaptive_weight": weighed,
                "discriminator_hinge": arguing.detach(),
                "verdict_on_real": on_real.detach().mean(),
                "verdict_on_decoded": on_drawn.detach().mean(),
            },
        )

    def _held_still(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 r s"]:
        """Return the discriminator's verdict with a gradient for the pictures and none for itself."""
        weights = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        verdict: Tensor = functional_call(self.discriminator, weights, images)
        return verdict
