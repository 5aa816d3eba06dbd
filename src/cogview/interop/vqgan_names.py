"""VQGANs of other projects: one architecture under several sets of names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import CodebookMethod, VQGANConfig
from cogview.image.fingerprint import inference_weights
from cogview.image.tokenizer_folder import build_autoencoder
from cogview.image.vqgan import VQGAN
from cogview.interop.weights import INCOMPLETE, ConvertedTokenizer, as_finite, converted, shape_of
from cogview.tensors import MisfitError, build_to_fit

_PARTS = {
    "first_norm": "norm1",
    "first": "conv1",
    "second_norm": "norm2",
    "second": "conv2",
    "shortcut": "nin_shortcut",
    "norm": "norm",
    "query": "q",
    "key": "k",
    "value": "v",
    "output": "proj_out",
}


@dataclass(frozen=True, kw_only=True)
class VQGANNames:
    """Names of a VQGAN's weights in a layout; the defaults are those of taming-transformers.

    Args:
        encoder: prefix of the encoder.
        decoder: prefix of the decoder.
        encoder_grids: list of grids in the encoder, finest first.
        decoder_grids: list of grids in the decoder.
        decoder_starts: which of the decoder's grids is number 0.
        blocks: list of blocks of a grid.
        attentions: list of attentions of a grid.
        halving: convolution that halves a grid.
        doubling: convolution that doubles a grid.
        bottom: blocks at the coarsest grid, and the attention between them.
        parts: names in blocks and attentions by ours.
        first: first 3x3 convolution of a half.
        norm: last norm of a half.
        last: last 3x3 convolution of a half.
        to_vectors: convolution before the codebook.
        from_vectors: convolution after the codebook.
        quantizer: weights of the codebook by our names.
        codebook: how codes are chosen.
    """

    encoder: str = "encoder"
    decoder: str = "decoder"
    encoder_grids: str = "down"
    decoder_grids: str = "up"
    decoder_starts: Literal["finest", "coarsest"] = "finest"
    blocks: str = "block"
    attentions: str = "attn"
    halving: str = "downsample.conv"
    doubling: str = "upsample.conv"
    bottom: tuple[str, str, str] = ("mid.block_1", "mid.attn_1", "mid.block_2")
    parts: Mapping[str, str] = field(default_factory=lambda: _PARTS)
    first: str = "conv_in"
    norm: str = "norm_out"
    last: str = "conv_out"
    to_vectors: str = "quant_conv"
    from_vectors: str = "post_quant_conv"
    quantizer: Mapping[str, str] = field(
        default_factory=lambda: {"quantizer.embed": "quantize.embedding.weight"}
    )
    codebook: CodebookMethod = "nearest_neighbour"

    def theirs(self, ours: str, num_grids: int) -> str:
        """Return the layout's name of a weight.

        Args:
            ours: our name.
            num_grids: grids of the VQGAN.
        """
        if ours in self.quantizer:
            return self.quantizer[ours]
        module, _, kind = ours.rpartition(".")
        half, place, *rest = module.split(".")
        outside = {
            "encoder.to_vectors": self.to_vectors,
            "decoder.from_vectors": self.from_vectors,
            "encoder.from_pixels": f"{self.encoder}.{self.first}",
            "decoder.from_inner": f"{self.decoder}.{self.first}",
            "encoder.norm": f"{self.encoder}.{self.norm}",
            "decoder.norm": f"{self.decoder}.{self.norm}",
            "encoder.to_inner": f"{self.encoder}.{self.last}",
            "decoder.to_pixels": f"{self.decoder}.{self.last}",
        }
        if module in outside:
            return f"{outside[module]}.{kind}"
        prefix = self.encoder if half == "encoder" else self.decoder
        if place == "bottom":
            return f"{prefix}.{self.bottom[int(rest[0])]}.{self.parts[rest[1]]}.{kind}"
        grid = int(rest[0])
        if half == "decoder" and self.decoder_starts == "finest":  # ours starts from the coarsest
            grid = num_grids - 1 - grid
        prefix += f".{self.encoder_grids if half == 'encoder' else self.decoder_grids}.{grid}"
        if rest[1] == "resample":
            return f"{prefix}.{self.halving if half == 'encoder' else self.doubling}.{kind}"
        inner = self.blocks if rest[1] == "blocks" else self.attentions
        return f"{prefix}.{inner}.{rest[2]}.{self.parts[rest[3]]}.{kind}"


TAMING = VQGANNames()
LLAMAGEN = VQGANNames(
    encoder_grids="conv_blocks",
    decoder_grids="conv_blocks",
    decoder_starts="coarsest",
    blocks="res",
    bottom=("mid.0", "mid.1", "mid.2"),
    codebook="normalised",
)
JANUS_OF_TRANSFORMERS = replace(TAMING, decoder_starts="coarsest", codebook="normalised")
GUMBEL = replace(
    TAMING,
    quantizer={
        "quantizer.embed": "quantize.embed.weight",
        "quantizer.projection.weight": "quantize.proj.weight",
        "quantizer.projection.bias": "quantize.proj.bias",
    },
    codebook="projected",
)
WAVELETS = replace(GUMBEL, decoder="decoder.decoder", from_vectors="decoder.post_quant_conv")


def convert_vqgan(tensors: Mapping[str, Tensor], names: VQGANNames, **known: Any) -> ConvertedTokenizer:
    """Convert a VQGAN; its shape follows from the weights.

    Args:
        tensors: of the VQGAN alone, by name.
        names: of the layout.
        known: fields of `VQGANConfig` that no shape tells.

    Raises:
        CogViewError: a tensor is missing, unknown, not finite or of the wrong shape.
    """
    config = vqgan_config(tensors, names, **known)
    num_grids = len(config.channel_factors)

    def wanted(model: VQGAN) -> dict[str, Tensor]:
        weights = {names.theirs(ours, num_grids): tensor for ours, tensor in inference_weights(model).items()}
        return {name: _as_stored(tensor, tensors.get(name)) for name, tensor in weights.items()}

    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        model = build_to_fit(lambda: _build(config), config.num_blocks_in_all, found, wanted)
    except MisfitError as error:
        raise CogViewError(f"the tensors do not fit together ({error}); {INCOMPLETE}") from error
    weights: dict[str, Tensor] = {}
    for ours, tensor in inference_weights(model).items():
        name = names.theirs(ours, num_grids)
        weights[ours] = as_finite(name, tensors[name]).reshape(tensor.shape)
    return converted(config, weights)


def vqgan_config(tensors: Mapping[str, Tensor], names: VQGANNames, **known: Any) -> VQGANConfig:
    """Return a VQGAN's configuration by its weights' shapes; arguments are those of `convert_vqgan`.

    Raises:
        CogViewError: a tensor is missing, or no VQGAN has such shapes.
    """

    def name_of(ours: str) -> str:
        return names.theirs(ours, 0)  # the encoder's and those outside of grids need no number

    def count(ours: str) -> int:
        number = 0
        while name_of(ours.format(number)) in tensors:
            number += 1
        return number

    channels = shape_of(tensors, name_of("encoder.from_pixels.weight"), 4)[0]
    num_grids = count("encoder.grids.{}.blocks.0.first.weight")
    widths = [
        shape_of(tensors, name_of(f"encoder.grids.{grid}.blocks.0.first.weight"), 4)[0]
        for grid in range(num_grids)
    ]
    if not widths or any(width % channels for width in widths):
        raise CogViewError(
            f"the grids have {widths or 'no'} channels, and wanted are multiples of {channels}, those of the first "
            f"convolution; {INCOMPLETE}"
        )
    num_codes, code_size = shape_of(tensors, name_of("quantizer.embed"), 2)
    return VQGANConfig(
        num_codes=num_codes,
        code_size=code_size,
        codebook=names.codebook,
        channels=channels,
        channel_factors=tuple(width // channels for width in widths),
        num_blocks=count("encoder.grids.0.blocks.{}.first.weight"),
        attention_grids=tuple(
            grid
            for grid in range(num_grids)
            if name_of(f"encoder.grids.{grid}.attentions.0.query.weight") in tensors
        ),
        bottom_attentions=int(name_of("encoder.bottom.1.query.weight") in tensors),
        inner_size=shape_of(tensors, name_of("encoder.to_inner.weight"), 4)[0],
        **known,
    )


def _build(config: VQGANConfig) -> VQGAN:
    model = build_autoencoder(config)
    assert isinstance(model, VQGAN)
    return model


def _as_stored(wanted: Tensor, stored: Tensor | None) -> Tensor:
    """Return the shape of a 1x1 convolution as that of a linear map, or the reverse, if it is stored so."""
    if stored is None or {wanted.ndim, stored.ndim} != {2, 4}:
        return wanted
    if wanted.ndim == 2:
        return wanted[..., None, None]
    return wanted.flatten(1) if wanted.shape[2:] == (1, 1) else wanted
