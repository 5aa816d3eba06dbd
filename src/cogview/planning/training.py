"""The memory of a training step, told by doing one with tensors that hold nothing.

The step is the real one: loss, autocast, clipping and optimizers are those of `cogview.training`. Only a PyTorch built
for CUDA can make such tensors for a GPU, so a CPU's stand for them everywhere; attention is then taken to drop its
weights inside the fused kernel, as GPUs do. Compiled steps are counted as eager ones. Of many devices the step is that
of one, with its part of the matrices and heads, as `cogview.training.parallel` cuts them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from cogview.errors import UsageError
from cogview.planning.devices import Device
from cogview.planning.tracking import MemoryKind, MemoryTracker
from cogview.recipes.config import TextToImageRecipe
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.training.config import ComputedPrecision
from cogview.training.muon import Muon
from cogview.training.parallel import check_heads
from cogview.training.precision import autocast, master_weights_dtype
from cogview.training.processes import check_shares
from cogview.training.stepper import MasterWeights, Stepper
from cogview.training.token_loss import CHUNK_TOKENS
from cogview.training.transformer import TransformerTask
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import Regions, draw_regions
from cogview.transformer.three_region_kernels import behind_slots, fits_flexible_attention

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
        bytes_by_kind: of `MemoryKind`; beside them "gathered", weights and gradients of the layers at hand where many
            devices share them, and on a CPU "allocator", what the process holds beyond its tensors.
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
        num_devices: that train together, sharing weights, gradients and optimizer state as the recipe's
            `tensor_parallel` and `shard_over` say.

    Raises:
        UsageError: so many cannot share the run so.
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
        check_shares(recipe.training, num_devices)
        check_heads(config, recipe.training.tensor_parallel)
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

    @property
    def tensor_parallel(self) -> int:
        """Over how many devices each matrix of a block is cut that see the same sequences."""
        return self._recipe.training.tensor_parallel

    @property
    def num_shards(self) -> int:
        """Over how many devices each parameter, or each one's part of it, is cut."""
        return self._recipe.training.shard_over or self._num_devices // self.tensor_parallel

    def one_at_a_time_on(self, num_devices: int) -> "TrainingPlanner":
        """Return the same for another number of devices, each with one sequence at a time.

        Raises:
            UsageError: so many cannot share the batch.
        """
        training = self._recipe.training
        num_row_parts = max(1, num_devices // self.tensor_parallel)
        training = replace(training, num_micro_batches=max(1, training.batch_size // num_row_parts))
        recipe = replace(self._recipe, training=training)
        return TrainingPlanner(recipe, self._config, self._whole, self._device, num_devices)

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
        training, precision = self._recipe.training, self.precision
        dtype = master_weights_dtype(precision)
        is_spread = self._num_devices > 1
        shares: dict[MemoryKind, float] = {}
        if is_spread:
            part = 1 / self.num_shards
            shares = {"weights": part, "gradients": part, "optimizer": part}
            if dtype is not None:
                shares["weight_copies"] = 0.0  # of the layers at hand only, which are counted as gathered
        tracker = MemoryTracker(shares)
        chunks = CHUNK_TOKENS["cpu" if self._device.is_cpu else "cuda"]
        with ExitStack() as stack:
            stack.enter_context(self._sparse_attention())
            mode = stack.enter_context(FakeTensorMode())
            stack.enter_context(tracker)
            stack.enter_context(patch.dict(CHUNK_TOKENS, cpu=chunks))
            transformer = Transformer(self._config)
            for block in _blocks_of(transformer):
                block.checkpointing = training.activation_checkpointing
                _keep_part(block, self.tensor_parallel)
            tracker.tag("weights", transformer.parameters())
            if not self._device.is_cpu:
                _drop_within_attention(transformer)
            masters = None
            if is_spread:
                # Masters are shards there, rounded as they are gathered, and every gradient is summed in float32.
                stepper = Stepper(transformer, training, "float32")
                _move_one_by_one(stepper)
                if dtype is not None:
                    masters = MasterWeights(transformer, dtype)
            else:
                stepper = Stepper(transformer, training, precision)
            if dtype is not None:
                tracker.tag("weight_copies", transformer.parameters())
            sums: dict[nn.Parameter, Tensor] = {}

            def note_gradient(held: nn.Parameter) -> None:
                gradient = held.grad
                assert gradient is not None
                if masters is not None:
                    held.grad = None
                    gradient = gradient.float()
                    gradient = sums[held].add_(gradient) if held in sums else gradient
                    sums[held] = gradient
                tracker.tag("gradients", [gradient])

            for parameter in transformer.parameters():
                parameter.register_post_accumulate_grad_hook(note_gradient)  # type: ignore[no-untyped-call]
            task = TransformerTask(transformer, _FullText(template=self._template), self._recipe.token_loss)
            # All rows are the first one: millions of them, asked for by mistake, would fill this machine's memory.
            batch = {
                name: mode.from_tensor(row).expand(micro_batch, *row.shape[1:])
                for name, row in task.batch(0).items()
            }

            def add_gradients() -> None:
                with tracker.forward_pass(), autocast(precision, torch.device("cpu")):
                    loss, _ = task.loss(batch)
                stepper.backward(loss, 1.0)
                tracker.retag("transient", "gradients")  # float32 sums, beside half-precision weights

            def step() -> None:
                if masters is not None:
                    masters.show()
                    for held in list(sums):
                        held.grad = sums.pop(held)
                stepper.step()
                if masters is not None:
                    masters.halve()

            # The first step makes the optimizers' state, the second one counts.
            add_gradients()
            step()
            for optimizer in stepper.optimizers:
                for state in optimizer.state.values():
                    tracker.tag("optimizer", [each for each in state.values() if isinstance(each, Tensor)])
            if training.num_micro_batches > 1:
                add_gradients()
            tracker.forget_peak()
            add_gradients()
            step()
            peak = {str(kind): num_bytes for kind, num_bytes in tracker.peak.items()}
            if is_spread:
                peak["gathered"] = _gathered_bytes(transformer, 4 if dtype is None else dtype.itemsize)
            if self._device.is_cpu:
                most, at_peak = tracker.heap_bytes
                peak["allocator"] = _PROCESS_BYTES + (1 + _SCATTERED_SHARE) * most - at_peak
        return TrainingMemory(micro_batch=micro_batch, bytes_by_kind=MappingProxyType(peak))

    @contextmanager
    def _sparse_attention(self) -> Iterator[None]:
        """Have three-region attention keep what it would keep on the device; to be entered before tensors are empty."""
        if self._config.attention_pattern == "dense":
            yield
            return
        regions = self._config.three_region
        [drawn] = draw_regions(
            torch.tensor([self._template.max_prefix_tokens]),
            torch.tensor([0]),
            self._template.max_tokens,
            1,
            regions,
        )
        visible = drawn.num_visible[0].tolist()
        kernels = "cogview.transformer.three_region_kernels"
        with ExitStack() as stack:
            stack.enter_context(patch(f"{kernels}.most_visible", lambda _: visible))
            if not self._device.is_cpu:
                if fits_flexible_attention(regions, self._config.head_size, self._config.dropout):
                    stack.enter_context(patch(f"{kernels}.three_region_attention", _attend_to_slots_and_all))
                stack.enter_context(patch(f"{kernels}.keeps_keys_once", lambda *_: False))
            yield


@dataclass(frozen=True, kw_only=True)
class _FullText:
    """A batch of one picture with a text as long as can be."""

    template: TextToImageTemplate

    def batch(self, step: int) -> TokenBatch:
        text = np.zeros(self.template.max_text_pieces, dtype=np.int64)
        codes = np.zeros(self.template.num_codes_per_image, dtype=np.int64)
        return self.template.batch([(text, codes)])


def training_template(recipe: TextToImageRecipe, template: TextToImageTemplate) -> TextToImageTemplate:
    """Return what the sequences of a training are like: with few codes of each picture, if the recipe says so.

    Raises:
        UsageError: a picture has not so many.
    """
    if recipe.thinning.kept_codes is None:
        return template
    if not 1 <= recipe.thinning.kept_codes <= template.num_codes_per_image:
        raise UsageError(
            f"kept_codes must be between 1 and the {template.num_codes_per_image} codes of a picture, got "
            f"{recipe.thinning.kept_codes}"
        )
    return replace(template, grid_rows=1, grid_columns=recipe.thinning.kept_codes)


def work_of_a_sequence(
    recipe: TextToImageRecipe, config: TransformerConfig, template: TextToImageTemplate
) -> float:
    """Return the model's operations for a sequence with a text as long as can be, forward and backward.

    The formula is that of `cogview.training.flops`, by which runs log their MFU.
    """
    with torch.device("meta"):
        transformer = Transformer(config)
    task = TransformerTask(transformer, _FullText(template=template), recipe.token_loss)
    return task.work(task.batch(0))["flops"]


def _blocks_of(transformer: Transformer) -> list[SandwichBlock]:
    return [block for block in transformer.modules() if isinstance(block, SandwichBlock)]


def _keep_part(block: SandwichBlock, tensor_parallel: int) -> None:
    """Leave of a block what one of so many devices has of it: norms and what is added at the end are whole."""
    if tensor_parallel == 1:
        return
    attention, mlp = block.attention, block.mlp
    attention.by_head = True
    for into, out_of, owner in (("query_key_value", "output", attention), ("inner", "output", mlp)):
        first, last = getattr(owner, into), getattr(owner, out_of)
        setattr(owner, into, nn.Linear(first.in_features, first.out_features // tensor_parallel))
        setattr(owner, out_of, nn.Linear(last.in_features // tensor_parallel, last.out_features))


def _move_one_by_one(stepper: Stepper) -> None:
    """Have Muon move one matrix after the other, as it does where they are spread."""

    def step(muon: Muon, move: Callable[[], None]) -> None:
        for group in muon.param_groups:
            parameters = group["params"]
            for parameter in parameters:
                group["params"] = [parameter]
                move()
            group["params"] = parameters

    for optimizer in stepper.optimizers:
        if isinstance(optimizer, Muon):
            assert len(optimizer.param_groups) == 1
            optimizer.step = partial(step, optimizer, optimizer.step)  # type: ignore[method-assign]


def _attend_to_slots_and_all(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    regions: Regions,
    config: ThreeRegionConfig,
    dropout: float,
) -> Tensor:
    """Stand for FlexAttention, which keeps the keys and values of the slots and of all places, and no scores."""
    return F.scaled_dot_product_attention(query, behind_slots(key, regions), behind_slots(value, regions))


def _drop_within_attention(transformer: Transformer) -> None:
    """Take attention's dropout away: the fused kernels of GPUs keep nothing for it, a CPU would keep the weights."""
    for block in _blocks_of(transformer):
        if block.attention.config.attention == "fused":
            block.attention.config = replace(block.attention.config, dropout=0.0)


def _gathered_bytes(transformer: Transformer, itemsize: int) -> float:
    """Return the bytes of what a device of many holds of the layers at hand, beside its shards.

    Of blocks, the weights of one that computes and of one that is fetched meanwhile, the gradient of one, and once more
    in float32 as it is summed over the devices; of the tables, which stay gathered, weights and gradient.

    Args:
        transformer: with the matrices' parts that the device computes with.
        itemsize: of a gathered weight in bytes.
    """
    block = sum(parameter.numel() for parameter in transformer.blocks[0].parameters())
    rest = sum(parameter.numel() for parameter in transformer.parameters()) - block * len(transformer.blocks)
    return float((3 * itemsize + 4) * block + 2 * itemsize * rest)
