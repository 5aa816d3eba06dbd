"""Conversion of VQGANs in their original layout, `encoder.down.0.block.0.conv1.weight` and so on."""

import re
from collections.abc import Mapping

from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import VQGANConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.weights import as_float, build_image_tokenizer, shape_of

_CODEBOOK = "quantize.embedding.weight"
_FIRST_BLOCK = "encoder.down.0.block.0.conv1.weight"
_TRAINING_ONLY = ("loss.", "model_ema.")
_PARTS = {
    "norm1": "first_norm",
    "conv1": "first",
    "norm2": "second_norm",
    "conv2": "second",
    "nin_shortcut": "shortcut",
    "q": "query",
    "k": "key",
    "v": "value",
    "proj_out": "output",
    "norm": "norm",
}
_BOTTOM = {"block_1": 0, "attn_1": 1, "block_2": 2}
_LISTS = {"block": "blocks", "attn": "attentions"}
_OUTSIDE = {
    "quant_conv": "encoder.to_vectors",
    "post_quant_conv": "decoder.from_vectors",
    "encoder.conv_in": "encoder.from_pixels",
    "encoder.norm_out": "encoder.norm",
    "encoder.conv_out": "encoder.to_inner",
    "decoder.conv_in": "decoder.from_inner",
    "decoder.norm_out": "decoder.norm",
    "decoder.conv_out": "decoder.to_pixels",
}
_OF_A_GRID = re.compile(r"(?:encoder\.down|decoder\.up)\.(\d+)\.(block|attn)\.(\d+)\.(\w+)")
_RESAMPLE = re.compile(r"(?:encoder\.down|decoder\.up)\.(\d+)\.(?:downsample|upsample)\.conv")
_OF_THE_BOTTOM = re.compile(r"(encoder|decoder)\.mid\.(block_1|attn_1|block_2)\.(\w+)")


def is_taming_vqgan(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of a published VQGAN."""
    return {_CODEBOOK, _FIRST_BLOCK, "post_quant_conv.weight"} <= tensors.keys()


def convert_taming_vqgan(tensors: Mapping[str, Tensor]) -> ImageTokenizer:
    """Convert weights of the published layout.

    Sizes follow from the weights. Those of training alone, `loss.` and moving averages, are dropped.

    Args:
        tensors: by name.

    Raises:
        CogViewError: a tensor is missing, unknown, not finite or of the wrong shape.
    """
    inference = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRAINING_ONLY)}
    config = _config_of(inference)
    num_grids = len(config.channel_factors)
    weights = {_our_name(name, num_grids): as_float(name, value) for name, value in inference.items()}
    return build_image_tokenizer(config, weights)


def _config_of(tensors: Mapping[str, Tensor]) -> VQGANConfig:
    """Return the configuration by the weights' shapes."""
    channels = shape_of(tensors, "encoder.conv_in.weight", 4)[0]
    num_grids = _count(tensors, "encoder.down.{}.block.0.conv1.weight")
    widths = [
        shape_of(tensors, f"encoder.down.{grid}.block.0.conv1.weight", 4)[0] for grid in range(num_grids)
    ]
    if not widths or any(width % channels for width in widths):
        raise CogViewError(
            f"a VQGAN of widths {widths} is not one that can be told by multiples of {channels} channels"
        )
    num_codes, code_size = shape_of(tensors, _CODEBOOK, 2)
    return VQGANConfig(
        num_codes=num_codes,
        code_size=code_size,
        channels=channels,
        channel_factors=tuple(width // channels for width in widths),
        num_blocks=_count(tensors, "encoder.down.0.block.{}.conv1.weight"),
        attention_grids=tuple(
            grid for grid in range(num_grids) if f"encoder.down.{grid}.attn.0.q.weight" in tensors
        ),
        inner_size=shape_of(tensors, "encoder.conv_out.weight", 4)[0],
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Count the names of a pattern for 0, 1, 2, ..."""
    number = 0
    while pattern.format(number) in tensors:
        number += 1
    return number


def _our_name(name: str, num_grids: int) -> str:
    """Return our name of a weight of the published layout.

    Raises:
        CogViewError: the weight is unknown.
    """
    if name == _CODEBOOK:
        return "quantizer.embed"
    module, _, kind = name.rpartition(".")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{kind}"
    half = name.split(".")[0]
    if (match := _OF_A_GRID.fullmatch(module)) and match[4] in _PARTS:
        grid = _grid(half, int(match[1]), num_grids)
        return f"{half}.grids.{grid}.{_LISTS[match[2]]}.{match[3]}.{_PARTS[match[4]]}.{kind}"
    if match := _RESAMPLE.fullmatch(module):
        return f"{half}.grids.{_grid(half, int(match[1]), num_grids)}.resample.convolution.{kind}"
    if (match := _OF_THE_BOTTOM.fullmatch(module)) and match[3] in _PARTS:
        return f"{half}.bottom.{_BOTTOM[match[2]]}.{_PARTS[match[3]]}.{kind}"
    raise CogViewError(f"a VQGAN of the published layout has no tensor {name}; is this another model?")


def _grid(half: str, number: int, num_grids: int) -> int:
    """Return our index of a grid: the decoder's start from the coarsest."""
    return number if half == "encoder" else num_grids - 1 - number
