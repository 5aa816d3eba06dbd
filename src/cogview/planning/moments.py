"""Moments of a training step at which its memory may peak, by formula.

Memory beside weights and optimizer state rises through the forward pass and peaks in the loss or at the start of the
backward pass. From there activations are replaced by gradients, block by block and evenly. So the peak is at one of few
moments, all listed by `moments`.

Letters: as in `cogview.planning.activations`; V rows of the token table, v those of a softmax, n its targets, c targets
per chunk.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from cogview.planning.activations import PassShape, backward_entries, block_activations, end_activations
from cogview.planning.parameters import (
    Tensors,
    block_shapes,
    held_parameters,
    main_itemsize,
    map_itemsize,
    matrices_of,
    other_shapes,
    tensors_of,
)
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.training.token_loss import CHUNK_TOKENS

Moment: TypeAlias = Mapping[str, Tensors]
"""Tensors in memory at a moment, by kind."""


def softmaxes(shape: PassShape, loss: TokenLossConfig) -> list[tuple[int, int]]:
    """Return (n, v) of a loss's softmaxes: over the vocabulary, or over codes and over all other ids."""
    template, vocabulary = shape.template, shape.template.vocabulary
    image = shape.num_sequences * template.num_codes_per_image
    text = shape.num_sequences * template.max_text_targets if loss.text_weight else 0
    if loss.normaliser == "vocabulary":
        return [(image + text, shape.config.vocabulary_size)]
    others = vocabulary.num_tokens - vocabulary.text_pieces.start
    return [(image, vocabulary.num_image_codes), *([(text, others)] if text else [])]


def softmax_moments(shape: PassShape, n: int, v: int) -> Iterator[tuple[Tensors, Tensors]]:
    """Yield the kept and the transient tensors, as scores are made of logits, and gradients of scores.

    Targets are scored in k chunks of c = ceil(n / k). Logits [c v] have the maps' dtype, of s bytes. In half precision
    they are widened to float32 scores [c v]. The scores' gradient replaces the scores, and in half precision is rounded
    to s bytes beside them. Later chunks also hold those of the chunk before, and the float32 sum of the rows' gradients
    [v d], to which each chunk adds its product. On a CPU, a bfloat16 product is rounded before it is widened, and
    float16 factors are widened.

    The states [n d] are gathered and joined; autocast rounds them, and the rows [v d].
    """
    d, s, main = shape.config.hidden_size, map_itemsize(shape.precision), main_itemsize(shape.precision)
    num_chunks = max(1, -(-n // CHUNK_TOKENS["cpu" if shape.is_cpu else "cuda"]))
    c = -(-n // num_chunks)
    logits, scores, rows = s * c * v, 4.0 * c * v, 4.0 * v * d
    scored = [scores] if s == 4 else [scores, logits]
    widened = [] if s == 4 else [scores]
    states = 2 * [main * n * d] + ([s * n * d, s * v * d] if s < main else [])
    earlier, sum_of_rows = (scored, [rows]) if num_chunks > 1 else ([], [])
    yield sum_of_rows, [*states, *earlier, logits, *widened, scores]
    rounded: Tensors = []
    if shape.is_cpu and s < 4:
        rounded = widened if shape.precision == "float16_o2" else [s * v * d]
    yield [rows], [*states, *scored, *sum_of_rows, *rounded, 4.0 * n * d]


def loss_moments(shape: PassShape, loss: TokenLossConfig) -> Iterator[tuple[Tensors, Tensors]]:
    """Yield what the loss keeps, and its transient tensors: within each softmax, and as its backward pass begins.

    The gradients of rows [v d] and states [n d] are made with the loss, in float32, and kept. The backward pass
    multiplies them by the loss's own, and with O2 rounds those of the rows. Softmaxes over part of the rows each write
    their gradient into a tensor of all V rows, and these are added.
    """
    d, main = shape.config.hidden_size, main_itemsize(shape.precision)
    kept: Tensors = []
    for n, v in softmaxes(shape, loss):
        for kept_so_far, transient in softmax_moments(shape, n, v):
            yield kept + kept_so_far, transient
        kept += [4.0 * v * d, 4.0 * n * d]
    table = float(shape.config.vocabulary_size * d)
    if loss.normaliser == "vocabulary":
        yield kept, [4 * table, kept[-1], *([main * table] if main < 4 else [])]
    else:
        yield kept[1::2], 3 * [main * table]


def gradients(
    shape: PassShape, training: TrainingConfig, is_spread: bool
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """Return the gradients before a backward pass, at the first block and at its end, and after it.

    They are float32 sums, which include earlier micro-batches. O2 makes them in half precision beside the sums, and
    adds them after the pass; but devices that share a run sum them in float32 at once.
    """
    block, layers = block_shapes(shape.config, shape.tensor_parallel), shape.config.num_layers
    sums = tensors_of(layers * block + other_shapes(shape.config), 4)
    before = sums if training.num_micro_batches > 1 else []
    is_half = shape.precision.endswith("_o2") and not is_spread
    if before and not is_half:
        return before, before, before, sums
    at_first, at_end = (tensors_of(num * block, 2 if is_half else 4) for num in (layers - 1, layers))
    return before, before + at_first, before + at_end, sums


def muon_transients(shape: PassShape, is_spread: bool) -> Tensors:
    """Return Muon's memory for the largest matrices, all layers at once, r x c with r at most c.

    There are the means, in a list and as one tensor, with the means and updates of the previous shape; or in their
    place the iterate before and after a product, and in float32 two products r x r. Sharded matrices are gathered and
    updated one at a time.
    """
    largest = max(block_shapes(shape.config, shape.tensor_parallel), key=math.prod)
    products = [] if shape.precision.startswith("bfloat16") else 2 * [4.0 * min(largest) ** 2]
    one, layers = 4.0 * math.prod(largest), shape.config.num_layers
    if is_spread:
        return 3 * [one] + products
    return 3 * [layers * one] + layers * [one] + [layers * product for product in products]


def moments(
    shape: PassShape, training: TrainingConfig, loss: TokenLossConfig, is_spread: bool = False
) -> Iterator[Moment]:
    """Yield a step's memory by kind at each moment at which it may peak, before it is shared among devices.

    - In the loss, and as its backward pass begins: all activations.
    - In the last block: all blocks' activations. With activation checkpointing they are the blocks' inputs, and one
      block is recomputed. From here on the head's gradient of the table waits for the embedding's.
    - In the first block: one block's activations, and the other blocks' gradients.
    - In the embedding: the blocks' gradients, and the table's from the head, from the embedding, and their sum.
    - In the optimizers: all gradients; while Muon steps, AdamW's are freed.

    Args:
        shape: of a device's pass.
        training: of the recipe.
        loss: of the tokens.
        is_spread: whether devices share weights and gradients.
    """
    config, layers = shape.config, shape.config.num_layers
    held = held_parameters(config, shape.precision, training.optimizer, shape.tensor_parallel)
    before, at_first, at_end, sums = gradients(shape, training, is_spread)
    again, is_o2 = training.activation_checkpointing, shape.precision.endswith("_o2")
    kept = [shape.main] if again else block_activations(shape)
    table = [main_itemsize(shape.precision) * config.vocabulary_size * config.hidden_size]
    copies = held["weight_copies"]
    copies_at_a_block = copies[: len(copies) // layers] if again and not is_o2 else copies
    copies_at_end = copies if is_o2 else []

    def moment(
        gradients: Tensors, weight_copies: Tensors, activations: Tensors, transient: Tensors
    ) -> Moment:
        return {
            "weights": held["weights"],
            "gradients": gradients,
            "optimizer": held["optimizer"],
            "weight_copies": weight_copies,
            "activations": activations,
            "transient": transient,
        }

    for kept_by_loss, transient in loss_moments(shape, loss):
        yield moment(before, copies, layers * kept + end_activations(shape) + kept_by_loss, transient)
    for left, transient in backward_entries(shape):
        others = (layers if again else layers - 1) * kept
        yield moment(before, copies_at_a_block, others + left, table + transient)
        yield moment(at_first, copies_at_a_block, left, table + transient)
    yield moment(at_end, copies_at_end, [], 3 * table)
    yield moment(sums, copies_at_end, [], [])
    if training.optimizer == "muon":
        matrices = layers * matrices_of(block_shapes(config, shape.tensor_parallel))
        yield moment(tensors_of(matrices, 4), copies_at_end, [], muon_transients(shape, is_spread))
