"""Two steps of a run are real ones, and their memory is measured."""

import sys

import pytest
import torch
from jaxtyping import Float
from tiny_task import TinyTask, tiny_config
from torch import Tensor

from cogview.training.dry_run import take_two_steps
from cogview.training.task import Batch, Metrics

pytestmark = pytest.mark.slow

LARGE_BYTES = 2**28


class LargeTask(TinyTask):
    """Holds a quarter of a gigabyte for a moment of each step, and remembers its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.steps_done: list[int] = []

    def batch(self, step: int) -> Batch:
        self.steps.append(step)
        return super().batch(step)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        assert float(torch.ones(LARGE_BYTES // 4).sum()) > 0
        return super().loss(batch)

    def after_step(self, step: int) -> dict[str, Tensor]:
        self.steps_done.append(step)
        return super().after_step(step)


@pytest.mark.skipif(sys.platform != "linux", reason="measures what Linux counts")
@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_the_last_steps_are_taken_and_their_peak_is_found(num_steps: int) -> None:
    task = LargeTask()
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    taken = take_two_steps(task, tiny_config(num_steps=num_steps))
    last_two = list(range(max(0, num_steps - 2), num_steps))
    assert task.steps == task.steps_done == last_two
    assert any(not value.equal(before[name]) for name, value in task.module.state_dict().items())
    assert 0.95 * LARGE_BYTES < taken.peak_bytes - taken.bytes_before < 2 * LARGE_BYTES
    assert taken.hours == num_steps * taken.step_seconds / 3600
