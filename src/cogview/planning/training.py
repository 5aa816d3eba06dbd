"""Memory and operations of a training step, by formula."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from cogview.errors import UsageError
from cogview.planning.activations import PassShape
from cogview.planning.devices import Device
from cogview.planning.moments import Moment, moments
from cogview.planning.parameters import gathered_bytes
from cogview.recipes.config import TextToImageRecipe
from cogview.sequence.template import TextToImageTemplate
from cogview.training.config import ComputedPrecision
from cogview.training.flops import flops_per_token
from cogview.training.parallel import check_heads
from cogview.training.processes import check_shares
from cogview.transformer.config import TransformerConfig
from cogview.transformer.three_region import keys_seen

# Memory of a CPU process beyond its tensors, measured by `bench/plan.py`: the libraries' buffers, and the share of the
# small tensors' memory that stays fragmented in glibc.
_PROCESS_BYTES, _SCATTERED_SHARE = 2**26, 0.2
_HEAP_BYTES = 2**25
"""glibc frees allocations from this size on at once, and keeps smaller ones for reuse."""
MAX_MICRO_BATCH = 1024
"""Limit of the search for the largest micro-batch."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Peak memory of training on one device.

    Args:
        bytes_by_kind: "weights"; "gradients"; "optimizer"; "weight_copies" in half precision; "activations", everything
            else kept for the backward pass; "transient", within a step; with several devices "gathered", weights and
            gradients of the current layers; on a CPU "allocator", memory beyond the tensors.
    """

    bytes_by_kind: Mapping[str, float]

    @property
    def total(self) -> float:
        """Sum over all kinds."""
        return float(sum(self.bytes_by_kind.values()))


@dataclass(frozen=True)
class TrainingPlanner:
    """Planner of a recipe's training on a device; compiled steps count as eager ones.

    Args:
        recipe: to train.
        config: its transformer, with the tokens' vocabulary and positions.
        template: of its sequences.
        device: kind of device.
        num_devices: that train together, sharing weights, gradients and optimizer state by the recipe's
            `tensor_parallel` and `shard_over`.

    Raises:
        UsageError: this many devices cannot share the run so.
    """

    recipe: TextToImageRecipe
    config: TransformerConfig
    template: TextToImageTemplate
    device: Device
    num_devices: int = 1

    def __post_init__(self) -> None:
        check_shares(self.recipe.training, self.num_devices)
        check_heads(self.config, self.tensor_parallel)

    @property
    def precision(self) -> ComputedPrecision:
        """The recipe's precision on the device.

        Raises:
            UsageError: the device does not support bfloat16.
        """
        asked = self.recipe.training.precision
        if asked == "auto":
            return "bfloat16" if self.device.has_bfloat16 else "float32"
        if asked.startswith("bfloat16") and not (self.device.is_cpu or self.device.has_bfloat16):
            raise UsageError(
                f"precision is {asked}, which {self.device.name} cannot compute: give --training.precision "
                "float16_o2 or float32"
            )
        return asked

    @property
    def tensor_parallel(self) -> int:
        """Devices with the same sequences that share each block's matrices."""
        return self.recipe.training.tensor_parallel

    @property
    def num_shards(self) -> int:
        """Devices that shard each parameter, or each tensor-parallel part of it."""
        return self.recipe.training.shard_over or self.num_devices // self.tensor_parallel

    def one_at_a_time_on(self, num_devices: int) -> "TrainingPlanner":
        """Return the same planner for another number of devices, each with one sequence at a time.

        Raises:
            UsageError: this many devices cannot share the batch.
        """
        training, num_row_parts = self.recipe.training, max(1, num_devices // self.tensor_parallel)
        training = replace(training, num_micro_batches=max(1, training.batch_size // num_row_parts))
        return replace(self, recipe=replace(self.recipe, training=training), num_devices=num_devices)

    def largest_micro_batch(self, limit_bytes: float) -> int:
        """Return the most sequences at a time that fit, up to `MAX_MICRO_BATCH`; 0 if none does."""
        numbers = range(1, MAX_MICRO_BATCH + 1)
        return bisect_right(numbers, limit_bytes, key=lambda num: self.memory(num).total)

    def memory(self, micro_batch: int) -> TrainingMemory:
        """Return the peak memory of a device.

        Devices shard weights, gradients and optimizer state, and hold no copies for O2, since they round weights as
        they gather them. On a CPU, glibc keeps the peak of the small tensors, and a fifth of it is fragmented.

        Args:
            micro_batch: sequences at a time on one device.
        """
        training, is_spread, part = self.recipe.training, self.num_devices > 1, 1 / self.num_shards
        shares = {"weights": part, "gradients": part, "optimizer": part} if is_spread else {}
        if is_spread and self.precision.endswith("_o2"):
            shares["weight_copies"] = 0.0
        shape = PassShape(
            config=self.config,
            template=training_template(self.recipe, self.template),
            num_sequences=micro_batch,
            precision=self.precision,
            tensor_parallel=self.tensor_parallel,
            is_cpu=self.device.is_cpu,
            has_large_blocks=self.device.has_large_blocks,
        )
        all_moments = [
            {kind: [shares.get(kind, 1.0) * each for each in held] for kind, held in moment.items()}
            for moment in moments(shape, training, self.recipe.token_loss, is_spread)
        ]
        worst = max(all_moments, key=lambda moment: sum(map(sum, moment.values())))
        kinds = {kind: float(sum(held)) for kind, held in worst.items()}
        if is_spread:
            kinds["gathered"] = gathered_bytes(self.config, self.precision, self.tensor_parallel)
        if self.device.is_cpu:
            most = max(map(_small_bytes, all_moments))
            kinds["allocator"] = _PROCESS_BYTES + (1 + _SCATTERED_SHARE) * most - _small_bytes(worst)
        return TrainingMemory(bytes_by_kind=MappingProxyType(kinds))


def _small_bytes(moment: Moment) -> float:
    return sum(each for held in moment.values() for each in held if each < _HEAP_BYTES)


def training_template(recipe: TextToImageRecipe, template: TextToImageTemplate) -> TextToImageTemplate:
    """Return the template of the training sequences, with few codes per picture if the recipe masks codes.

    Raises:
        UsageError: a picture has fewer codes than kept.
    """
    if recipe.masking.kept_codes is None:
        return template
    if not 1 <= recipe.masking.kept_codes <= template.num_codes_per_image:
        raise UsageError(
            f"kept_codes must be between 1 and the {template.num_codes_per_image} codes of a picture, got "
            f"{recipe.masking.kept_codes}"
        )
    return replace(template, grid_rows=1, grid_columns=recipe.masking.kept_codes)


def work_of_a_sequence(
    recipe: TextToImageRecipe, config: TransformerConfig, template: TextToImageTemplate
) -> float:
    """Return the model's operations for a sequence with the longest text, forward and backward.

    By the formula of `cogview.training.flops`, as for the logged MFU: each token's operations, with the head rows that
    it is scored against; separators are not scored.
    """
    vocabulary, length = template.vocabulary, template.max_tokens
    image, text = template.num_codes_per_image, template.max_text_targets
    rows = (config.vocabulary_size, config.vocabulary_size)
    if recipe.token_loss.normaliser == "legal":
        rows = (vocabulary.num_image_codes, vocabulary.num_tokens - vocabulary.text_pieces.start)
    num_keys = None
    if config.attention_pattern == "three_region":
        num_text = torch.tensor([template.max_prefix_tokens])
        num_keys = float(keys_seen(torch.arange(length), num_text, config.three_region).mean())
    targets = ((image, rows[0]), (text, rows[1]), (length - image - text, 0))
    return sum(num * flops_per_token(config, length, scored, num_keys) for num, scored in targets)
