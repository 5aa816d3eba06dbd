"""Patch discriminator with its loss and adaptive weight."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

MAX_CHANNEL_FACTOR = 8
MAX_GROUPS = 8
MAX_ADAPTIVE_WEIGHT = 1e4


class PatchDiscriminator(nn.Module):
    """Classifier of patches as real (above 0) or decoded (below).

    Differs from the usual PatchGAN: GroupNorm instead of BatchNorm, so that pictures are independent and the batch may
    have any size.

    Args:
        channels: width of the first convolution.
        num_layers: halvings of the grid before the last two convolutions; 3 give patches of 70 pixels.
    """

    def __init__(self, channels: int, num_layers: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for index in range(1, num_layers + 1):
            wider = channels * min(2**index, MAX_CHANNEL_FACTOR)
            stride = 2 if index < num_layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(math.gcd(channels, MAX_GROUPS), wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        layers.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 1 r s"]:
        """Return the score of each patch of images in [-1, 1]."""
        return self.layers(images)


def discriminator_hinge_loss(
    on_real: Float[Tensor, "b 1 r s"], on_decoded: Float[Tensor, "b 1 r s"]
) -> Float[Tensor, ""]:
    """Return the hinge loss of scores: above 1 on real pictures, below -1 on decoded ones."""
    return (F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_decoded).mean()) / 2.0


def adaptive_weight(
    reconstruction_loss: Float[Tensor, ""], adversarial_loss: Float[Tensor, ""], last_layer: Tensor
) -> Float[Tensor, ""]:
    """Return the weight at which both losses have equal gradients at the last layer.

    Args:
        reconstruction_loss: pixel and perceptual losses.
        adversarial_loss: of the generator.
        last_layer: weight of the decoder's last layer.
    """
    reconstruction, adversarial = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction_loss, adversarial_loss)
    )
    return (reconstruction / (adversarial + 1e-4)).clamp(0.0, MAX_ADAPTIVE_WEIGHT).detach()
