"""How a run trains, whichever the stage."""

import math
from dataclasses import dataclass, field
from typing import Literal

from cogview.errors import UsageError

ComputedPrecision = Literal["float32", "bfloat16", "bfloat16_o2", "float16_o2"]
"""What a run computes in; `_o2` is everything in half precision, over float32 master weights."""


@dataclass(frozen=True, kw_only=True)
class LossScaleConfig:
    """By how much the loss is multiplied before its gradient is computed in fp16, so that little becomes zero.

    Args:
        initial: of the first step.
        window: applied steps in a row after which the scale doubles.
        hysteresis: overflows, counted since the scale last doubled, of which the last halves it, and each after that.
        floor: it is never less. A step that overflows there counts as one whose loss is not finite.

    Paper: 2.4 (fp16); the numbers are the release's but for the start, 2^32 there.
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
    """The numbers of one training run; the defaults are the paper's where it names one.

    Args:
        num_steps: optimizer steps of the whole run; the schedule stretches over them. A resume may raise it.
        batch_size: samples of a step, over all its micro-batches.
        num_micro_batches: equal parts a batch is cut into to fit the memory; gradients are summed over them.
        optimizer: "adamw" for all parameters, or "muon" for the weights of linear maps and AdamW for the rest.
        learning_rate: AdamW's peak, reached at the end of the warm-up.
        muon_learning_rate: Muon's peak, for a square matrix; those with more rows than columns step further.
        muon_momentum: Muon's decay rate of the mean of the gradient.
        muon_weight_decay: decoupled, times Muon's rate. Its steps have one length whatever the gradient, so without
            enough decay the maps to queries and keys grow until attention sees one token only and learns no more.
        final_learning_rate_fraction: where the cosine ends, as a fraction of the peak.
        warmup_fraction: the share of the steps over which the rate rises linearly from zero.
        betas: AdamW's decay rates of the mean and of the square of the gradient.
        epsilon: AdamW's addition to the denominator.
        weight_decay: decoupled, for matrices, kernels and embeddings; biases and norms have none.
        gradient_clip: the largest Euclidean norm of all gradients together; 0 turns clipping off.
        precision: "float32" is that in convolutions on GPUs too, without TF32. "bfloat16" computes under autocast,
            "auto" does where the device has instructions for it (and a resume elsewhere goes on in what is fast there);
            weights and optimizer state are float32 in any case.
            "bfloat16_o2" and "float16_o2" (the paper's) compute everything in half precision, norms and all, with
            weights, activations and gradients of two bytes; master weights, the sum of the micro-batches' gradients
            and optimizer state are float32. For transformers only.
        loss_scale: of float16_o2. A step whose gradient overflows is skipped: it does not count for the schedule.
        max_rollbacks: how often a run whose loss spikes or becomes infinite or NaN goes back to its last checkpoint
            and leaves out the data from there to the trouble; after that many, or with 0, it stops. A loss that only
            spikes never stops a run with 0.
        spike_threshold: what counts as a spike: a step's loss above the median of the last 128 by more than so many
            of their deviations (1.48 times the median distance from the median, but at least 1 % of the median).
        peak_tflops: what the device computes at most in 10^12 operations a second, for the metric `mfu`: a number,
            "auto" for what is known of some GPUs (else there is no such metric), or "measure" for that of a large
            product, timed as the run begins.
        compile: compile the loss with torch.compile; needs a C++ compiler, without one the run is eager.
        device: "auto" takes CUDA if there is one.
        seed: with the step number, the only source of randomness; less than 2^63.
        log_every_steps: how often means of the metrics are written; nothing is read from the device between.
        sample_every_steps: how often the caller's sample sheet is drawn; 0 for never.
        checkpoint_every_steps: how often a checkpoint is written; the last step always gets one.
        keep_checkpoints: how many of the latest checkpoints stay.
        activation_checkpointing: keep of each block of the transformer its input alone for the backward pass, which
            then computes the block again: the same bits for a third more work and a fraction of the memory.
        tensor_parallel: over how many processes each matrix of a block is spread that all see the same rows; divides
            the heads. The others see other rows of the batch.
        shard_over: over how many processes with other rows the weights are spread; the groups of so many hold the same
            ones. 0 for all of them.

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
        """Refuse numbers that no run can have, naming the field."""
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
"""Fields that may differ when a run is resumed: they say how it is carried out, not what is computed."""


@dataclass(frozen=True, kw_only=True)
class TokenLossConfig:
    """What the transformer is trained to predict.

    Args:
        text_weight: weight of a text token against an image token's 1. With 0 the model fails to connect text
            and picture.
        normaliser: over what the softmax of a target is taken: the whole `vocabulary`, as in the paper, or the
            `legal` ids only (image codes where a code stands, pieces and separators where text does). Sampling
            draws from the legal ids anyway, and fewer rows of the head are computed.
        z_loss_weight: weight of the square of a target's log-normaliser, which is added to its cross-entropy and keeps
            logits from drifting; 1e-4 is usual. Beyond the paper, off by default.

    Paper: 2.2, text and image tokens weigh the same.
    """

    text_weight: float = 1.0
    normaliser: Literal["vocabulary", "legal"] = "vocabulary"
    z_loss_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("text_weight", "z_loss_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or more and finite, got {getattr(self, name)}")
