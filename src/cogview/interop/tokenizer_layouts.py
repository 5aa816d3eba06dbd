"""Layouts of the image tokenizers that can be converted, recognised by the names of their tensors."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from cogview.errors import CogViewError
from cogview.interop.released_vqvae import convert_released_vqvae
from cogview.interop.vqgan_names import (
    GUMBEL,
    JANUS_OF_TRANSFORMERS,
    LLAMAGEN,
    TAMING,
    WAVELETS,
    convert_vqgan,
)
from cogview.interop.weights import ConvertedTokenizer, as_finite, layout_named

_TRAINING_ONLY = ("loss.", "model_ema.")


@dataclass(frozen=True, kw_only=True)
class TokenizerLayout:
    """Layout of an image tokenizer in the files of a project.

    Args:
        title: what a file of it is, for messages.
        holds: names of tensors that together tell the layout.
        convert: from tensors by name; raises `CogViewError`.
        prefixes: before all names, if the tokenizer is a part of a larger model.
        ignored: prefixes of names that encoding and decoding do not need.
    """

    title: str
    holds: tuple[str, ...]
    convert: Callable[[Mapping[str, Tensor]], ConvertedTokenizer]
    prefixes: tuple[str, ...] = ("",)
    ignored: tuple[str, ...] = ()


_FIRST_OF_TAMING = "encoder.down.0.block.0.conv1.weight"

_INVERSE = tuple(f"decoder.idwt.{band}_{axis}" for band in ("g0", "g1") for axis in ("col", "row"))
"""Filters of the wavelets' inverse transform."""


def _convert_wavelets(tensors: Mapping[str, Tensor]) -> ConvertedTokenizer:
    """Convert a Gumbel VQGAN whose decoder ends in Haar wavelets; arguments and errors are those of `convert_vqgan`."""
    for name in _INVERSE:
        if name in tensors and not bool(
            (as_finite(name, tensors[name]).float().abs() - 0.5**0.5).abs().max() < 1e-3
        ):
            raise CogViewError(f"{name} is no Haar filter of 0.7071 and -0.7071; its wavelets are others")
    own = {name: tensor for name, tensor in tensors.items() if name not in _INVERSE}
    return convert_vqgan(own, WAVELETS, decoder_output="wavelets")


LAYOUTS: tuple[TokenizerLayout, ...] = (
    TokenizerLayout(
        title="the image tokenizer released in 2021",
        holds=("quantize_t.embed", "enc_b.blocks.0.weight", "dec.blocks.0.weight"),
        convert=convert_released_vqvae,
        ignored=("quantize_t.cluster_size", "quantize_t.embed_avg"),
    ),
    TokenizerLayout(
        title="an image tokenizer of LlamaGen",
        holds=("encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight"),
        convert=partial(convert_vqgan, names=LLAMAGEN),
        ignored=("quantize.codebook_used",),
    ),
    TokenizerLayout(
        title="the image tokenizer of Janus",
        holds=("encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight"),
        convert=partial(convert_vqgan, names=LLAMAGEN),
        prefixes=("gen_vision_model.",),
        ignored=("quantize.codebook_used",),
    ),
    TokenizerLayout(
        title="the image tokenizer of Janus, in the layout of the package transformers",
        holds=(_FIRST_OF_TAMING, "quantize.embedding.weight"),
        convert=partial(convert_vqgan, names=JANUS_OF_TRANSFORMERS),
        prefixes=("model.vqmodel.", "vqmodel."),
        ignored=("quantize.codebook_used",),
    ),
    TokenizerLayout(
        title="the image tokenizer of Janus, in the layout of the package transformers",
        # Only a decoder that starts from the coarsest grid doubles its grid 0.
        holds=(_FIRST_OF_TAMING, "decoder.up.0.upsample.conv.weight", "quantize.embedding.weight"),
        convert=partial(convert_vqgan, names=JANUS_OF_TRANSFORMERS),
    ),
    TokenizerLayout(
        title="the VQGAN of ruDALL-E with wavelets",
        holds=(_FIRST_OF_TAMING, "decoder.decoder.conv_in.weight", "quantize.embed.weight"),
        convert=_convert_wavelets,
        prefixes=("", "model."),
        ignored=(*_TRAINING_ONLY, "post_quant_conv."),  # the decoder has its own
    ),
    TokenizerLayout(
        title="a Gumbel VQGAN of taming-transformers or ruDALL-E",
        holds=(_FIRST_OF_TAMING, "quantize.embed.weight"),
        convert=partial(convert_vqgan, names=GUMBEL),
        ignored=_TRAINING_ONLY,
    ),
    TokenizerLayout(
        title="a VQGAN of taming-transformers",
        holds=(_FIRST_OF_TAMING, "quantize.embedding.weight"),
        convert=partial(convert_vqgan, names=TAMING),
        ignored=_TRAINING_ONLY,
    ),
)


def find_layout(names: Collection[str]) -> tuple[TokenizerLayout, str] | None:
    """Return the layout of an image tokenizer among tensors, and the prefix of its names.

    Args:
        names: of all tensors of a checkpoint.
    """
    for layout in LAYOUTS:
        for prefix in layout.prefixes:
            if all(prefix + name in names for name in layout.holds):
                return layout, prefix
    return None


def convert_image_tokenizer(tensors: Mapping[str, Tensor]) -> ConvertedTokenizer | None:
    """Convert an image tokenizer of any known layout; None if there is none.

    Args:
        tensors: of a checkpoint, by name; those of a larger model's other parts are left out.

    Raises:
        CogViewError: a tensor is missing, unknown, not finite or of the wrong shape; names the layout.
    """
    found = find_layout(tensors.keys())
    if found is None:
        return None
    layout, prefix = found
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(layout.ignored)
    }
    with layout_named(layout.title):
        return replace(layout.convert(own), layout=layout.title)
