"""The optimizers with the paper's decay rule, and their schedule.

Differs from the paper: it names Adam; here the weight decay is decoupled from the gradient (AdamW), and Muon may
take over the matrices of linear maps.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from cogview.errors import UsageError
from cogview.training.config import ComputedPrecision, TrainingConfig
from cogview.training.muon import Muon
from cogview.training.parallel import by_mesh


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Split parameters into those that decay and those that don't.

    Biases and the weights of norms are exactly the parameters with one dimension (or none); matrices,
    convolution kernels and embeddings decay.

    Paper: section 2.3.
    """
    held = list(parameters)
    groups: list[dict[str, object]] = [
        {"params": [p for p in held if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in held if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizers(
    module: nn.Module, config: TrainingConfig, precision: ComputedPrecision = "float32"
) -> list[torch.optim.Optimizer]:
    """Build the optimizers of the module where it lies: each trainable parameter is in one of them.

    AdamW updates all in one fused kernel. With `optimizer` "muon", the weights of linear maps are Muon's: its
    steps move each matrix equally in all directions, while embeddings, a head tied to them, norms and biases stay
    with AdamW. Muon has a peak rate and a decay of its own, and makes its updates orthogonal in bfloat16 where the run
    computes in it, else in float32.

    Raises:
        UsageError: Muon was asked for, and there are no linear maps to train.
    """
    matrices: list[nn.Parameter] = []
    if config.optimizer == "muon":
        tables = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
        linear = {id(child.weight) for child in module.modules() if isinstance(child, nn.Linear)} - tables
        matrices = [p for p in module.parameters() if p.requires_grad and id(p) in linear]
        if not matrices:
            raise UsageError(
                "optimizer muon has nothing to do here, since no linear maps are trained: leave it at adamw."
            )
    taken = {id(weight) for weight in matrices}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = []
    if others:
        groups = [group for part in by_mesh(others) for group in parameter_groups(part, config.weight_decay)]
        optimizers.append(
            torch.optim.AdamW(
                groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
            )
        )
    if matrices:
        optimizers.append(
            Muon(
                matrices,
                lr=config.muon_learning_rate,
                weight_decay=config.muon_weight_decay,
                momentum=config.muon_momentum,
                dtype=torch.bfloat16 if precision.startswith("bfloat16") else torch.float32,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_learning_rate"] = group["lr"]
    return optimizers


def set_learning_rates(
    optimizers: Sequence[torch.optim.Optimizer], step: int, config: TrainingConfig
) -> float:
    """Give every group its rate of a step, all the same share of their peaks, and return AdamW's."""
    learning_rate = learning_rate_at(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["peak_learning_rate"] / config.learning_rate
    return learning_rate


def describe_new_schedule(applied_steps: int, num_steps_before: int, config: TrainingConfig) -> str:
    """Say at which rate a run goes on that is given more steps than its schedule was made for.

    Args:
        applied_steps: done so far.
        num_steps_before: that the schedule was made for.
        config: with the new number.
    """
    old = learning_rate_at(max(0, applied_steps - 1), dataclasses.replace(config, num_steps=num_steps_before))
    return (
        f"The schedule was made for {num_steps_before:,} steps; the run goes on where it would be in one of "
        f"{config.num_steps:,}: the learning rate goes from {old:.3g} to {learning_rate_at(applied_steps, config):.3g}."
    )


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of an applied step: a linear rise to the peak, then a half cosine down to the floor.

    The last step of the warm-up has the peak, the last step of the run has the floor.

    Args:
        step: counts applied steps from 0; those skipped for an overflow are not among them.
        config: its peak, floor, warm-up and number of steps.

    Paper: section 2.3.
    """
    num_warmup_steps = round(config.warmup_fraction * config.num_steps)
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    progress = (step + 1 - num_warmup_steps) / max(1, config.num_steps - num_warmup_steps)
    floor = config.final_learning_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
