"""The memory of a training step, told by doing one with tensors that hold nothing.

The step is the real one: loss, autocast, clipping and optimizers are those of `cogview.training`. Only a PyTorch built
for CUDA can make such tensors for a GPU, so a CPU's stand for them everywhere; attention is then taken to drop its
weights inside the fused kernel, as GPUs do. Compiled steps are counted as eager ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cogview.errors import UsageError
from cogview.planning.devices import Device
from cogview.planning.tracking import MemoryKind, MemoryTracker
from cogview.recipes.config import TextToImageRecipe
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.training.config import ComputedPrecision
from cogview.training.precision import autocast
from cogview.training.stepper import Stepper
from cogview.training.token_loss import CHUNK_TOKENS
from cogview.training.transformer import TransformerTask
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

# What a CPU process holds beyond its tensors, measured by `bench/plan.py`: the libraries' own buffers, and of the small
# tensors' memory the share that glibc keeps, scattered, for others.
_PROCESS_BYTES, _SCATTERED_SHARE = 2**26, 0.2
MAX_MICRO_BATCH = 1024
"""Beyond this no larger batch is looked for."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """What training needs on one device at its worst moment, in bytes by kind.

    Args:
        micro_batch: sequences at a time on one device.
        bytes_by_kind: of `MemoryKind`; beside them "gathered", whole weights and gradients of the layers at hand where
            many devices share them, and on a CPU "allocator", what the process holds beyond its tensors.
    """

    micro_batch: int
    bytes_by_kind: Mapping[str, float]

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(self.bytes_by_kind.values()))


class TrainingPlanner:
    """Tells what a recipe's training needs on a device.

    Args:
        recipe: what is trained.
        config: its transformer, with the tokens' vocabulary and positions.
        template: of its sequences.
        device: where.
        num_devices: over how many weights, gradients and optimizer state are shared, fully.
    """

    def __init__(
        self,
        recipe: TextToImageRecipe,
        config: TransformerConfig,
        template: TextToImageTemplate,
        device: Device,
        num_devices: int = 1,
    ) -> None:
        self._recipe, self._config, self._whole = recipe, config, template
        self._device, self._num_devices = device, num_devices
        self._template = training_template(recipe, template)
        self.memory = cache(self._memory)

    @property
    def precision(self) -> ComputedPrecision:
        """What the recipe's precision comes to on the device.

        Raises:
            UsageError: the device does not know bfloat16.
        """
        asked = self._recipe.training.precision
        if asked == "auto":
            return "bfloat16" if self._device.has_bfloat16 else "float32"
        if asked.startswith("bfloat16") and not (self._device.is_cpu or self._device.has_bfloat16):
            raise UsageError(
                f"precision is {asked}, which {self._device.name} cannot compute: give --training.precision "
                "float16_o2 or float32"
            )
        return asked

    def on(self, num_devices: int) -> "TrainingPlanner":
        """Return the same for another number of devices."""
        return TrainingPlanner(self._recipe, self._config, self._whole, self._device, num_devices)

    def largest_micro_batch(self, limit_bytes: float) -> int:
        """Return the most sequences at a time that fit, up to `MAX_MICRO_BATCH`; 0 if not even one does."""
        one = self.memory(1).total
        if one > limit_bytes:
            return 0
        # All but a line in the batch: where it crosses the limit is guessed, made sure of, and guessed again between.
        fits, fits_bytes = 1, one
        slope = self.memory(2).total - one
        too_many, too_many_bytes = None, 0.0
        while fits < MAX_MICRO_BATCH and (too_many is None or too_many - fits > 1):
            if too_many is not None:
                slope = (too_many_bytes - fits_bytes) / (too_many - fits)
            guess = fits + max(1, int((limit_bytes - fits_bytes) / slope))
            guess = min(guess, MAX_MICRO_BATCH if too_many is None else too_many - 1)
            total = self.memory(guess).total
            if total <= limit_bytes:
                fits, fits_bytes = guess, total
            else:
                too_many, too_many_bytes = guess, total
        return fits

    def _memory(self, micro_batch: int) -> TrainingMemory:
        """Do a step with nothing in the tensors."""
        n = self._num_devices
        shares: dict[MemoryKind, float] = {}
        if n > 1:
            shares = {"weights": 1 / n, "gradients": 1 / n, "optimizer": 1 / n}
        tracker = MemoryTracker(shares)
        training = self._recipe.training
        chunks = CHUNK_TOKENS["cpu" if self._device.is_cpu else "cuda"]
        with FakeTensorMode() as mode, tracker, patch.dict(CHUNK_TOKENS, cpu=chunks):
            transformer = Transformer(self._config)
            tracker.tag("weights", transformer.parameters())
            if not self._device.is_cpu:
                _drop_within_attention(transformer)
            stepper = Stepper(transformer, training, self.precision)
            if self.precision.endswith("_o2"):
                tracker.tag("weight_copies", transformer.parameters())
            for parameter in transformer.parameters():
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda held: tracker.tag("gradients", [] if held.grad is None else [held.grad])
                )
            task = TransformerTask(
                transformer,
                _FullTexts(template=self._template, num_rows=micro_batch),
                self._recipe.token_loss,
            )
            batch = {name: mode.from_tensor(tensor) for name, tensor in task.batch(0).items()}

            def add_gradients() -> None:
                with tracker.forward_pass(), autocast(self.precision, torch.device("cpu")):
                    loss, _ = task.loss(batch)
                stepper.backward(loss, 1.0)
                tracker.retag("transient", "gradients")  # float32 sums, beside half-precision weights

            # The first step makes the optimizers' state, the second one counts.
            add_gradients()
            stepper.step()
            for optimizer in stepper.optimizers:
                for state in optimizer.state.values():
                    tracker.tag("optimizer", [each for each in state.values() if isinstance(each, Tensor)])
            if training.num_micro_batches > 1:
                add_gradients()
            tracker.forget_peak()
            add_gradients()
            stepper.step()
            peak = {str(kind): num_bytes for kind, num_bytes in tracker.peak.items()}
            if n > 1:
                peak["gathered"] = _gathered_bytes(transformer)
            if self._device.is_cpu:
                most, at_peak = tracker.heap_bytes
                peak["allocator"] = _PROCESS_BYTES + (1 + _SCATTERED_SHARE) * most - at_peak
        return TrainingMemory(micro_batch=micro_batch, bytes_by_kind=MappingProxyType(peak))


@dataclass(frozen=True, kw_only=True)
class _FullTexts:
    """A batch of pictures with texts as long as can be."""

    template: TextToImageTemplate
    num_rows: int

    def batch(self, step: int) -> TokenBatch:
        text = np.zeros(self.template.max_text_pieces, dtype=np.int64)
        codes = np.zeros(self.template.num_codes_per_image, dtype=np.int64)
        return self.template.batch([(text, codes)] * self.num_rows)


def training_template(recipe: TextToImageRecipe, template: TextToImageTemplate) -> TextToImageTemplate:
    """Return what the sequences of a training are like: with few codes of each picture, if the recipe says so."""
    if recipe.kept_codes is None:
        return template
    return replace(template, grid_rows=1, grid_columns=recipe.kept_codes)


def work_of_a_sequence(
    recipe: TextToImageRecipe, config: TransformerConfig, template: TextToImageTemplate
) -> float:
    """Return the model's operations for a sequence with a text as long as can be, forward and backward.

    The formula is that of `cogview.training.flops`, by which runs log their MFU.
    """
    with torch.device("meta"):
        transformer = Transformer(config)
    task = TransformerTask(transformer, _FullTexts(template=template, num_rows=1), recipe.token_loss)
    return task.work(task.batch(0))["flops"]


def _drop_within_attention(transformer: Transformer) -> None:
    """Take attention's dropout away: the fused kernels of GPUs keep nothing for it, a CPU would keep the weights."""
    for block in transformer.blocks:
        assert isinstance(block, SandwichBlock)
        if block.attention.config.attention == "fused":
            block.attention.config = replace(block.attention.config, dropout=0.0)


def _gathered_bytes(transformer: Transformer) -> float:
    """Return the bytes of what a device of many holds whole, in float32.

    Of blocks, the weights of one that computes and of one that is fetched meanwhile, and the gradient of one; of the
    tables, which stay gathered, both.
    """
    block = sum(parameter.nbytes for parameter in transformer.blocks[0].parameters())
    rest = sum(parameter.nbytes for parameter in transformer.parameters()) - block * len(transformer.blocks)
    return float(3 * block + 2 * rest)
