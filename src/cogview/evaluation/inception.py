"""Inception backbone of the published FID and IS: torch-fidelity's port, with weights from a file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from cogview.evaluation.backbone import IMPORT_ERRORS, Features, import_failure, reading_weights, weights_in

if TYPE_CHECKING:
    from torch import nn

POOLED, LOGITS = "2048", "logits_unbiased"


class Inception:
    """Inception as a backbone: 2,048 pooled features, and logits without bias.

    The network resizes pictures by itself as TensorFlow did, which is part of FID's definition.

    Args:
        network: torch-fidelity's `FeatureExtractorInceptionV3` for the features `2048` and `logits_unbiased`.
    """

    name = "inception"

    def __init__(self, network: "nn.Module") -> None:
        self._network = network

    def __call__(self, images: Float[Tensor, "b c y x"]) -> Features:
        """Return the features of images in [-1, 1], rounded to 8-bit pixels for the network."""
        pixels = ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        pooled, logits = self._network(pixels)
        return Features(pooled=pooled, maps=(), logits=logits)


def load_inception(path: Path, device: torch.device | str = "cpu") -> Inception:
    """Load Inception with the published weights.

    Args:
        path: `pt_inception-2015-12-05-6726825d.pth`, which torch-fidelity also calls `weights-inception-...`.
        device: device of the network.

    Raises:
        UsageError: torch-fidelity is not installed.
        CogViewError: the file cannot be read, or does not fit.
    """
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except IMPORT_ERRORS as error:
        raise import_failure("Inception needs the package torch-fidelity", "torch-fidelity", error) from error
    with reading_weights(path, "Inception", "pt_inception-2015-12-05-6726825d.pth"):
        # The network unpickles unsafely, so it gets a copy of weights that were read safely.
        safe = io.BytesIO()
        torch.save({name: torch.as_tensor(weight) for name, weight in weights_in(path).items()}, safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", [POOLED, LOGITS], feature_extractor_weights_path=safe
        )
    return Inception(network.to(device))
