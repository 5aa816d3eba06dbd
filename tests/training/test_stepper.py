"""O2: everything in half precision over float32 masters, and a loss scale that skips what overflows."""

import math
from collections.abc import Callable

import pytest
import torch
from tiny_task import TinyModule, TinyTask, tiny_config
from torch.nn.utils import clip_grad_norm_

from cogview.errors import UsageError
from cogview.training.config import LossScaleConfig
from cogview.training.loss_scale import LossScale
from cogview.training.optimizer import build_optimizers
from cogview.training.stepper import Stepper

DTYPES = {"float16_o2": torch.float16, "bfloat16_o2": torch.bfloat16}


def loss_on(module: TinyModule, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    task = TinyTask(dropout=0.0)
    task.module = module
    return task.loss(batch)[0]


def parts(step: int) -> list[dict[str, torch.Tensor]]:
    """Two micro-batches whose weights are 0.5 each, near enough for this."""
    batch = TinyTask().batch(step)
    return [{name: tensor[half::2] for name, tensor in batch.items()} for half in range(2)]


@pytest.mark.parametrize("precision", ["float16_o2", "bfloat16_o2"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.slow
def test_steps_are_those_of_a_reference_by_hand(precision: str, optimizer: str) -> None:
    """The reference has two modules: one of half precision, made anew each step, and its masters."""
    config = tiny_config(optimizer=optimizer, gradient_clip=0.5, loss_scale=LossScaleConfig(initial=1024.0))
    subject = TinyTask(dropout=0.0).module
    stepper = Stepper(subject, config, precision)
    masters = TinyTask(dropout=0.0).module
    optimizers = build_optimizers(masters, config, precision)
    scale = 1024.0 if precision == "float16_o2" else 1.0
    for step in range(4):
        stepper.set_learning_rates()
        for group, theirs in zip(
            (g for o in stepper.optimizers for g in o.param_groups),
            (g for o in optimizers for g in o.param_groups),
            strict=True,
        ):
            theirs["lr"] = group["lr"]
        halves = TinyTask(dropout=0.0).module
        halves.load_state_dict(masters.state_dict())
        for parameter in halves.parameters():
            parameter.data = parameter.data.to(DTYPES[precision])
        sums = {name: torch.zeros_like(p) for name, p in masters.named_parameters()}
        for part in parts(step):
            stepper.backward(loss_on(subject, part), 0.5)
            (loss_on(halves, part) * scale).backward()
            for name, parameter in halves.named_parameters():
                sums[name] += parameter.grad.float() * (0.5 / scale)
            halves.zero_grad()
        for name, parameter in masters.named_parameters():
            parameter.grad = sums[name]
        expected = clip_grad_norm_(masters.parameters(), 0.5)
        for each in optimizers:
            each.step()
            each.zero_grad()
        norm = stepper.step()
        assert norm is not None
        assert norm.item() == expected.item() > 0.5
        assert {p.dtype for p in subject.parameters()} == {DTYPES[precision]}
        for mine, its in zip(subject.parameters(), masters.parameters(), strict=True):
            assert torch.equal(mine, its.to(mine.dtype))
        with stepper.float32_weights():
            for mine, its in zip(subject.parameters(), masters.parameters(), strict=True):
                assert torch.equal(mine, its)
    assert stepper.applied_steps == 4


def test_small_steps_add_up_in_the_masters_where_half_precision_would_lose_them() -> None:
    linear = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(linear.weight)
    config = tiny_config(learning_rate=1e-4, warmup_fraction=0.0, weight_decay=0.0)
    stepper = Stepper(linear, config, "bfloat16_o2")
    for _ in range(20):
        stepper.set_learning_rates()
        stepper.backward(linear(torch.ones(1, 1, dtype=torch.bfloat16)).sum().float(), 1.0)
        stepper.step()
        assert linear.weight.item() == 1.0  # the next number of bfloat16 is 0.004 away
    stepper.close()
    assert linear.weight.dtype == torch.float32
    assert linear.weight.item() < 1 - 1e-3


def overflowing(initial: float, floor: float = 1.0, hysteresis: int = 1) -> tuple[Stepper, TinyModule]:
    module = TinyTask(dropout=0.0).module
    scale = LossScaleConfig(initial=initial, floor=floor, hysteresis=hysteresis)
    return Stepper(module, tiny_config(loss_scale=scale), "float16_o2"), module


def test_a_step_that_overflows_changes_nothing_but_the_scale() -> None:
    stepper, module = overflowing(2.0**20)

    def step() -> torch.Tensor | None:
        stepper.backward(loss_on(module, TinyTask().batch(0)), 1.0)
        return stepper.step()

    before = [p.detach().clone() for p in module.parameters()]
    rate = stepper.set_learning_rates()
    assert step() is None
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert all(not optimizer.state for optimizer in stepper.optimizers)
    assert stepper.set_learning_rates() == rate
    assert (stepper.applied_steps, stepper.overflows) == (0, 1)
    assert stepper.read() == {"loss_scale": 2.0**19, "overflows": 1}
    while (norm := step()) is None:
        assert stepper.overflows < 20
    assert math.isfinite(norm)
    assert stepper.applied_steps == 1
    assert stepper.set_learning_rates() != rate
    assert not any(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def test_an_overflow_at_the_smallest_scale_is_told() -> None:
    stepper, module = overflowing(2.0**20, floor=2.0**20)
    stepper.backward(loss_on(module, TinyTask().batch(0)), 1.0)
    norm = stepper.step()
    assert norm is not None
    assert not math.isfinite(norm)
    assert (stepper.applied_steps, stepper.overflows) == (0, 1)


def test_without_masters_a_step_is_the_plain_one() -> None:
    subject, reference = TinyTask(dropout=0.0).module, TinyTask(dropout=0.0).module
    config = tiny_config()
    stepper, [adamw] = Stepper(subject, config, "float32"), build_optimizers(reference, config)
    adamw.param_groups[0]["lr"] = adamw.param_groups[1]["lr"] = stepper.set_learning_rates()
    stepper.backward(loss_on(subject, TinyTask().batch(0)), 1.0)
    loss_on(reference, TinyTask().batch(0)).backward()
    norm = stepper.step()
    assert norm == clip_grad_norm_(reference.parameters(), config.gradient_clip)
    adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(subject.parameters(), reference.parameters(), strict=True))
    assert stepper.read() == {}


def scales(overflows: str, **config: object) -> list[float]:
    """Return the scale after each step; an x is an overflow."""
    scale = LossScale(LossScaleConfig(**{"initial": 16.0, "window": 3, "hysteresis": 2, **config}))
    values = []
    for letter in overflows:
        scale.update(letter == "x")
        values.append(scale.value)
    return values


def test_the_scale_doubles_after_a_window_without_overflow() -> None:
    assert scales("......") == [16, 16, 32, 32, 32, 64]
    assert scales("..x...", hysteresis=5) == [16, 16, 16, 16, 16, 32]


def test_hysteresis_forgives_overflows_until_the_scale_doubles() -> None:
    assert scales("xxx") == [16, 8, 4]
    assert scales("x..x") == [16, 16, 16, 8]
    assert scales("x...x") == [16, 16, 16, 32, 32]


def test_the_scale_stops_at_its_floor() -> None:
    assert scales("xxxxxx", floor=3.0) == [16, 8, 4, 3, 3, 3]
    scale = LossScale(LossScaleConfig(initial=2.0, hysteresis=1))
    exhausted = []
    for overflowed in (True, True, False, True):
        scale.update(overflowed)
        exhausted.append(scale.is_exhausted)
    assert exhausted == [False, True, False, True]


def test_the_state_of_a_scale_is_all_of_it() -> None:
    config = LossScaleConfig(initial=16.0, window=3)
    for first in ("x.", "..", "xx"):
        one, other = LossScale(config), LossScale(config)
        for letter in first:
            one.update(letter == "x")
        other.load_state(one.state())
        for scale in (one, other):
            for letter in ".x..x":
                scale.update(letter == "x")
        assert one.state() == other.state()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LossScaleConfig(window=0), r"loss_scale\.window.* 1.* 0"),
        (lambda: LossScaleConfig(floor=0.0), r"loss_scale\.floor.* 0"),
        (lambda: LossScaleConfig(initial=1.0, floor=2.0), r"loss_scale\.initial.* 2\.0 and 1\.0"),
        (lambda: tiny_config(peak_tflops=0.0), "peak_tflops.* 0.* 0"),
        (lambda: tiny_config(max_rollbacks=-1), "max_rollbacks.* -1"),
    ],
)
def test_impossible_numbers_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()
