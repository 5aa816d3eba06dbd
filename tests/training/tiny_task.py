"""A task small enough for tests, with all that makes a resume hard: dropout, a moving average, two norms."""

import time

import torch
from torch import nn
from torch.nn import functional as F

from cogview.training.config import TrainingConfig
from cogview.training.task import Batch, Mean, Metrics, Scalars


class TinyModule(nn.Module):
    """A convolution, two matrices, a norm and an embedding that is also the head, as the transformer's is."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.Linear(8, 8, bias=False)
        self.mix_again = nn.Linear(8, 8, bias=False)  # of the shape of the first: Muon takes them together
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(8, 8)
        self.head = nn.Linear(8, 8)
        self.head.weight = self.embedding.weight
        self.register_buffer("mean_state", torch.zeros(8))

    def forward(self, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        images = images.to(self.convolution.weight.dtype)  # half precision with O2
        features = self.mix_again(self.mix(F.gelu(self.convolution(images)).mean(dim=(2, 3))))
        states = self.dropout(self.norm(features + self.embedding(ids)))
        self.last_state = states.detach().float().mean(dim=0)
        return self.head(states)


class TinyTask:
    """Learns to tell the colour of an image, shifted by an id."""

    channels_last = False

    def __init__(
        self,
        batch_size: int = 8,
        *,
        dropout: float = 0.1,
        fixed_batch: bool = False,
        delay_seconds: float = 0.0,
    ) -> None:
        torch.manual_seed(1)
        self.module = TinyModule(dropout)
        self.batch_size = batch_size
        self.fixed_batch = fixed_batch
        self.delay_seconds = delay_seconds

    def batch(self, step: int) -> Batch:
        time.sleep(self.delay_seconds)
        generator = torch.Generator().manual_seed(0 if self.fixed_batch else step)
        colors = torch.randint(3, (self.batch_size,), generator=generator)
        images = torch.rand(self.batch_size, 3, 4, 4, generator=generator)
        images += 2 * F.one_hot(colors, 3)[:, :, None, None]
        ids = torch.randint(8, (self.batch_size,), generator=generator)
        # Rows count differently, as texts of different lengths do.
        weights = torch.randint(1, 4, (self.batch_size,), generator=generator)
        return {"images": images, "ids": ids, "weights": weights, "targets": colors + ids % 4}

    def num_items(self, batch: Batch) -> tuple[int, str]:
        return int(batch["weights"].sum()), "images"

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        logits = self.module(batch["images"], batch["ids"]).float()
        losses = F.cross_entropy(logits, batch["targets"], reduction="none")
        total, weight = (losses * batch["weights"]).sum(), batch["weights"].sum()
        logit = Mean(logits.detach().sum(), logits.numel())
        return total / weight, {"color_loss": Mean(total.detach(), weight), "logit": logit}

    def work(self, batch: Batch) -> dict[str, float]:
        return {"tokens": 2.0 * len(batch["ids"]), "flops": 1e6}

    def telemetry(self, batch: Batch) -> Scalars:
        return {"largest_weight": self.module.mix.weight.abs().max()}

    def advice(self, completed_steps, metrics):
        return []

    def after_step(self, step: int) -> Scalars:
        self.module.mean_state.lerp_(self.module.last_state, 0.1)
        return {"mean_state": self.module.mean_state.mean()} if step % 3 == 0 else {}


def tiny_config(**changes: object) -> TrainingConfig:
    """Return a config of 30 steps in which logs and checkpoints do not coincide."""
    values = {
        "num_steps": 30,
        "batch_size": 8,
        "num_micro_batches": 2,
        "learning_rate": 1e-2,
        "warmup_fraction": 0.1,
        "log_every_steps": 4,
        "checkpoint_every_steps": 7,
        "device": "cpu",
        **changes,
    }
    return TrainingConfig(**values)
