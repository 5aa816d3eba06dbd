"""The memory and the work of a training step, by formula."""

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

# What a CPU process holds beyond its tensors, measured by `bench/plan.py`: the libraries' own buffers, and of the small
# tensors' memory the share that glibc keeps, scattered, for others.
_PROCESS_BYTES, _SCATTERED_SHARE = 2**26, 0.2
_HEAP_BYTES = 2**25
"""glibc gives allocations of this size and more back at once, and keeps smaller ones for others of their size."""
MAX_MICRO_BATCH = 1024
"""Beyond this no larger batch is looked for."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """What training needs on one device at its worst moment.

    Args:
        bytes_by_kind: "weights"; "gradients"; "optimizer"; "weight_copies", weights in half precision; "activations",
            all else that a forward pass leaves for the backward pass; "transient", what comes and goes within a step;
            where many devices share the run "gathered", weights and gradients of the layers at hand; on a CPU
            "allocator", what the process holds beyond its tensors.
    """

    bytes_by_kind: Mapping[str, float]

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(self.bytes_by_kind.values()))


@dataclass(frozen=True)
class TrainingPlanner:
    """Tells what a recipe's training needs on a device; compiled steps are counted as eager ones.

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
        """What the recipe's precision comes to on the device.

        Raises:
            UsageError: the device does not know bfloat16.
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
        """Over how many devices each matrix of a block is cut that see the same sequences."""
        return self.recipe.training.tensor_parallel

    @property
    def num_shards(self) -> int:
        """Over how many devices each parameter, or each one's part of it, is cut."""
        return self.recipe.training.shard_over or self.num_devices // self.tensor_parallel

    def one_at_a_time_on(self, num_devices: int) -> "TrainingPlanner":
        """Return the same for another number of devices, each with one sequence at a time.

        Raises:
            UsageError: so many cannot share the batch.
        """
        training, num_row_parts = self.recipe.training, max(1, num_devices // self.tensor_parallel)
        training = replace(training, num_micro_batches=max(1, training.batch_size // num_row_parts))
        return replace(self, recipe=replace(self.recipe, training=training), num_devices=num_devices)

    def largest_micro_batch(self, limit_bytes: float) -> int:
        """Return the most sequences at a time that fit, up to `MAX_MICRO_BATCH`; 0 if not even one does."""
        numbers = range(1, MAX_MICRO_BATCH + 1)
        return bisect_right(numbers, limit_bytes, key=lambda num: self.memory(num).total)

    def memory(self, micro_batch: int) -> TrainingMemory:
        """Return what a device holds at the moment when that is most.

        Many devices hold a share each of weights, gradients and optimizer state, and no copies of O2, which are rounded
        as they are gathered. On a CPU, glibc keeps what small tensors had at their most, and a fifth of it scattered.

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
    """Return what the sequences of a training are like: with few codes of each picture, if the recipe says so.

    Raises:
        UsageError: a picture has not so many.
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
    """Return the model's operations for a sequence with a text as long as can be, forward and backward.

    The formula is that of `cogview.training.flops`, by which runs log their MFU: each token's operations, with the rows
    of the head that it is scored against; separators are not scored.
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
