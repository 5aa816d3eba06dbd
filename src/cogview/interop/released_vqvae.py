"""Conversion of the image tokenizer released in 2021, `vqvae_hard_biggerset_011.pt`, and others of its layout."""

import re
from collections.abc import Mapping

from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.weights import as_float, build_image_tokenizer, shape_of

_CODEBOOK = "quantize_t.embed"  # one code in each column
_TRAINING_ONLY = ("quantize_t.cluster_size", "quantize_t.embed_avg")
_CONVOLUTION = re.compile(r"(enc_b|dec)\.blocks\.(\d+)\.(weight|bias)")
_MODULES = {"enc_b": "encoder", "dec": "decoder"}


def is_released_vqvae(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of the released image tokenizer."""
    return _CODEBOOK in tensors and "enc_b.blocks.0.weight" in tensors and "dec.blocks.0.weight" in tensors


def convert_released_vqvae(tensors: Mapping[str, Tensor]) -> ImageTokenizer:
    """Convert weights of the released layout.

    Sizes follow from the weights; pixel statistics are the release's.

    Args:
        tensors: by name.

    Raises:
        CogViewError: a tensor is missing, unknown, not finite or of the wrong shape.
    """
    config = _config_of(tensors)
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _CONVOLUTION.fullmatch(name):
            weights[f"{_MODULES[match[1]]}.{match[2]}.{match[3]}"] = as_float(name, tensor)
        elif name == _CODEBOOK:
            weights["quantizer.embed"] = as_float(name, tensor).T.contiguous()
        elif name not in _TRAINING_ONLY:
            raise CogViewError(f"the released image tokenizer has no tensor {name}; is this another model?")
    return build_image_tokenizer(config, weights)


def _config_of(tensors: Mapping[str, Tensor]) -> VQVAEConfig:
    """Return the configuration by the weights' shapes, otherwise the release's."""
    code_size, num_codes = shape_of(tensors, _CODEBOOK, 2)
    # Convolutions alternate with ReLUs, and the last one keeps the resolution.
    convolutions = sorted(
        (match[1], int(match[2]), name)
        for name in tensors
        if (match := _CONVOLUTION.fullmatch(name)) and match[3] == "weight"
    )
    widths = {
        module: tuple(shape_of(tensors, name, 4)[axis] for part, _, name in convolutions if part == module)[
            :-1
        ]
        for module, axis in (("enc_b", 0), ("dec", 1))
    }
    num_halvings = len(widths["enc_b"])
    return VQVAEConfig(
        num_codes=num_codes,
        code_size=code_size,
        encoder_channels=widths["enc_b"],
        encoder_blocks=(0,) * num_halvings,
        decoder_channels=widths["dec"],
        decoder_blocks=(0,) * len(widths["dec"]),
    )
