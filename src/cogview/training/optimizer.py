"""AdamW with the paper's decay rule, and its schedule.

Differs from the paper: it names Adam; here the weight decay is decoupled from the gradient (AdamW).
"""

import math

import torch
from torch import nn

from cogview.training.config import TrainingConfig


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the trainable parameters into those that decay and those that don't.

    Biases and the weights of norms are exactly the parameters with one dimension (or none); matrices,
    convolution kernels and embeddings decay.

    Paper: section 2.3.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def build_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Build AdamW for the module where it lies; one fused kernel updates all parameters."""
    groups = [group for group in parameter_groups(module, config.weight_decay) if group["params"]]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step: a linear rise to the peak, then a half cosine down to the floor.

    The last step of the warm-up has the peak, the last step of the run has the floor.

    Args:
        step: counts from 0.
        config: its peak, floor, warm-up and number of steps.

    Paper: section 2.3.
    """
    num_warmup_steps = round(config.warmup_fraction * config.num_steps)
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    progress = (step + 1 - num_warmup_steps) / max(1, config.num_steps - num_warmup_steps)
    floor = config.final_learning_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
