"""Memory of a transformer's parameters in training, by formula.

Letters: d width, f d inner width of the MLP, p devices that share the heads, L layers.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = list[float]
"""Bytes of each tensor: allocators treat small and large ones differently."""


def block_shapes(config: TransformerConfig, tensor_parallel: int = 1) -> list[Shape]:
    """Return the shapes of one block's parameters on one device.

    The matrices are [3d/p, d] to queries, keys and values, [d, d/p] out of attention, [fd/p, d] and [d, fd/p] of the
    MLP, each with a bias. Norms have a gain and a bias of d, replicated on every device: four norms with Sandwich-LN,
    else two. `qk_norm` adds two gains of a head's width. With p = 1 that is (4 + 2f) d^2 + (5 + f + 2 norms) d numbers.
    """
    d, part = config.hidden_size, config.hidden_size // tensor_parallel
    inner = config.mlp_factor * d // tensor_parallel
    matrices: list[Shape] = [(3 * part, d), (d, part), (inner, d), (d, inner)]
    biases: list[Shape] = [(rows,) for rows, *_ in matrices]
    norm: Shape = (d,)
    gain: Shape = (config.head_size,)
    num_norms = 4 if config.layer_norm == "sandwich" else 2
    return matrices + biases + 2 * num_norms * [norm] + (2 * [gain] if config.qk_norm else [])


def other_shapes(config: TransformerConfig) -> list[Shape]:
    """Return the shapes of token and position tables and the last norm, and of a head that is not the token table."""
    d, v = config.hidden_size, config.vocabulary_size
    head: list[Shape] = [(v, d), (v,), (d,), (d,)] if config.head == "own" else []
    return [(v, d), (config.num_position_rows, d), (d,), (d,), *head]


def matrices_of(shapes: Iterable[Shape]) -> list[Shape]:
    """Return the shapes with two dimensions: of a block, those that Muon updates and autocast rounds."""
    return [shape for shape in shapes if len(shape) == 2]


def tensors_of(shapes: Iterable[Shape], itemsize: float | int) -> Tensors:
    """Return tensors of the given shapes, with this many bytes per number."""
    return [float(itemsize * math.prod(shape)) for shape in shapes]


def main_itemsize(precision: ComputedPrecision) -> float:
    """Return the bytes per number of the main branch and of norms' outputs: half precision only with O2."""
    return 2.0 if precision.endswith("_o2") else 4.0


def map_itemsize(precision: ComputedPrecision) -> float:
    """Return the bytes per number of linear maps' inputs and outputs: half precision also with autocast."""
    return 4.0 if precision == "float32" else 2.0


def held_parameters(
    config: TransformerConfig,
    precision: ComputedPrecision,
    optimizer: Literal["adamw", "muon"],
    tensor_parallel: int = 1,
) -> Mapping[str, Tensors]:
    """Return the permanent memory of parameters on a device that trains alone.

    - weights: 4 bytes per number in any precision, since half-precision ones are copies of float32 masters.
    - optimizer: AdamW's two moments of 4 bytes per number, and a count of 4 bytes per parameter; Muon's one moment of
      each of the blocks' matrices.
    - weight_copies: with autocast, the blocks' matrices in 2 bytes per number, from the forward to the backward pass;
      with O2, all parameters. Autocast's copy of the table for the head is transient within the loss.
    """
    blocks = config.num_layers * block_shapes(config, tensor_parallel)
    shapes = blocks + other_shapes(config)
    of_muon = matrices_of(blocks) if optimizer == "muon" else []
    of_adamw = [shape for shape in blocks if shape not in of_muon] + other_shapes(config)
    rounded = {"float32": [], "bfloat16": matrices_of(blocks)}.get(precision, shapes)
    return {
        "weights": tensors_of(shapes, 4),
        "optimizer": 2 * tensors_of(of_adamw, 4) + len(of_adamw) * [4.0] + tensors_of(of_muon, 4),
        "weight_copies": tensors_of(rounded, 2),
    }


def gathered_bytes(
    config: TransformerConfig, precision: ComputedPrecision, tensor_parallel: int = 1
) -> float:
    """Return the bytes that one of several devices needs for communication, beside its shards.

    Of the blocks: the weights of the current and the prefetched one, the gradient of one, and again in float32 as it is
    summed over the devices. Of the rest, which stays gathered: weights and gradient. With B numbers per block, R of the
    rest and s bytes per gathered number, that is (3 s + 4) B + 2 s R.
    """
    itemsize = main_itemsize(precision)
    block, rest = (
        sum(tensors_of(shapes, 1)) for shapes in (block_shapes(config, tensor_parallel), other_shapes(config))
    )
    return (3 * itemsize + 4) * block + 2 * itemsize * rest
