"""Which item is learnt from at which step: a function of the seed and the step alone.

Because nothing is remembered from step to step, a resumed run sees the same batches as an uninterrupted one,
and any step's batch can be looked at by itself.
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

    The steps walk through a fresh permutation of all items each epoch; a batch may begin in one epoch and end
    in the next, so that every item is seen equally often.

    Args:
        seed: the run's seed, 0 or more.
        step: number of the step, from 0.
        batch_size: items a batch, at least 1; may be more than there are items.
        num_items: number of items, at least 1.

    Raises:
        UsageError: there are no items, or the batch is empty.
    """
    return epochs_and_indices(seed, step, batch_size, num_items)[1]


def epochs_and_indices(
    seed: int, step: int, batch_size: int, num_items: int
) -> tuple[Int64[np.ndarray, "b"], Int64[np.ndarray, "b"]]:
    """Return the epoch that each place of a batch falls into, and the item there."""
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
    """Return the order of an epoch; the last ones are kept, since consecutive steps share them."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_items).astype(np.int64)


class TokenBatches:
    """The batch of each step: a function of the seed and the step alone.

    Of a picture with several captions, one is drawn anew each epoch.

    Args:
        shards: the pairs.
        template: puts them in sequence; of the same grid and vocabulary.
        seed: of the order and of the captions drawn.
        batch_size: sequences a step.
        dropped_texts: the share of sequences without their text, from which a model learns to draw whatever there is.

    Attributes:
        template: as given.
        num_long_captions: captions of the shards that are longer than the template's text and lose their end.

    Raises:
        CogViewError: the template is of another grid or vocabulary than the shards.
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
        found = (*shards.grid, shards.num_codes, shards.num_pieces)
        wanted = (
            *(template.grid_rows, template.grid_columns),
            *(vocabulary.num_image_codes, vocabulary.num_text_pieces),
        )
        if found != wanted:
            kind = "{}x{} codes of {} and {} text pieces"
            raise CogViewError(
                f"The token shards hold {kind.format(*found)}, but the model reads {kind.format(*wanted)}: "
                "tokenize with the tokenizers and the picture size that the model is for."
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
        """Return the sequences of a step, counted from 0; `num_clipped` of them lost the end of their text."""
        epochs, indices = epochs_and_indices(self._seed, step, self._batch_size, len(self._shards))
        pairs = [self._pair(int(epoch), int(index)) for epoch, index in zip(epochs, indices, strict=True)]
        return self.template.batch(pairs)

    def _pair(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the caption of a picture that is drawn for an epoch, and its codes."""
        num_captions = self._shards.num_captions(index)
        draw = np.random.Generator(np.random.PCG64([self._seed, epoch, index]))
        pieces = self._shards.pieces(index, int(draw.integers(num_captions)))
        if draw.random() < self._dropped_texts:
            pieces = pieces[:0]
        return pieces, self._shards.codes(index)


@runtime_checkable
class BatchSource(Protocol):
    """Whatever gives the sequences of each step, from pairs or from pictures at two sizes."""

    @property
    def template(self) -> Any:
        """What puts them in sequence."""
        ...

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step."""
        ...


class _ReplacedCodeBatches:
    """Batches in which some of the codes that the transformer reads are replaced; its targets stay.

    Only codes that are learnt are ever replaced: of pictures at two sizes, the larger one's. For each sequence a share
    is drawn between 0 and the largest, and that share of its codes is replaced.

    Args:
        batches: the batches with all codes as they are.
        largest_share: 0 to 1; or what gives it for the number of a step.
        seed: of what is replaced.
    """

    _stream: int
    """Tells the random numbers of one kind of replacement from those of another."""

    def __init__(
        self, batches: BatchSource, largest_share: float | Callable[[int], float], seed: int
    ) -> None:
        self.template = batches.template
        self._batches = batches
        self._largest_share = largest_share
        self._seed = seed

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step, a function of the seed and the step alone."""
        batch = self._batches.batch(step)
        draw = np.random.Generator(np.random.PCG64([self._seed, step, self._stream]))
        rows, places = np.nonzero(batch.image_mask)
        places += 1  # a code stands one place behind the one that it is a target at
        read = batch.tokens[rows, places].reshape(len(batch.tokens), -1)
        largest = self._largest_share(step) if callable(self._largest_share) else self._largest_share
        is_replaced = draw.random(read.shape) < largest * draw.random((len(read), 1))
        tokens = batch.tokens.copy()
        tokens[rows, places] = np.where(is_replaced, self._replacement(batch), read).ravel()
        return dataclasses.replace(batch, tokens=tokens)

    def _replacement(self, batch: TokenBatch) -> np.int64 | Int64[np.ndarray, "b k"]:
        """Return what is read instead of each code."""
        raise NotImplementedError


class MixedCodeBatches(_ReplacedCodeBatches):
    """Batches in which some of the codes that the transformer reads are another picture's; its targets stay.

    A picture once begun foretells how it goes on, and a small transformer learns that long before it learns to look
    at the text. Where codes read cannot be trusted the text can, so it is looked at from the start; and a transformer
    that draws reads codes of its own, which are not always right either.

    What replaces a code is what the batch's next picture has at the same place.
    """

    _stream = 1

    def _replacement(self, batch: TokenBatch) -> Int64[np.ndarray, "b k"]:
        codes = batch.targets[batch.image_mask].reshape(len(batch.tokens), -1)
        return np.roll(codes, -1, axis=0)


class MaskedCodeBatches(_ReplacedCodeBatches):
    """Batches in which some of the codes that the transformer reads are hidden behind [MASK]; its targets stay.

    From all codes hidden to none, a sequence goes from what the text alone says of every code to a picture that is
    all but told. That is how a text is learnt fast: which thing stands where has to be known again for each code, and
    not for the first one of a thing alone.
    """

    _stream = 3

    def _replacement(self, batch: TokenBatch) -> np.int64:
        return np.int64(self.template.vocabulary.separator("MASK"))


class FewCodeBatches:
    """Batches in which each sequence holds a few of its picture's codes, drawn anew each time, and not the others.

    Most codes follow from those beside them, so a step on whole pictures costs much and says little of the text. With
    few codes at known places nearly every one has to be taken from the text, and a sequence is a fraction as long. It
    is how a model may begin; what it has learnt of texts then serves a run on whole pictures.

    The separator before the first code always stays, and with it the first code as a target. Only codes that are learnt
    are left out: of pictures at two sizes, the larger one's.

    Args:
        batches: the batches with all codes.
        num_codes: codes that a sequence keeps as targets, at least 1; each stands right after the code before it, which
            is what the transformer reads.
        seed: of what is kept.
        weight_of_changes: how much rather a code is kept that differs from the one before it: over 1, edges are learnt
            more often than bare ground, and are foretold too often until whole pictures are learnt from.
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
        """Return the sequences of a step, a function of the seed and the step alone."""
        batch = self._batches.batch(step)
        draw = np.random.Generator(np.random.PCG64([self._seed, step, 2]))
        num_rows, num_all = len(batch.tokens), self._num_all
        places = np.nonzero(batch.image_mask)[1].reshape(num_rows, num_all)  # of the tokens before the codes
        if self._weight_of_changes == 1:
            order = draw.permuted(np.tile(np.arange(1, num_all), (num_rows, 1)), axis=1)
        else:
            # Those with the largest of log weight + Gumbel noise are a draw without replacement by weight.
            read, learnt = (
                np.take_along_axis(each, places, axis=1) for each in (batch.tokens, batch.targets)
            )
            keys = np.where(read != learnt, np.log(self._weight_of_changes), 0.0) + draw.gumbel(
                size=read.shape
            )
            order = 1 + np.argsort(-keys[:, 1:], axis=1)
        order = order[:, : self._num_codes - 1]
        kept = np.concatenate([np.zeros((num_rows, 1), dtype=np.int64), np.sort(order, axis=1)], axis=1)
        kept_places = np.take_along_axis(places, kept, axis=1)
        # What comes before the codes, the codes kept, and no more: all else is padding, which nothing attends to.
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

        def taken(array: np.ndarray, padding: int) -> np.ndarray:
            return np.where(is_kept, np.take_along_axis(array, columns, axis=1), padding)

        pad = self.template.vocabulary.separator("PAD")
        return TokenBatch(
            tokens=taken(batch.tokens, pad),
            positions=taken(batch.positions, 0),
            targets=taken(batch.targets, pad),
            text_mask=taken(batch.text_mask, 0).astype(np.bool_),
            image_mask=image_mask,
            num_clipped=batch.num_clipped,
        )


class TwoPhaseBatches:
    """Batches of one kind up to a step, and of another from there on.

    Args:
        first: gives the steps before `num_first_steps`.
        then: gives the others, by their number from the run's beginning.
        num_first_steps: 0 or more.
    """

    def __init__(self, first: BatchSource, then: BatchSource, num_first_steps: int) -> None:
        self.template = then.template
        self._first, self._then, self._num_first_steps = first, then, num_first_steps

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step, a function of the seed and the step alone."""
        return (self._first if step < self._num_first_steps else self._then).batch(step)


def fading(first: float, last: float, start_step: int, num_steps: int) -> Callable[[int], float]:
    """Return what goes evenly from one value at a step to another at the last of `num_steps`, by the step's number."""

    def value(step: int) -> float:
        done = (step - start_step) / max(1, num_steps - 1 - start_step)
        return first + (last - first) * min(1.0, max(0.0, done))

    return value


def mask_batches(
    batches: BatchSource,
    seed: int,
    masking: MaskingConfig,
) -> BatchSource:
    """Mask codes of batches, and keep but a few of them, where a recipe says so; texts are dropped before.

    Args:
        batches: of whole pictures.
        seed: of what is masked and kept.
        masking: how much.
    """
    if masking.masked_codes:
        batches = MaskedCodeBatches(batches, masking.masked_codes, seed)
    if masking.kept_codes is not None:
        batches = FewCodeBatches(batches, masking.kept_codes, seed, masking.weight_of_changes)
    return batches
