"""Optimizers with the paper's weight decay rule, and the learning rate schedule.

Differs from the paper: it names Adam; here weight decay is decoupled (AdamW), and Muon may train linear maps.
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
    """Split parameters into those with and without weight decay.

    Parameters with at most one dimension are biases and norms; matrices, convolution kernels and embeddings decay.

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
    """Build the optimizers; each trainable parameter is in exactly one.

    AdamW runs as one fused kernel. With `optimizer` "muon", the weights of linear maps are Muon's, with a peak rate and
    a decay of their own; embeddings, a tied head, norms and biases stay with AdamW. Muon orthogonalises in bfloat16 if
    the run computes in it, else in float32.

    Raises:
        UsageError: Muon has no linear maps to train.
    """
    matrices: list[nn.Parameter] = []
    if config.optimizer == "muon":
        tables = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
        linear = {id(child.weight) for child in module.modules() if isinstance(child, nn.Linear)} - tables
        matrices = [p for p in module.parameters() if p.requires_grad and id(p) in linear]
        if not matrices:
            raise UsageError("optimizer muon needs linear maps, and none are trained: use adamw.")
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
    """Set every group's rate for a step, the same share of each peak, and return AdamW's."""
    learning_rate = learning_rate_at(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["peak_learning_rate"] / config.learning_rate
    return learning_rate


def describe_new_schedule(applied_steps: int, num_steps_before: int, config: TrainingConfig) -> str:
    """Describe the learning rate of a resumed run with another number of steps.

    Args:
        applied_steps: done so far.
        num_steps_before: of the earlier schedule.
        config: with the new number.
    """
    old = learning_rate_at(max(0, applied_steps - 1), dataclasses.replace(config, num_steps=num_steps_before))
    return (
        f"The schedule was made for {num_steps_before:,} steps; the run goes on where it would be in one of "
        f"{config.num_steps:,}: the learning rate goes from {old:.3g} to {learning_rate_at(applied_steps, config):.3g}."
    )


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of an applied step: linear warm-up, then half a cosine to the floor.

    The last step of the warm-up has the peak, the last step of the run the floor.

    Args:
        step: applied steps before, without those skipped for an overflow.
        config: peak, floor, warm-up and number of steps.

    Paper: section 2.3.
    """
    num_warmup_steps = round(config.warmup_fraction * config.num_steps)
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    progress = (step + 1 - num_warmup_steps) / max(1, config.num_steps - num_warmup_steps)
    floor = config.final_learning_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
