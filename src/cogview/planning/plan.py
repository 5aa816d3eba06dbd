"""Plan of a run: its memory, operations and time."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from cogview.decoding.config import CacheName
from cogview.errors import UsageError
from cogview.models.folder import load_pretrained
from cogview.planning.devices import Device, timed_read_bandwidth
from cogview.planning.generation import generation_memory
from cogview.planning.training import MAX_MICRO_BATCH, TrainingPlanner, training_template, work_of_a_sequence
from cogview.recipes.config import TextToImageRecipe
from cogview.recipes.resolved import resolved
from cogview.sequence.template import TextToImageTemplate
from cogview.training.flops import measured_flops
from cogview.transformer.config import TransformerConfig
from cogview.transformer.grid_attention import mean_keys
from cogview.transformer.three_region import keys_seen

_MAX_SUGGESTED_DEVICES = 4096
_TIMED_SIZE = 1024
"""Rows and columns of the product timed on a CPU of unknown peak."""


def plan_run(
    recipe: TextToImageRecipe,
    device: Device,
    *,
    num_devices: int,
    mfu: float,
    dtype: torch.dtype,
    batch: int = 1,
    cache: CacheName = "auto",
) -> dict[str, Any]:
    """Plan a recipe's training and drawing, without doing either.

    Args:
        recipe: of a run on its usual tokens.
        device: kind of device.
        num_devices: that train together, sharing weights, gradients and optimizer state as the recipe says; each draws
            alone.
        mfu: assumed model FLOPs utilisation.
        dtype: of the weights while drawing.
        batch: pictures drawn at once.
        cache: dtype of keys and values while drawing.

    Raises:
        UsageError: numbers that contradict each other.
    """
    if num_devices < 1:
        raise UsageError(f"num-devices must be at least 1, got {num_devices}")
    if not 0 < mfu <= 1:
        raise UsageError(f"mfu must be a share over 0 and at most 1, got {mfu}")
    config, template = resolved(recipe)
    return {
        "transformer": dataclasses.asdict(config),
        "num_parameters": config.num_parameters,
        "made_for": dataclasses.asdict(recipe.made_for),
        "device": dataclasses.asdict(device),
        "num_devices": num_devices,
        "training": plan_training(TrainingPlanner(recipe, config, template, device, num_devices), mfu),
        "generation": _generation(
            config, template, device, dtype, recipe.masking.dropped_texts > 0, batch, cache
        ),
    }


def plan_drawing(
    folder: Path, device: Device, *, dtype: torch.dtype | None, batch: int = 1, cache: CacheName = "auto"
) -> dict[str, Any]:
    """Plan drawing with a model; on a CPU, its memory is the peak of the whole process.

    Args:
        folder: of the model.
        device: kind of device.
        dtype: of the weights; if None, the default of `cogview.load`.
        batch: pictures drawn at once.
        cache: dtype of keys and values.

    Raises:
        CogViewError: the model is missing or damaged.
    """
    model = load_pretrained(folder, dtype=dtype)
    if dtype is None:
        dtype = (
            model.prepared_dtype
            if device.is_cpu
            else torch.bfloat16
            if device.has_bfloat16
            else torch.float16
        )
    tokenizer, num_bytes = model.image_tokenizer, 0
    if tokenizer is not None:
        parts = [tokenizer.autoencoder, *tokenizer.decoders.values()]
        num_bytes = sum(each.nbytes for part in parts for each in part.state_dict().values())
    return {
        "transformer": dataclasses.asdict(model.config),
        "num_parameters": model.config.num_parameters,
        "device": dataclasses.asdict(device),
        "generation": _generation(
            model.config, model.template, device, dtype, model.guidance != 1, batch, cache, num_bytes
        ),
    }


def plan_training(planner: TrainingPlanner, mfu: float) -> dict[str, Any]:
    """Plan training, without doing it.

    Args:
        planner: of a recipe on some devices.
        mfu: assumed model FLOPs utilisation.

    Raises:
        UsageError: numbers that contradict each other.
    """
    recipe, device, num_devices = planner.recipe, planner.device, planner.num_devices
    training = recipe.training
    per_device = training.batch_size // (num_devices // training.tensor_parallel)
    micro_batch = per_device // training.num_micro_batches
    if micro_batch > MAX_MICRO_BATCH:
        raise UsageError(
            f"{micro_batch:,} sequences at a time on each device are more than the limit, {MAX_MICRO_BATCH:,}: raise "
            "--training.num-micro-batches"
        )
    memory = planner.memory(micro_batch)
    largest = planner.largest_micro_batch(device.memory_bytes)
    fitting = max(
        (part for part in range(1, min(largest, per_device) + 1) if per_device % part == 0), default=0
    )
    sequence = training_template(recipe, planner.template)
    tokens_per_step = training.batch_size * sequence.max_tokens
    flops_per_step = training.batch_size * work_of_a_sequence(recipe, planner.config, sequence)
    tflops = device.float32_tflops if planner.precision == "float32" else device.half_tflops
    is_timed = tflops is None and device.is_cpu
    if is_timed:
        timed = measured_flops(torch.device("cpu"), planner.precision, size=_TIMED_SIZE, rounds=3)
        tflops = timed / 1e12
    hours = None
    if tflops is not None:
        seconds = flops_per_step * training.num_steps / (tflops * 1e12 * mfu * num_devices)
        hours = seconds / 3600
    return {
        "precision": planner.precision,
        "optimizer": training.optimizer,
        "compiled": training.compile,
        "activation_checkpointing": training.activation_checkpointing,
        "tensor_parallel": training.tensor_parallel,
        "num_shards": planner.num_shards,
        "batch_size": training.batch_size,
        "num_micro_batches": training.num_micro_batches,
        "micro_batch_per_device": micro_batch,
        "bytes_by_kind": dict(memory.bytes_by_kind),
        "bytes": memory.total,
        "fits": memory.total <= device.memory_bytes,
        "largest_micro_batch": largest,
        "largest_micro_batch_is_a_bound": largest == MAX_MICRO_BATCH,
        "fewest_micro_batches_that_fit": per_device // fitting if fitting else None,
        "bytes_at_micro_batch_1": planner.memory(1).total,
        "fewest_devices_that_fit": num_devices if largest else _fewest_devices(planner),
        "num_steps": training.num_steps,
        "tokens_per_step": tokens_per_step,
        "tokens": tokens_per_step * training.num_steps,
        "flops_per_token": flops_per_step / tokens_per_step,
        "flops_per_step": flops_per_step,
        "peak_tflops": tflops,
        "peak_is_timed": is_timed,
        "mfu": mfu,
        "hours": hours,
    }


def _fewest_devices(planner: TrainingPlanner) -> int | None:
    """Return the fewest devices, by doubling, that fit one sequence at a time each, or None."""
    num_devices, limit = planner.num_devices, planner.device.memory_bytes
    if planner.num_shards < num_devices // planner.tensor_parallel:
        return None  # with `shard_over`, more devices do not share more
    while num_devices < _MAX_SUGGESTED_DEVICES:
        num_devices *= 2
        try:
            kinds = planner.one_at_a_time_on(num_devices).memory(1).bytes_by_kind
        except UsageError:  # the batch has too few sequences for this many
            return None
        if sum(kinds.values()) <= limit:
            return num_devices
        # What is not sharded does not shrink: if that alone is too much, no number of devices helps.
        shared = sum(kinds[kind] for kind in ("weights", "gradients", "optimizer"))
        if sum(kinds.values()) - shared > limit:
            return None
    return None


def _generation(
    config: TransformerConfig,
    template: TextToImageTemplate,
    device: Device,
    dtype: torch.dtype,
    guided: bool,
    batch: int,
    cache: CacheName,
    image_tokenizer_bytes: int = 0,
) -> dict[str, Any]:
    """Plan drawing."""
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}")
    if dtype == torch.int8 and not device.is_cpu:
        raise UsageError(f"int8 weights are for the CPU, got {device.name}: choose another dtype")
    memory = generation_memory(
        config,
        template,
        device,
        dtype,
        guided=guided,
        cache=cache,
        image_tokenizer_bytes=image_tokenizer_bytes,
    )
    # An average code: two operations per weight, and four per channel of each visible earlier token.
    matrices = config.num_layers * (4 + 2 * config.mlp_factor) * config.hidden_size**2
    matrices += template.vocabulary.num_image_codes * config.hidden_size
    num_text = template.max_prefix_tokens
    num_keys = num_text + template.num_codes_per_image / 2
    if config.attention_pattern == "three_region":
        places = torch.arange(num_text, num_text + template.num_codes_per_image)
        num_keys = float(keys_seen(places, torch.tensor([num_text]), config.three_region).mean())
    elif config.attention_pattern == "grid":
        num_keys = mean_keys(config.grid, template.max_tokens, first=num_text)
    flops = 2 * matrices + 4 * config.num_layers * config.hidden_size * num_keys
    bandwidth = timed_read_bandwidth() if device.is_cpu else None
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "guided": guided,
        "codes_per_picture": template.num_codes_per_image,
        "bytes_by_kind": dict(memory.fixed),
        "bytes_for_one_picture": memory.total(1),
        "batch": batch,
        "bytes": memory.total(batch),
        "cache_bytes_per_picture": memory.cache_per_picture,
        "transient_bytes_per_picture": memory.transient_per_picture,
        "largest_batch": memory.largest_batch(device.memory_bytes),
        "flops_per_code": (2 if guided else 1) * flops,
        "read_bytes_per_second": bandwidth,
        "seconds_per_picture": (
            None
            if bandwidth is None
            else template.num_codes_per_image * matrices * dtype.itemsize / bandwidth
        ),
    }
