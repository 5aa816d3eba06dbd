"""The order of items is a function of seed and step, and every item is seen equally often."""

import numpy as np
import pytest

from cogview.data.loader import batch_indices
from cogview.errors import UsageError


def run_of(seed: int, num_steps: int, batch_size: int, num_items: int) -> list[int]:
    return [i for step in range(num_steps) for i in batch_indices(seed, step, batch_size, num_items).tolist()]


@pytest.mark.parametrize(("batch_size", "num_items"), [(1, 7), (3, 7), (7, 7), (10, 7), (20, 3), (4, 1)])
def test_each_epoch_shows_every_item_once(batch_size: int, num_items: int) -> None:
    seen = run_of(5, 3 * num_items, batch_size, num_items)
    epochs = np.array(seen).reshape(-1, num_items)
    assert (np.sort(epochs, axis=1) == np.arange(num_items)).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = batch_indices(0, 0, 100, 100), batch_indices(0, 1, 100, 100)
    other_seed = batch_indices(1, 0, 100, 100)
    for a, b in [(first, second), (first, other_seed), (second, other_seed)]:
        assert (a == b).mean() < 0.2


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    expected = [batch_indices(3, step, 4, 10).tolist() for step in range(12)]
    backwards = [batch_indices(3, step, 4, 10).tolist() for step in reversed(range(12))]
    assert backwards[::-1] == expected


def test_the_run_is_the_same_however_it_is_cut_into_batches() -> None:
    assert run_of(2, 12, 5, 11) == run_of(2, 5, 12, 11) == run_of(2, 60, 1, 11)


def test_the_order_is_pinned_so_that_an_old_run_can_be_resumed() -> None:
    assert batch_indices(0, 0, 10, 10).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no items"):
        batch_indices(0, 0, 4, 0)
    with pytest.raises(UsageError, match="batch of 0"):
        batch_indices(0, 0, 0, 4)
