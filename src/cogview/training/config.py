"""Options of a training run, common to both stages."""

import math
from dataclasses import dataclass, field
from typing import Literal

from cogview.errors import UsageError

ComputedPrecision = Literal["float32", "bfloat16", "bfloat16_o2", "float16_o2"]
"""Precision of a run; `_o2` is everything in half precision with float32 master weights."""


@dataclass(frozen=True, kw_only=True)
class LossScaleConfig:
    """Loss scaling, which keeps small fp16 gradients from becoming zero.

    Args:
        initial: scale of the first step.
        window: applied steps in a row after which the scale doubles.
        hysteresis: overflows since the last doubling until the scale halves; each later one halves it again.
        floor: smallest scale; an overflow there counts as a loss that is not finite.

    Paper: 2.4 (fp16); numbers from the release, except the initial scale, 2^32 there.
    """

    initial: float = 65_536.0
    window: int = 1_000
    hysteresis: int = 2
    floor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("window", "hysteresis"):
            if getattr(self, name) < 1:
                raise UsageError(f"loss_scale.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.floor <= self.initial < math.inf:
            raise UsageError(
                f"loss_scale.floor must be greater than 0 and at most loss_scale.initial, got {self.floor} and "
                f"{self.initial}."
            )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of one training run; the defaults are the paper's where it gives one.

    Args:
        num_steps: optimizer steps of the whole run and its schedule; a resume may raise it.
        batch_size: samples per step, over all micro-batches.
        num_micro_batches: equal parts of a batch, for less memory; their gradients are summed.
        optimizer: adamw for all parameters, or muon for the weights of linear maps and AdamW for the rest.
        learning_rate: AdamW's peak, at the end of the warm-up.
        muon_learning_rate: Muon's peak, for a square matrix; matrices with more rows than columns step further.
        muon_momentum: Muon's decay rate of the mean gradient.
        muon_weight_decay: decoupled, times Muon's rate; too little lets attention collapse to a single token.
        final_learning_rate_fraction: end of the cosine, as a fraction of the peak.
        warmup_fraction: share of the steps with a linearly rising rate.
        betas: AdamW's decay rates of the mean and the squared gradient.
        epsilon: AdamW's addition to the denominator.
        weight_decay: decoupled, for matrices, kernels and embeddings; not for biases and norms.
        gradient_clip: largest Euclidean norm of the whole gradient; 0 disables clipping.
        precision: float32 (no TF32); bfloat16 autocast; auto, bfloat16 where it is fast; bfloat16_o2 or float16_o2 (the
            paper's): half precision except master weights, gradient sums and optimizer state, for transformers only.
        loss_scale: of float16_o2; a step whose gradient overflows is skipped and does not count for the schedule.
        max_rollbacks: how often a run with a spiking or non-finite loss returns to its last checkpoint and skips that
            data, before it stops; with 0, spikes are ignored.
        spike_threshold: a spike exceeds the median of the last 128 losses by this many deviations (1.48 times the
            median distance from the median, at least 1 % of the median).
        peak_tflops: the device's peak in 10^12 operations per second, for the metric mfu: a number, auto for known
            GPUs, or measure to time a large product at the start.
        compile: compile the loss with torch.compile; needs a C++ compiler, else the run is eager.
        device: cpu or cuda; auto takes CUDA if there is one.
        seed: with the step number, the only source of randomness; less than 2^63.
        log_every_steps: steps between lines of metrics; nothing is read from the device in between.
        sample_every_steps: steps between sample sheets; 0 for none.
        checkpoint_every_steps: steps between checkpoints; the last step always writes one.
        keep_checkpoints: number of latest checkpoints to keep.
        activation_checkpointing: recompute each transformer block in the backward pass: the same bits, a third more
            work, much less memory.
        tensor_parallel: processes that share each block's matrices and see the same rows; must divide the heads.
        shard_over: processes with different rows that shard the weights, each group holding a full copy; 0 for all.

    Paper: section 2.3 (Adam, betas, weight decay, warm-up over 2 %, cosine).
    """

    num_steps: int
    batch_size: int
    num_micro_batches: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    muon_learning_rate: float = 0.02
    muon_momentum: float = 0.95
    muon_weight_decay: float = 0.1
    final_learning_rate_fraction: float = 0.1
    warmup_fraction: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 4e-2
    gradient_clip: float = 1.0
    precision: Literal["auto", "float32", "bfloat16", "bfloat16_o2", "float16_o2"] = "float32"
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)
    max_rollbacks: int = 0
    spike_threshold: float = 20.0
    peak_tflops: float | Literal["auto", "measure"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    log_every_steps: int = 10
    sample_every_steps: int = 0
    checkpoint_every_steps: int = 500
    keep_checkpoints: int = 2
    activation_checkpointing: bool = False
    tensor_parallel: int = 1
    shard_over: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        positive = ("num_steps", "batch_size", "num_micro_batches", "log_every_steps")
        for name in (*positive, "checkpoint_every_steps", "keep_checkpoints", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "muon_learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be greater than 0 and finite, got {getattr(self, name)}.")
        if not self.spike_threshold > 0:
            raise UsageError(f"spike_threshold must be greater than 0, got {self.spike_threshold}.")
        for name in ("weight_decay", "muon_weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must not be negative, and finite, got {getattr(self, name)}.")
        for name in (
            "gradient_clip",
            "sample_every_steps",
            "seed",
            "shard_over",
            "max_rollbacks",
        ):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.seed >= 1 << 63:
            raise UsageError(f"seed must be less than 2^63, got {self.seed}.")
        for name in ("final_learning_rate_fraction", "warmup_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas must be at least 0 and less than 1, got {self.betas}.")
        if not 0 <= self.muon_momentum < 1:
            raise UsageError(f"muon_momentum must be at least 0 and less than 1, got {self.muon_momentum}.")
        if not isinstance(self.peak_tflops, str) and not self.peak_tflops > 0:
            raise UsageError(f"peak_tflops must be greater than 0, got {self.peak_tflops}.")
        if self.batch_size % self.num_micro_batches:
            raise UsageError(
                f"batch_size must be a multiple of num_micro_batches, got {self.batch_size} and "
                f"{self.num_micro_batches}."
            )


OPERATIONAL_FIELDS = (
    "compile",
    "device",
    "sample_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "activation_checkpointing",
    "tensor_parallel",
    "shard_over",
    "max_rollbacks",
    "peak_tflops",
)
"""Fields that may change on a resume: they do not affect what is computed."""


@dataclass(frozen=True, kw_only=True)
class TokenLossConfig:
    """Loss of the transformer's tokens.

    Args:
        text_weight: weight of a text token, relative to 1 of an image token; with 0 the model fails to connect text and
            picture.
        normaliser: ids of a target's softmax: the whole vocabulary, as in the paper, or the legal ones only (codes for
            codes; pieces and separators for text), which is faster and matches sampling.
        z_loss_weight: weight of the squared log-normaliser, which keeps logits from drifting; 1e-4 is usual. Not in the
            paper.

    Paper: 2.2, text and image tokens weigh the same.
    """

    text_weight: float = 1.0
    normaliser: Literal["vocabulary", "legal"] = "vocabulary"
    z_loss_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("text_weight", "z_loss_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or more and finite, got {getattr(self, name)}")
