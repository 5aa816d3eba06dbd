"""Training batches as a pure function of seed and step.

So a resumed run sees the same batches as an uninterrupted one.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from cogview.data.config import MaskingConfig
from cogview.data.shards import TokenShards
from cogview.errors import CogViewError, UsageError
from cogview.sequence.template import PairTemplate, TokenBatch


def batch_indices(seed: int, step: int, batch_size: int, num_items: int) -> Int64[np.ndarray, "b"]:
    """Return the items of a step's batch.

    Each epoch is a fresh permutation of all items. A batch may span epochs, so that every item is seen equally often.

    Args:
        seed: the run's seed, 0 or more.
        step: number of the step, from 0.
        batch_size: items per batch, at least 1; may exceed `num_items`.
        num_items: number of items, at least 1.

    Raises:
        UsageError: `num_items` or `batch_size` is less than 1.
    """
    return epochs_and_indices(seed, step, batch_size, num_items)[1]


def epochs_and_indices(
    seed: int, step: int, batch_size: int, num_items: int
) -> tuple[Int64[np.ndarray, "b"], Int64[np.ndarray, "b"]]:
    """Return the epoch and the item of each place in a batch."""
    if num_items < 1:
        raise UsageError("There is nothing to train on: the data set holds no items.")
    if batch_size < 1:
        raise UsageError(f"A batch of {batch_size} items is impossible: give 1 or more.")
    places = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(places, num_items)
    indices = np.empty(batch_size, dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        indices[here] = _permutation(seed, epoch, num_items)[offsets[here]]
    return epochs, indices


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_items: int) -> Int64[np.ndarray, "n"]:
    """Return the order of an epoch; cached, since consecutive steps share it."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_items).astype(np.int64)


class TokenBatches:
    """Batches of pairs from token shards.

    If a picture has several captions, each epoch draws one.

    Args:
        shards: the pairs.
        template: builds sequences; with the grid and vocabulary of the shards.
        seed: seed of the order and of the drawn captions.
        batch_size: sequences per step.
        dropped_texts: share of unconditional sequences, for guidance.

    Attributes:
        num_long_captions: captions that exceed the template's text and are cut.

    Raises:
        CogViewError: the template has another grid or vocabulary than the shards.
        UsageError: the batch is empty.
    """

    def __init__(
        self,
        shards: TokenShards,
        template: PairTemplate,
        seed: int,
        batch_size: int,
        dropped_texts: float = 0.0,
    ) -> None:
        vocabulary = template.vocabulary
        available = (*shards.grid, shards.num_codes, shards.num_pieces)
        wanted = (
            *(template.grid_rows, template.grid_columns),
            *(vocabulary.num_image_codes, vocabulary.num_text_pieces),
        )
        if available != wanted:
            kind = "{}x{} codes of {} and {} text pieces"
            advice = "the tokenizers and the picture size that the model is for"
            if shards.size_pixels and available[2:] == wanted[2:] and wanted[0] == wanted[1]:
                size_pixels = shards.size_pixels * wanted[0] // shards.grid[0]
                advice = f"--size-pixels {size_pixels} instead of {shards.size_pixels}"
            raise CogViewError(
                f"The token shards hold {kind.format(*available)}, but the model reads {kind.format(*wanted)}: "
                f"tokenize with {advice}."
            )
        if batch_size < 1:
            raise UsageError(f"A batch of {batch_size} sequences is impossible: give 1 or more.")
        self.template = template
        self._shards = shards
        self._seed = seed
        self._batch_size = batch_size
        self._dropped_texts = dropped_texts
        lengths = shards.caption_lengths()
        self.num_long_captions = int(np.count_nonzero(lengths > template.max_text_pieces))
        if self.num_long_captions:
            warnings.warn(
                f"{shards.folder}: {self.num_long_captions:,} of {len(lengths):,} captions have more than "
                f"{template.max_text_pieces} pieces and lose their end.",
                stacklevel=2,
            )

    def of_size(self, batch_size: int) -> "TokenBatches":
        """Return the same pairs in batches of another size."""
        other = copy.copy(self)
        other._batch_size = batch_size
        return other

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step, counted from 0."""
        epochs, indices = epochs_and_indices(self._seed, step, self._batch_size, len(self._shards))
        pairs = [self._pair(int(epoch), int(index)) for epoch, index in zip(epochs, indices, strict=True)]
        return self.template.batch(pairs)

    def _pair(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pieces of a caption drawn for an epoch, and the picture's codes."""
        num_captions = self._shards.num_captions(index)
        draw = np.random.Generator(np.random.PCG64([self._seed, epoch, index]))
        pieces = self._shards.pieces(index, int(draw.integers(num_captions)))
        if draw.random() < self._dropped_texts:
            pieces = pieces[:0]
        return pieces, self._shards.codes(index)


@runtime_checkable
class BatchSource(Protocol):
    """Source of the sequences of each step, from pairs or from pictures at two sizes."""

    @property
    def template(self) -> Any:
        """Template that builds the sequences."""
        ...

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step."""
        ...


class _ReplacedCodeBatches:
    """Batches with some input codes replaced; targets stay.

    Each sequence draws its share of replaced codes between 0 and `largest_share`. Only codes that are targets are
    replaced: of pictures at two sizes, those of the larger.

    Args:
        batches: the original batches.
        largest_share: 0 to 1, or a function from the step to it.
        seed: seed of the replacements.
    """

    _stream: int
    """Seeds each kind of replacement differently."""

    def __init__(
        self, batches: BatchSource, largest_share: float | Callable[[int], float], seed: int
    ) -> None:
        self.template = batches.template
        self._batches = batches
        self._largest_share = largest_share
        self._seed = seed

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step."""
        batch = self._batches.batch(step)
        draw = np.random.Generator(np.random.PCG64([self._seed, step, self._stream]))
        rows, places = np.nonzero(batch.image_mask)
        places += 1  # an input code is one place after its target
        read = batch.tokens[rows, places].reshape(len(batch.tokens), -1)
        largest = self._largest_share(step) if callable(self._largest_share) else self._largest_share
        is_replaced = draw.random(read.shape) < largest * draw.random((len(read), 1))
        tokens = batch.tokens.copy()
        tokens[rows, places] = np.where(is_replaced, self._replacement(batch), read).ravel()
        return dataclasses.replace(batch, tokens=tokens)

    def _replacement(self, batch: TokenBatch) -> np.int64 | Int64[np.ndarray, "b k"]:
        """Return the replacement of each code."""
        raise NotImplementedError


class MixedCodeBatches(_ReplacedCodeBatches):
    """Batches with some input codes taken from the same place of the batch's next picture; targets stay.

    Earlier codes predict the next ones well, so a small transformer ignores the text for long. Unreliable codes make it
    attend to the text from the start. They also resemble decoding, where the transformer's own codes can be wrong.
    """

    _stream = 1

    def _replacement(self, batch: TokenBatch) -> Int64[np.ndarray, "b k"]:
        codes = batch.targets[batch.image_mask].reshape(len(batch.tokens), -1)
        return np.roll(codes, -1, axis=0)


class MaskedCodeBatches(_ReplacedCodeBatches):
    """Batches with some input codes replaced by [MASK]; targets stay.

    The more codes are masked, the more of the targets only the text predicts, so the text is learnt faster.
    """

    _stream = 3

    def _replacement(self, batch: TokenBatch) -> np.int64:
        return np.int64(self.template.vocabulary.separator("MASK"))


class FewCodeBatches:
    """Batches of short sequences with a random subset of each picture's codes.

    Neighbours predict most codes, so whole pictures cost much and teach little of the text. With few codes the text
    must predict nearly all of them, and sequences are a fraction as long. Meant for the start of a training, before a
    run on whole pictures.

    The first code always stays a target. Only targets are left out: of pictures at two sizes, codes of the larger.

    Args:
        batches: the original batches.
        num_codes: targets that a sequence keeps, at least 1; the input of each is the code before it.
        seed: seed of the subsets.
        weight_of_changes: relative weight of drawing a code that differs from the one before it. Over 1, edges are
            learnt more often, and predicted too often until whole pictures are trained on.
    """

    def __init__(
        self, batches: BatchSource, num_codes: int, seed: int, weight_of_changes: float = 1.0
    ) -> None:
        self._num_all = int(np.count_nonzero(batches.batch(0).image_mask[0]))
        if not 1 <= num_codes <= self._num_all:
            raise UsageError(
                f"kept_codes must be between 1 and the {self._num_all} codes of a picture, got {num_codes}"
            )
        if not weight_of_changes > 0:
            raise UsageError(f"weight_of_changes must be over 0, got {weight_of_changes}")
        self.template = batches.template
        self._batches = batches
        self._num_codes = num_codes
        self._seed = seed
        self._weight_of_changes = weight_of_changes

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step."""
        batch = self._batches.batch(step)
        draw = np.random.Generator(np.random.PCG64([self._seed, step, 2]))
        num_rows, num_all = len(batch.tokens), self._num_all
        places = np.nonzero(batch.image_mask)[1].reshape(num_rows, num_all)  # of the codes as targets
        if self._weight_of_changes == 1:
            order = draw.permuted(np.tile(np.arange(1, num_all), (num_rows, 1)), axis=1)
        else:
            # The largest log weight + Gumbel noise are a weighted draw without replacement.
            inputs, targets = (
                np.take_along_axis(each, places, axis=1) for each in (batch.tokens, batch.targets)
            )
            keys = np.where(inputs != targets, np.log(self._weight_of_changes), 0.0) + draw.gumbel(
                size=inputs.shape
            )
            order = 1 + np.argsort(-keys[:, 1:], axis=1)
        order = order[:, : self._num_codes - 1]
        kept = np.concatenate([np.zeros((num_rows, 1), dtype=np.int64), np.sort(order, axis=1)], axis=1)
        kept_places = np.take_along_axis(places, kept, axis=1)
        # The text and the kept codes; the rest is padding, which nothing attends to.
        width = self.template.max_tokens - (num_all - self._num_codes)
        columns = np.zeros((num_rows, width), dtype=np.int64)
        is_kept = np.zeros((num_rows, width), dtype=np.bool_)
        image_mask = np.zeros((num_rows, width), dtype=np.bool_)
        for row, first in enumerate(places[:, 0]):
            stop = first + self._num_codes
            columns[row, :first] = np.arange(first)
            columns[row, first:stop] = kept_places[row]
            is_kept[row, :stop] = True
            image_mask[row, first:stop] = True

        def take(array: np.ndarray, padding: int) -> np.ndarray:
            return np.where(is_kept, np.take_along_axis(array, columns, axis=1), padding)

        pad = self.template.vocabulary.separator("PAD")
        return TokenBatch(
            tokens=take(batch.tokens, pad),
            positions=take(batch.positions, 0),
            targets=take(batch.targets, pad),
            text_mask=take(batch.text_mask, 0).astype(np.bool_),
            image_mask=image_mask,
            num_clipped=batch.num_clipped,
        )


class TwoPhaseBatches:
    """Batches of one source up to a step, and of another from there on.

    Args:
        first: source of the steps before `num_first_steps`.
        then: source of the other steps, also counted from the run's start.
        num_first_steps: 0 or more.
    """

    def __init__(self, first: BatchSource, then: BatchSource, num_first_steps: int) -> None:
        self.template = then.template
        self._first, self._then, self._num_first_steps = first, then, num_first_steps

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step."""
        return (self._first if step < self._num_first_steps else self._then).batch(step)


def linear_schedule(first: float, last: float, start_step: int, num_steps: int) -> Callable[[int], float]:
    """Return a linear schedule from `first` at `start_step` to `last` at the last of `num_steps`."""

    def value(step: int) -> float:
        done = (step - start_step) / max(1, num_steps - 1 - start_step)
        return first + (last - first) * min(1.0, max(0.0, done))

    return value


def mask_batches(
    batches: BatchSource,
    seed: int,
    masking: MaskingConfig,
) -> BatchSource:
    """Apply the masked and kept codes of a masking configuration; dropped texts are left to the source."""
    if masking.masked_codes:
        batches = MaskedCodeBatches(batches, masking.masked_codes, seed)
    if masking.kept_codes is not None:
        batches = FewCodeBatches(batches, masking.kept_codes, seed, masking.weight_of_changes)
    return batches
