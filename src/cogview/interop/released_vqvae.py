"""Conversion of the image tokenizer released in 2021, `vqvae_hard_biggerset_011.pt`, and others of its layout."""

import re
from collections.abc import Mapping

from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import VQVAEConfig
from cogview.interop.weights import ConvertedTokenizer, as_finite, converted, shape_of

_CODEBOOK = "quantize_t.embed"  # one code in each column
_CONVOLUTION = re.compile(r"(enc_b|dec)\.blocks\.(\d+)\.(weight|bias)")
_MODULES = {"enc_b": "encoder", "dec": "decoder"}


def convert_released_vqvae(tensors: Mapping[str, Tensor]) -> ConvertedTokenizer:
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
            weights[f"{_MODULES[match[1]]}.{match[2]}.{match[3]}"] = as_finite(name, tensor)
        elif name == _CODEBOOK:
            weights["quantizer.embed"] = as_finite(name, tensor).T
        else:
            raise CogViewError(f"it has no tensor {name}; is this another model?")
    return converted(config, weights)


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
