import math
from itertools import pairwise

import pytest
import torch
from tiny_task import TinyModule, tiny_config

from cogview.errors import UsageError
from cogview.training.config import TrainingConfig
from cogview.training.muon import Muon
from cogview.training.optimizer import (
    build_optimizers,
    learning_rate_at,
    parameter_groups,
    set_learning_rates,
)


def schedule(**changes: object) -> list[float]:
    config = TrainingConfig(num_steps=1000, batch_size=1, **changes)
    return [learning_rate_at(step, config) for step in range(1000)]


def test_the_rate_rises_linearly_over_two_percent_of_the_steps() -> None:
    rates = schedule(learning_rate=3e-4)
    assert rates[0] == pytest.approx(3e-4 / 20)
    assert rates[9] == pytest.approx(1.5e-4)
    assert rates[19] == pytest.approx(3e-4)


def test_the_rate_then_follows_half_a_cosine_down_to_the_floor() -> None:
    rates = schedule(learning_rate=3e-4, final_learning_rate_fraction=0.1)
    assert max(rates) == rates[19]
    assert all(earlier > later for earlier, later in pairwise(rates[19:]))
    assert rates[19 + 490] == pytest.approx(3e-4 * (0.1 + 0.9 / 2))
    assert rates[19 + 245] == pytest.approx(3e-4 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2))
    assert rates[-1] == pytest.approx(3e-5)


def test_without_warmup_the_rate_falls_from_the_first_step_on() -> None:
    rates = schedule(learning_rate=1.0, warmup_fraction=0.0, final_learning_rate_fraction=0.0)
    assert rates[0] == pytest.approx(1.0, abs=1e-5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_a_run_that_only_warms_up_ends_at_the_peak() -> None:
    assert schedule(learning_rate=1.0, warmup_fraction=1.0)[-1] == pytest.approx(1.0)


def test_only_biases_and_norms_do_not_decay() -> None:
    module = TinyModule(dropout=0.0)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decaying, others = parameter_groups(module.parameters(), weight_decay=0.04)
    assert {names[id(p)] for p in decaying["params"]} == {
        "convolution.weight",
        "embedding.weight",
        "mix.weight",
        "mix_again.weight",
    }
    assert {names[id(p)] for p in others["params"]} == {
        "convolution.bias",
        "norm.weight",
        "norm.bias",
        "head.bias",
    }
    assert decaying["weight_decay"] == 0.04
    assert others["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    module = TinyModule(dropout=0.0)
    module.convolution.requires_grad_(False)
    [optimizer] = build_optimizers(module, TrainingConfig(num_steps=1, batch_size=1))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert module.convolution.weight not in set(parameters)
    assert len(parameters) == 6


def test_the_optimizer_has_the_papers_betas_and_decay() -> None:
    [optimizer] = build_optimizers(TinyModule(dropout=0.0), TrainingConfig(num_steps=1, batch_size=1))
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert optimizer.param_groups[0]["weight_decay"] == 0.04


def muon_config(**changes: object) -> TrainingConfig:
    return TrainingConfig(num_steps=10, batch_size=1, optimizer="muon", warmup_fraction=0.0, **changes)


def test_muon_takes_the_linear_maps_and_adamw_all_else_tied_heads_included() -> None:
    module = TinyModule(dropout=0.0)
    adamw, muon = build_optimizers(module, muon_config())
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, Muon)
    assert [p for group in muon.param_groups for p in group["params"]] == [
        module.mix.weight,
        module.mix_again.weight,
    ]
    others = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert others == {id(p) for p in module.parameters()} - {
        id(module.mix.weight),
        id(module.mix_again.weight),
    }


def test_muon_without_linear_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="muon"):
        build_optimizers(torch.nn.Conv2d(3, 4, 3), muon_config())


def test_a_step_of_muon_is_as_long_in_every_direction() -> None:
    """The update of a square matrix is all but orthogonal, however lopsided its gradient."""
    linear = torch.nn.Linear(16, 16, bias=False)
    before = linear.weight.detach().clone()
    [muon] = build_optimizers(linear, muon_config(muon_learning_rate=0.1, weight_decay=0.0))
    left, _ = torch.linalg.qr(torch.randn(16, 16))
    linear.weight.grad = left * torch.logspace(0, -1, 16)
    muon.step()
    lengths = torch.linalg.svdvals((linear.weight.detach() - before) / 0.1)
    assert lengths.min() > 0.6
    assert lengths.max() < 1.4


def test_both_optimizers_follow_one_schedule_below_peaks_of_their_own() -> None:
    module = TinyModule(dropout=0.0)
    config = muon_config(learning_rate=1e-3, muon_learning_rate=0.02)
    optimizers = build_optimizers(module, config)
    for step in (0, 4, 9):
        assert set_learning_rates(optimizers, step, config) == learning_rate_at(step, config)
        share = learning_rate_at(step, config) / 1e-3
        assert optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * share)
        assert optimizers[1].param_groups[0]["lr"] == pytest.approx(0.02 * share)


def test_muon_decays_matrices_by_its_own_rate_and_decay() -> None:
    linear = torch.nn.Linear(8, 8, bias=False)
    before = linear.weight.detach().clone()
    [muon] = build_optimizers(linear, muon_config(muon_learning_rate=0.5, muon_weight_decay=0.02))
    linear.weight.grad = torch.zeros_like(linear.weight)
    muon.step()
    assert torch.allclose(linear.weight, before * (1 - 0.5 * 0.02))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_muon_is_pytorchs_up_to_the_rounding_of_bfloat16(dtype: torch.dtype) -> None:
    shapes = [(24, 8), (8, 24), (16, 16), (24, 8)]
    ours = [torch.nn.Parameter(torch.randn(*shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = [
        Muon(ours, lr=0.05, weight_decay=0.1, momentum=0.9, dtype=dtype),
        torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1, momentum=0.9),
    ]
    start = [p.detach().clone() for p in ours]
    for _ in range(3):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, its, first in zip(ours, theirs, start, strict=True):
        # bfloat16 keeps 8 bits, and five iterations of three products round one after the other.
        assert (mine - its).norm() < 0.03 * (its - first).norm()


def test_muon_leaves_alone_what_has_no_gradient() -> None:
    used, unused = (torch.nn.Parameter(torch.randn(4, 4)) for _ in range(2))
    before = unused.detach().clone()
    muon = Muon([used, unused], lr=0.1, weight_decay=0.1, momentum=0.9)
    used.grad = torch.randn(4, 4)
    muon.step()
    assert torch.equal(unused, before)
    assert unused not in muon.state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 0}, "num_steps.* 1.* 0"),
        ({"learning_rate": 0.0}, "^learning_rate.* 0 .* 0.0"),
        ({"learning_rate": math.nan}, "learning_rate.* 0 .* nan"),
        ({"learning_rate": math.inf}, "learning_rate.* 0 .* inf"),
        ({"weight_decay": math.inf}, "^weight_decay.* inf"),
        ({"warmup_fraction": 1.5}, "warmup_fraction.* 0 and 1.* 1.5"),
        ({"betas": (0.9, 1.0)}, "betas.* 0 .* 1"),
        ({"batch_size": 8, "num_micro_batches": 3}, "num_micro_batches.* 8 and 3"),
        ({"muon_momentum": 1.0}, "muon_momentum.* 0 .* 1, .* 1.0"),
        ({"muon_weight_decay": -0.1}, "muon_weight_decay.* -0.1"),
        ({"muon_learning_rate": 0.0}, "muon_learning_rate.* 0 .* 0.0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints.* 1.* 0"),
        ({"seed": -1}, "seed.* -1"),
    ],
)
def test_impossible_numbers_are_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tiny_config(**change)
