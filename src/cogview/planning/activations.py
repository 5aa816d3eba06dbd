"""What one pass of the transformer over a micro-batch keeps for its backward pass, by formula.

Letters: b sequences of t tokens, d width, f d inner width of the MLP, h heads, p devices that share the heads.

`main` is a tensor [b t d] of the main branch's kind of numbers, `mapped` one of the linear maps' kind: see
`cogview.planning.parameters`. What has few numbers for each token, and not one for each channel, is left out.

These are the rules of PyTorch on a CPU, by which GPUs are counted too unless it says otherwise.
"""

from dataclasses import dataclass

import torch

from cogview.planning.parameters import Tensors, main_itemsize, map_itemsize
from cogview.sequence.template import TextToImageTemplate
from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig
from cogview.transformer.three_region import keys_seen
from cogview.transformer.three_region_kernels import fits_flexible_attention

_FLEX_BLOCK = 128
"""FlexAttention's keys come in blocks of so many; the slots are filled up to whole ones."""


@dataclass(frozen=True, kw_only=True)
class PassShape:
    """What one device computes with at a time.

    Args:
        config: of the transformer.
        template: of the sequences; texts are as long as can be.
        num_sequences: of the micro-batch.
        precision: what is computed in.
        tensor_parallel: devices that share the heads.
        is_cpu: whether a CPU computes; its fused attention cannot drop weights, and its sparse one keeps no key twice.
    """

    config: TransformerConfig
    template: TextToImageTemplate
    num_sequences: int
    precision: ComputedPrecision
    tensor_parallel: int = 1
    is_cpu: bool = False

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
        """Bytes of an attention weight where all of them are held; None where a fused kernel forgets them."""
        if self.config.attention != "fused":
            return map_itemsize(self.precision)
        drops = self.config.dropout > 0 and self.is_cpu and self.config.attention_pattern == "dense"
        return 4.0 if drops else None


def block_activations(shape: PassShape) -> Tensors:
    """Return what a block keeps.

    - A norm keeps its input, divided by the largest magnitude. Norms before a branch read the main branch, norms
      after a branch what its last map wrote; with Post-LN both read the main branch.
    - The first map of each branch keeps its input; what the last map of attention reads is among attention's.
    - The MLP keeps what goes into and comes out of the GELU, f/p times as wide.
    - Dropout keeps what it multiplied by, once in each branch.

    With Sandwich-LN in float32, fused attention and no dropout that is (10 + 2 f) numbers for each token and channel:
    4 of norms, 2 of first maps, 4 of attention, 2 f of the MLP.
    """
    config, main, mapped = shape.config, shape.main, shape.mapped
    norms = 2 * [main] + (2 * [mapped] if config.layer_norm == "sandwich" else [])
    mlp = 2 * [config.mlp_factor * mapped / shape.tensor_parallel]
    dropout = 2 * [mapped] if config.dropout else []
    return norms + 2 * [mapped] + mlp + dropout + _attention_activations(shape)


def _attention_activations(shape: PassShape) -> Tensors:
    """Return what attention keeps, in tensors x of the device's heads, [b t d/p].

    - Fused: queries, keys and values in one tensor of 3 x, and what is attended, x. Autocast widens that to the main
      branch's kind and rounds it again for the last map, which keeps it once more.
    - By a formula, relaxed or plain: copies of queries, keys and values that the products read, what is attended in the
      order in which the last map reads it, and the weights [b h/p t t]; with dropout also what they were multiplied by,
      and the products. A CPU's fused attention with dropout does the same in float32.
    - `qk_norm` adds queries and keys in float32, before and after they are divided, and rounded where maps are; what
      is attended is then copied for the last map in any case.
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
    return [3 * x, *attended, *normalised]


def _weight_bytes(shape: PassShape) -> float:
    """Return the bytes of a layer's attention weights, [b h/p t t], where they are held."""
    heads = shape.config.num_heads / shape.tensor_parallel
    return (shape.weight_itemsize or 0.0) * shape.num_sequences * heads * shape.template.max_tokens**2


def _three_region_activations(shape: PassShape, x: float, wide: float) -> Tensors:
    """Return what three-region attention keeps beside what is attended.

    A block has q queries and k keys: its slots, on average over the pivots' draws, and its window.

    - FlexAttention, on a GPU: queries, keys and values, 3 x; keys and values once more for all slots, filled up to
      whole blocks, and all tokens.
    - Block by block: 3 x, the masks of the scores [b q k], and keys and values of the slots on a CPU, of each block's k
      side by side on a GPU.
    - Block by block on a CPU with dropout: queries, and each block's keys and values, in float32, and three times the
      weights [b h/p q k].
    """
    config, regions, t = shape.config, shape.config.three_region, shape.template.max_tokens
    slots, heads = regions.num_text_and_pivot_tokens, config.num_heads / shape.tensor_parallel
    if not shape.is_cpu and fits_flexible_attention(regions, config.head_size, config.dropout):
        return [3 * x] + 2 * [x * (-(-slots // _FLEX_BLOCK) * _FLEX_BLOCK + t) / t]
    stops = torch.tensor([*range(regions.block_tokens, t, regions.block_tokens), t])
    # A block's last query sees its whole window; its own key counts as a half.
    keys = keys_seen(stops - 1, torch.tensor([shape.template.max_prefix_tokens]), regions)[0] + 0.5
    pairs = (shape.num_sequences * stops.diff(prepend=stops.new_zeros(1)) * keys).tolist()
    side_by_side = 2 * (keys / t).tolist()
    if shape.is_cpu and config.dropout:
        return [wide, *(wide * share for share in side_by_side), *(3 * [4 * heads * num for num in pairs])]
    masks = [map_itemsize(shape.precision) * num for num in pairs]
    return [3 * x, *masks, *(x * share for share in (2 * [slots / t] if shape.is_cpu else side_by_side))]


def backward_entries(shape: PassShape) -> list[tuple[Tensors, Tensors]]:
    """Return what is left of a block's activations, and what comes and goes, where its backward pass needs most.

    - As it enters the MLP, all activations are left; there are the gradients of the main branch, of what the MLP wrote,
      of what came out of the GELU (f/p times as wide), and of the last matrix [d, f d/p].
    - In attention by a formula, its own activations are left, those of the norm before it and of its first map; there
      are the gradients of the main branch, of the values, and of the weights before and after the softmax. With
      dropout, one of these comes and what the weights were multiplied by is still there.
    """
    main, mapped, inner = shape.main, shape.mapped, shape.config.mlp_factor / shape.tensor_parallel
    matrix = inner * shape.config.hidden_size**2 * map_itemsize(shape.precision)
    entries = [(block_activations(shape), [main, mapped, inner * mapped, matrix])]
    if shape.weight_itemsize is not None:
        weights = (1 if shape.config.dropout else 2) * [_weight_bytes(shape)]
        entries.append(([main, mapped, *_attention_activations(shape)], [main, mapped, *weights]))
    return entries


def end_activations(shape: PassShape) -> Tensors:
    """Return what lies outside the blocks: the last norm's input and result, and what dropout multiplied tokens by."""
    return (3 if shape.config.dropout else 2) * [shape.main]
