"""Layout of the transformers released in 2021: vocabulary, tensor names, model parallelism."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(num_image_codes=8192, num_text_pieces=50_000)
TEMPLATE = TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=32, grid_columns=32, max_text_pieces=60)
"""Of pretraining, with 1,088 tokens; the released models have one more position."""
CAPTION_TEMPLATE = CaptionTemplate.of(TEMPLATE)
SUPER_RESOLUTION_TEMPLATE = SuperResolutionTemplate.of(
    replace(TEMPLATE, grid_rows=16, grid_columns=16), released=True
)

_OUTSIDE = {
    "word_embeddings": "embedding.tokens",
    "transformer.position_embeddings": "embedding.positions",
    "transformer.final_layernorm": "final_norm",
}
_IN_A_LAYER = {
    "input_layernorm": "attention_input_norm",
    "attention.query_key_value": "attention.query_key_value",
    "attention.dense": "attention.output",
    "third_layernorm": "attention_output_norm",
    "post_attention_layernorm": "mlp_input_norm",
    "mlp.dense_h_to_4h": "mlp.inner",
    "mlp.dense_4h_to_h": "mlp.output",
    "fourth_layernorm": "mlp_output_norm",
}
_LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.+)")
_OUR_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")
_RELEASED_OUTSIDE = {ours: theirs for theirs, ours in _OUTSIDE.items()}
_RELEASED_IN_A_LAYER = {ours: theirs for theirs, ours in _IN_A_LAYER.items()}

EMBEDDING = "word_embeddings.weight"
POSITIONS = "transformer.position_embeddings.weight"
FINAL_NORM = "transformer.final_layernorm.weight"
FIRST_QUERY_KEY_VALUE = "transformer.layers.0.attention.query_key_value.weight"
FIRST_MLP = "transformer.layers.0.mlp.dense_h_to_4h.weight"


def layer_number(name: str) -> int | None:
    """Return the layer of a released name; None outside of the layers."""
    match = _LAYER.fullmatch(name)
    return int(match[1]) if match else None


def released_name(name: str) -> str:
    """Return the released name of a tensor of our transformer.

    Raises:
        KeyError: the release has no such tensor.
    """
    module, _, kind = name.rpartition(".")
    if match := _OUR_LAYER.fullmatch(module):
        return f"transformer.layers.{match[1]}.{_RELEASED_IN_A_LAYER[match[2]]}.{kind}"
    return f"{_RELEASED_OUTSIDE[module]}.{kind}"


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Sharding of a tensor over the ranks of model parallelism.

    Args:
        axis: along which it is split; None if replicated.
        num_groups: consecutive parts on that axis that are split separately: three for Q, K and V.
    """

    axis: int | None
    num_groups: int = 1

    @classmethod
    def of(cls, name: str) -> "Sharding":
        """Return the sharding of a released tensor, by Megatron's column and row parallelism."""
        if name == EMBEDDING or ".mlp.dense_h_to_4h." in name:
            return cls(axis=0)
        if ".attention.query_key_value." in name:
            return cls(axis=0, num_groups=3)
        if name.endswith((".attention.dense.weight", ".mlp.dense_4h_to_h.weight")):
            return cls(axis=1)
        return cls(axis=None)

    def whole_shape(self, shape: Sequence[int], num_ranks: int) -> tuple[int, ...]:
        """Return the shape of the whole tensor from that of a shard."""
        return tuple(size * num_ranks if axis == self.axis else size for axis, size in enumerate(shape))

    def join(self, shares: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the whole tensor in parts along its first axis, if possible without a copy."""
        if self.axis is None or len(shares) == 1:
            yield shares[0]
        elif self.axis == 0:
            grouped = [share.chunk(self.num_groups) for share in shares]
            for group in range(self.num_groups):
                yield from (groups[group] for groups in grouped)
        else:
            yield torch.cat(list(shares), self.axis)

    def cut(self, tensor: Tensor, num_ranks: int, rank: int) -> Tensor:
        """Return a rank's shard of a tensor."""
        if self.axis is None or num_ranks == 1:
            return tensor
        groups = tensor.chunk(self.num_groups, self.axis)
        return torch.cat([group.chunk(num_ranks, self.axis)[rank] for group in groups], self.axis)
