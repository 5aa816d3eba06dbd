"""Runs that go wrong go back, leave out the data that made them, and end as they would have without a kill."""

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import TinyTask, tiny_config

from cogview.errors import CogViewError
from cogview.training.checkpoint import list_checkpoints
from cogview.training.config import LossScaleConfig
from cogview.training.divergence import LossWatch
from cogview.training.loop import train
from cogview.training.metrics import read_metrics

TIMES = {"seconds", "items_per_second", "tokens_per_second"}

pytestmark = pytest.mark.usefixtures("no_tensorboard")


class Exploding(TinyTask):
    """Has batches whose loss is not finite, or large."""

    def __init__(self, bad: dict[int, float]) -> None:
        super().__init__()
        self.bad = bad
        self.seen: list[int] = []

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        self.seen.append(step)
        factor = torch.full((self.batch_size,), self.bad.get(step, 1.0))
        return {**super().batch(step), "factor": factor}

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, metrics = super().loss(batch)
        return loss * batch["factor"].mean(), metrics


def results(run_folder: Path) -> tuple[dict[str, list[float]], list[dict[str, float]]]:
    folder = list_checkpoints(run_folder / "checkpoints")[-1]
    weights = {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}
    lines = read_metrics(run_folder / "metrics.jsonl")
    return weights, [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def watched(losses: list[float], threshold: float | None = 20.0) -> object:
    watch = LossWatch(threshold)
    for step, loss in enumerate(losses):
        watch.add(step, torch.tensor(loss), torch.tensor(1.0))
    return watch.read()


def test_the_first_step_that_is_not_finite_is_named() -> None:
    assert watched([1.0, 2.0]) is None
    assert "NaN in step 2" in str(watched([1.0, math.inf, math.nan, 2.0]))
    watch = LossWatch(None)
    watch.add(6, torch.tensor(1.0), torch.tensor(math.nan))
    assert watch.read().step == 6
    assert watch.read() is None


def test_a_leap_is_told_from_noise_and_from_learning() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, generator=generator).abs().tolist()  # half of it above, far from symmetric
    falling = [8 * math.exp(-step / 60) + 1 + 0.3 * noise[step] for step in range(300)]
    assert watched(falling) is None
    assert watched([*falling, 2.5]) is None
    trouble = watched([*falling, 9.0])
    assert trouble.step == 300
    assert re.search(r"\b9 in step 301, .*\b1\.408\b", str(trouble))
    assert watched([*falling, 9.0], threshold=None) is None
    assert watched([1.0] * 200 + [1.15]) is None  # losses that hardly vary may rise by a fifth
    assert watched([1.0] * 200 + [1.25]) is not None
    assert watched([1.0] * 10 + [50.0]) is None  # too early to know what is usual


def test_a_leap_does_not_depend_on_when_it_is_asked_for() -> None:
    losses = [1.0 + 0.01 * (step % 7) for step in range(100)]
    losses[80] = 3.0
    at_once, bit_by_bit = watched(losses), LossWatch(20.0)
    other = LossWatch(20.0)
    found = []
    for step, loss in enumerate(losses):
        bit_by_bit.add(step, torch.tensor(loss), torch.tensor(1.0))
        found.append(bit_by_bit.read())
        if step == 50:  # and not on a resume between
            other.load_state(bit_by_bit.state())
            bit_by_bit = other
    assert [trouble for trouble in found if trouble] == [at_once]
    assert at_once.step == 80


@pytest.mark.slow
def test_nan_goes_back_and_leaves_out_the_data_up_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Exploding({16: math.nan})
    summary = train(task, tiny_config(max_rollbacks=1), tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "back to" in line]
    assert len(lines) == 1
    assert re.search(r"NaN in step 17: .*step 14 \(rollback 1 of 1\).* 3 batches", lines[0])
    # Found at the line of step 20; one batch more was being made then.
    assert task.seen == [*range(21), *range(17, 33)]
    assert (summary.metrics["num_rollbacks"], summary.metrics["skipped_batches"]) == (1, 3)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        4,
        8,
        12,
        16,
        20,
        24,
        28,
        30,
    ]
    assert all(math.isfinite(line["loss"]) for line in read_metrics(tmp_path / "metrics.jsonl"))


@pytest.mark.slow
def test_what_was_left_out_makes_no_difference_to_what_is_kept(tmp_path: Path) -> None:
    """Trouble with batches 14 to 16 ends where a task without those batches does."""

    class Without(TinyTask):
        def batch(self, step: int) -> dict[str, torch.Tensor]:
            return dict(super().batch(step if step < 14 else step + 3))

    # Dropout follows the batch too, so there is none here.
    exploding, without = Exploding({16: math.inf}), Without(dropout=0.0)
    exploding.module.dropout.p = 0.0
    train(exploding, tiny_config(max_rollbacks=1), tmp_path / "exploding")
    train(without, tiny_config(), tmp_path / "without")
    assert results(tmp_path / "exploding")[0] == results(tmp_path / "without")[0]


@pytest.mark.slow
def test_trouble_before_the_first_checkpoint_goes_back_to_the_start(tmp_path: Path) -> None:
    task = Exploding({2: math.nan})
    summary = train(task, tiny_config(max_rollbacks=1), tmp_path)
    assert summary.metrics["skipped_batches"] == 3
    assert max(task.seen) == 32


@pytest.mark.slow
def test_a_leaping_loss_goes_back_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Exploding({90: 50.0})
    config = tiny_config(num_steps=100, checkpoint_every_steps=25, log_every_steps=10)
    train(task, config, tmp_path / "let")
    assert "back to" not in capsys.readouterr().err
    train(Exploding({90: 50.0}), tiny_config(**{**vars(config), "max_rollbacks": 1}), tmp_path / "caught")
    assert "in step 91" in capsys.readouterr().err
    assert read_metrics(tmp_path / "caught" / "metrics.jsonl")[-1]["skipped_batches"] == 16


@pytest.mark.slow
def test_a_run_gives_up_after_so_many_rollbacks(tmp_path: Path) -> None:
    task = Exploding({9: math.nan, 15: math.nan, 22: math.nan})
    with pytest.raises(CogViewError, match=r"NaN in step \d+.* 2 rollbacks.*max_rollbacks") as caught:
        train(task, tiny_config(max_rollbacks=2), tmp_path)
    assert "\n" not in str(caught.value)
    # As it says: with more it goes on from there.
    again = train(Exploding(task.bad), tiny_config(max_rollbacks=3), tmp_path, resume=True)
    assert again.metrics["num_rollbacks"] == 3
    # The same in one go.
    train(Exploding(task.bad), tiny_config(max_rollbacks=3), tmp_path.with_name("at-once"))
    assert results(tmp_path) == results(tmp_path.with_name("at-once"))


@pytest.mark.slow
def test_without_rollbacks_the_run_says_what_to_do(tmp_path: Path) -> None:
    task = Exploding({16: math.nan})
    with pytest.raises(CogViewError, match="NaN in step 17;") as caught:
        train(task, tiny_config(), tmp_path)
    for words in ("another run folder", "max_rollbacks 3"):
        assert words in str(caught.value)
    again = train(Exploding(task.bad), tiny_config(max_rollbacks=3), tmp_path, resume=True)
    assert again.metrics["skipped_batches"] == 3


@pytest.mark.parametrize("crashing_step", [13, 15, 19, 23])
@pytest.mark.slow
def test_a_run_that_goes_back_resumes_bit_for_bit(tmp_path: Path, crashing_step: int) -> None:
    class Crash(Exception):
        pass

    def sample(completed_steps: int) -> None:
        if completed_steps == crashing_step:
            raise Crash

    config = tiny_config(max_rollbacks=3, sample_every_steps=1)
    bad = {11: math.nan, 20: math.inf}
    train(Exploding(bad), config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(Exploding(bad), config, tmp_path / "cut", sample=sample)
    train(Exploding(bad), config, tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert read_metrics(tmp_path / "cut" / "metrics.jsonl")[-1]["num_rollbacks"] == 2


@pytest.mark.slow
def test_steps_that_overflow_are_no_trouble_unless_the_scale_is_at_its_floor(tmp_path: Path) -> None:
    free = LossScaleConfig(initial=2.0**24, hysteresis=1)
    summary = train(TinyTask(), tiny_config(precision="float16_o2", loss_scale=free), tmp_path / "free")
    assert 3 < summary.metrics["overflows"] < 15
    # The schedule counts applied steps: it is short of its end by those skipped.
    assert summary.metrics["learning_rate"] > 1.001e-3
    first = read_metrics(tmp_path / "free" / "metrics.jsonl")[0]
    assert math.isnan(first["loss"])  # all of its steps were skipped
    assert first["overflows"] == 4
    short = tiny_config(precision="float16_o2", loss_scale=free, num_steps=3)
    with pytest.raises(CogViewError, match="All 3 steps overflowed"):
        train(TinyTask(), short, tmp_path / "short")
    with pytest.raises(CogViewError, match="All 3 steps overflowed"):  # nor is it done when asked again
        train(TinyTask(), short, tmp_path / "short", resume=True)
    bound = LossScaleConfig(initial=2.0**24, floor=2.0**24)
    with pytest.raises(CogViewError, match="NaN in step 2"):
        train(TinyTask(), tiny_config(precision="float16_o2", loss_scale=bound), tmp_path / "bound")
