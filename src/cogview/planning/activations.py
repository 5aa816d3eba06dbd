"""Activations that the transformer keeps for the backward pass of a micro-batch, by formula.

Letters: b sequences of t tokens, d width, f d inner width of the MLP, h heads, p devices that share the heads.

`main` is a tensor [b t d] of the main branch, `mapped` one of the linear maps; their dtypes are those of
`cogview.planning.parameters`. Tensors with few numbers per token are left out.

The rules are those of PyTorch on a CPU, also used for GPUs unless stated otherwise.
"""

from dataclasses import dataclass

import torch

from cogview.planning.parameters import Tensors, main_itemsize, map_itemsize
from cogview.sequence.template import TextToImageTemplate
from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig
from cogview.transformer.three_region import keys_seen

_FLEX_BLOCK = 128
"""Keys per block of FlexAttention, to whose multiples slots are padded."""


@dataclass(frozen=True, kw_only=True)
class PassShape:
    """Shape of one device's pass.

    Args:
        config: of the transformer.
        template: of the sequences, with texts of maximal length.
        num_sequences: of the micro-batch.
        precision: of the pass.
        tensor_parallel: devices that share the heads.
        is_cpu: whether it runs on a CPU, whose fused attention has no dropout, and whose sparse attention copies no key
            twice.
        has_large_blocks: of the device's memory, as `cogview.planning.devices` says.
    """

    config: TransformerConfig
    template: TextToImageTemplate
    num_sequences: int
    precision: ComputedPrecision
    tensor_parallel: int = 1
    is_cpu: bool = False
    has_large_blocks: bool = False

    @property
    def numbers(self) -> float:
        """Numbers of a tensor [b t d]."""
        return float(self.num_sequences * self.template.max_tokens * self.config.hidden_size)

    @property
    def main(self) -> float:
        """Bytes of a tensor of the main branch."""
        return self.numbers * main_itemsize(self.precision)

    @property
    def mapped(self) -> float:
        """Bytes of a tensor of the same shape that a linear map reads or writes."""
        return self.numbers * map_itemsize(self.precision)

    @property
    def weight_itemsize(self) -> float | None:
        """Bytes per attention weight; None where a fused kernel keeps none."""
        if self.config.attention != "fused":
            return map_itemsize(self.precision)
        drops = self.config.dropout > 0 and self.is_cpu and self.config.attention_pattern == "dense"
        return 4.0 if drops else None


def block_activations(shape: PassShape) -> Tensors:
    """Return the activations of a block.

    - A norm keeps its input, divided by the largest magnitude. Norms before a branch read the main branch, norms after
      a branch the output of its last map; with Post-LN both read the main branch.
    - The first map of each branch keeps its input; the input of attention's last map is among attention's.
    - The MLP keeps the input and output of the GELU, f/p times as wide.
    - Dropout keeps its factors, once in each branch.

    With Sandwich-LN in float32, fused attention and no dropout that is (10 + 2 f) numbers per token and channel: 4 of
    norms, 2 of first maps, 4 of attention, 2 f of the MLP.
    """
    config, main, mapped = shape.config, shape.main, shape.mapped
    norms = 2 * [main] + (2 * [mapped] if config.layer_norm == "sandwich" else [])
    mlp = 2 * [config.mlp_factor * mapped / shape.tensor_parallel]
    dropout = 2 * [mapped] if config.dropout else []
    return norms + 2 * [mapped] + mlp + dropout + _attention_activations(shape)


def _attention_activations(shape: PassShape) -> Tensors:
    """Return the activations of attention, in tensors x of the device's heads, [b t d/p].

    - Fused: queries, keys and values in one tensor of 3 x, and the output, x. Autocast widens that to the main branch's
      dtype and rounds it again for the last map, which keeps another copy.
    - By formula, relaxed or plain: copies of queries, keys and values for the products, the output in the last map's
      layout, and the weights [b h/p t t]; with dropout also its factors and products. A CPU's fused attention with
      dropout does the same in float32.
    - By a grid's masks: also queries, keys and values in groups, and the groups' output.
    - `qk_norm` adds queries and keys in float32, before and after they are divided, and rounded if maps are; the output
      is then always copied for the last map.
    """
    config, x, wide = (
        shape.config,
        shape.mapped / shape.tensor_parallel,
        4 * shape.numbers / shape.tensor_parallel,
    )
    normalised = 4 * [wide] + (2 * [x] if x < wide else []) if config.qk_norm else []
    if shape.weight_itemsize is not None:
        copies = 3 * [wide if shape.weight_itemsize == 4 else x]
        return copies + [x] + (3 if config.dropout else 1) * [_weight_bytes(shape)] + normalised
    attended = (2 if shape.main > shape.mapped or config.qk_norm else 1) * [x]
    if config.attention_pattern == "three_region":
        return _three_region_activations(shape, x, wide) + attended + normalised
    if config.attention_pattern == "grid":
        # Imported only here, as below: with it comes PyTorch's compiler, which takes longer than most plans.
        from cogview.transformer.grid_attention_kernels import gathered_keys

        t = shape.template.max_tokens
        return [3 * x, x, *(2 * [x * gathered_keys(config.grid, t) / t]), x, *attended, *normalised]
    return [3 * x, *attended, *normalised]


def _weight_bytes(shape: PassShape) -> float:
    """Return the bytes of a layer's attention weights, [b h/p t t], or 0 if they are not kept."""
    heads = shape.config.num_heads / shape.tensor_parallel
    return (shape.weight_itemsize or 0.0) * shape.num_sequences * heads * shape.template.max_tokens**2


def _three_region_activations(shape: PassShape, x: float, wide: float) -> Tensors:
    """Return the activations of three-region attention, except its output.

    A block has q queries and k keys: its slots, on average over the pivots' draws, and its window.

    - Triton's kernels: queries, keys and values, 3 x.
    - FlexAttention, on other GPUs: 3 x, and keys and values again for all padded slots and all tokens.
    - Block by block: 3 x, the score masks [b q k], and keys and values: of the slots on a CPU, of each block's k on a
      GPU.
    - Block by block on a CPU with dropout: queries, and each block's keys and values, in float32, and three times the
      weights [b h/p q k].
    """
    config, regions, t = shape.config, shape.config.three_region, shape.template.max_tokens
    slots, heads = regions.num_text_and_pivot_tokens, config.num_heads / shape.tensor_parallel
    if not shape.is_cpu:
        from cogview.transformer.three_region_kernels import fits_flexible_attention, fits_triton_kernels

        if shape.has_large_blocks and fits_triton_kernels(regions, config.head_size, config.dropout):
            return [3 * x]
        if fits_flexible_attention(regions, config.head_size, config.dropout):
            return [3 * x] + 2 * [x * (-(-slots // _FLEX_BLOCK) * _FLEX_BLOCK + t) / t]
    stops = torch.tensor([*range(regions.block_tokens, t, regions.block_tokens), t])
    # A block's last query sees its whole window; its own key counts half.
    keys = keys_seen(stops - 1, torch.tensor([shape.template.max_prefix_tokens]), regions)[0] + 0.5
    pairs = (shape.num_sequences * stops.diff(prepend=stops.new_zeros(1)) * keys).tolist()
    side_by_side = 2 * (keys / t).tolist()
    if shape.is_cpu and config.dropout:
        return [wide, *(wide * share for share in side_by_side), *(3 * [4 * heads * num for num in pairs])]
    masks = [map_itemsize(shape.precision) * num for num in pairs]
    return [3 * x, *masks, *(x * share for share in (2 * [slots / t] if shape.is_cpu else side_by_side))]


def backward_entries(shape: PassShape) -> list[tuple[Tensors, Tensors]]:
    """Return the remaining activations and the transient tensors at the peaks of a block's backward pass.

    - Entering the MLP, all activations remain, with the gradients of the main branch, the MLP's output, the GELU's
      output (f/p times as wide), and the last matrix [d, f d/p].
    - In attention by formula, its own activations remain, and those of the preceding norm and first map, with the
      gradients of the main branch, the values, and the weights before and after the softmax. With dropout, one of these
      is replaced by the dropout factors.
    """
    main, mapped, inner = shape.main, shape.mapped, shape.config.mlp_factor / shape.tensor_parallel
    matrix = inner * shape.config.hidden_size**2 * map_itemsize(shape.precision)
    entries = [(block_activations(shape), [main, mapped, inner * mapped, matrix])]
    if shape.weight_itemsize is not None:
        weights = (1 if shape.config.dropout else 2) * [_weight_bytes(shape)]
        entries.append(([main, mapped, *_attention_activations(shape)], [main, mapped, *weights]))
    return entries


def end_activations(shape: PassShape) -> Tensors:
    """Return activations outside the blocks: the last norm's input and output, and the embedding's dropout."""
    return (3 if shape.config.dropout else 2) * [shape.main]
