"""Conversion of VQModel folders of diffusers."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.image.config import VQGANConfig
from cogview.interop.vqgan_names import TAMING, convert_vqgan, vqgan_config
from cogview.interop.weights import ConvertedTokenizer, layout_named

VQMODEL = "VQModel"
TITLE = "a VQModel of diffusers"

PixelRange = Literal["unit", "symmetric"]
"""Of the network's pixels: [0, 1] or [-1, 1]."""

_DIFFUSERS = replace(
    TAMING,
    encoder_grids="down_blocks",
    decoder_grids="up_blocks",
    decoder_starts="coarsest",
    blocks="resnets",
    attentions="attentions",
    halving="downsamplers.0.conv",
    doubling="upsamplers.0.conv",
    bottom=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    parts={
        **TAMING.parts,
        "shortcut": "conv_shortcut",
        "norm": "group_norm",
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "output": "to_out.0",
    },
    norm="conv_norm_out",
)
_BEFORE_0_17 = replace(
    _DIFFUSERS,
    parts={**_DIFFUSERS.parts, "query": "query", "key": "key", "value": "value", "output": "proj_attn"},
)

_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 3,
    "num_vq_embeddings": 256,
    "vq_embed_dim": None,
    "norm_num_groups": 32,
    "norm_type": "group",
    "mid_block_add_attention": True,
    "lookup_from_codebook": False,
}
"""Values of fields that older files lack."""

_FIXED = ("in_channels", "out_channels", "act_fn", "norm_type")
"""Fields of which only the default is supported."""

_IGNORED = ("sample_size", "scaling_factor", "force_upcast")
"""Fields that have nothing to do with codes and pixels."""

_BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}
_PIXELS: dict[PixelRange, dict[str, tuple[float, float, float]]] = {
    "unit": {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)},
    "symmetric": {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.5, 0.5)},
}


def is_vqmodel(names: Collection[str]) -> bool:
    """Return whether tensors have the names of a VQModel, whose configuration lies in a file beside them."""
    return {"encoder.down_blocks.0.resnets.0.conv1.weight", "quantize.embedding.weight"} <= set(names)


def convert_vqmodel(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], pixel_range: PixelRange | None
) -> ConvertedTokenizer:
    """Convert a VQModel.

    Args:
        tensors: by name.
        config: untrusted content of its config.json.
        pixel_range: of the network's pixels; by default [0, 1] if it says lookup_from_codebook.

    Raises:
        CogViewError: the configuration is unsupported or contradicts the tensors; a tensor is missing, unknown, not
            finite or of the wrong shape.
        UsageError: `pixel_range` is needed.
    """
    with layout_named(TITLE):
        fields = _fields(config)
    pixel_range = pixel_range or ("unit" if fields["lookup_from_codebook"] is True else None)
    if pixel_range is None:
        raise UsageError(
            f"{TITLE}: config.json does not tell the range of its pixels: give --pixel-range symmetric for [-1, 1] "
            "(latent diffusion, VQ-Diffusion), or unit for [0, 1] (aMUSEd, Meissonic)"
        )
    names = _BEFORE_0_17 if any(".proj_attn." in name for name in tensors) else _DIFFUSERS
    known: dict[str, Any] = {"norm_groups": fields["norm_num_groups"], **_PIXELS[pixel_range]}
    with layout_named(TITLE):
        _compare(fields, vqgan_config(tensors, names, **known))
        return replace(convert_vqgan(tensors, names, **known), layout=TITLE)


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration, with the defaults of those that it lacks.

    Raises:
        CogViewError: a field or its value is unsupported.
    """
    known = {*_DEFAULTS, *_BLOCKS, *_IGNORED}
    for name in config:
        if name not in known and not name.startswith("_"):
            raise CogViewError(f"config.json has the unknown field {name[:80]}")
    fields = _DEFAULTS | {name: value for name, value in config.items() if name in known}
    for name in _FIXED:
        if fields[name] != _DEFAULTS[name]:
            raise CogViewError(
                f"config.json has {name} {str(fields[name])[:80]!r}, and only {_DEFAULTS[name]!r} is supported"
            )
    groups = fields["norm_num_groups"]
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise CogViewError(f"config.json has norm_num_groups {str(groups)[:80]}, wanted a number of groups")
    return fields


def _compare(fields: Mapping[str, Any], found: VQGANConfig) -> None:
    """Compare what config.json says with the weights.

    Raises:
        CogViewError: they differ, or a type of block is unsupported.
    """
    num_grids = len(found.channel_factors)
    for name, (without, with_attention) in _BLOCKS.items():
        order = range(num_grids) if name == "down_block_types" else reversed(range(num_grids))
        types = [with_attention if grid in found.attention_grids else without for grid in order]
        said = fields.get(name, [without])
        if said != types:
            raise CogViewError(f"config.json has {name} {str(said)[:200]}, and the weights are of {types}")
    shapes = {
        "block_out_channels": [found.channels * factor for factor in found.channel_factors],
        "layers_per_block": found.num_blocks,
        "latent_channels": found.inner_size,
        "num_vq_embeddings": found.num_codes,
        "vq_embed_dim": found.code_size,
        "mid_block_add_attention": bool(found.bottom_attentions),
    }
    for name, value in shapes.items():
        said = fields["latent_channels"] if name == "vq_embed_dim" and fields[name] is None else fields[name]
        if said != value:
            raise CogViewError(f"config.json has {name} {str(said)[:200]}, and the weights have {value}")
