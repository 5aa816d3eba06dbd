"""Which item is learnt from at which step: a function of the seed and the step alone.

Because nothing is remembered from step to step, a resumed run sees the same batches as an uninterrupted one,
and any step's batch can be looked at by itself.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from cogview.errors import UsageError


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
    return _epochs_and_indices(seed, step, batch_size, num_items)[1]


def _epochs_and_indices(
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
