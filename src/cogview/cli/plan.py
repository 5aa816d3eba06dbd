"""Verb `cogview plan`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from cogview.cli.report import gigabytes, print_result
from cogview.decoding.config import CacheName, DtypeName
from cogview.errors import UsageError
from cogview.planning import MFU
from cogview.recipes.config import TextToImageRecipe, TokenShape
from cogview.runs.flags import FLAT

RECIPES = "cogview.recipes.text_to_image"

_TITLES = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "weight_copies": "weights in half precision",
    "activations": "activations",
    "transient": "transient",
    "gathered": "layers gathered from all",
    "allocator": "allocator and libraries",
    "prepared_weights": "weights prepared for the kernels",
    "prompt": "keys and values of the text",
    "process": "libraries",
    "code": "code written for the maps",
    "image_tokenizer": "image tokenizer and decoders",
}


def run(
    recipe: Annotated[TextToImageRecipe, FLAT],
    *,
    device: str = "cpu",
    num_devices: int = 1,
    device_memory_gb: float | None = None,
    peak_tflops: float | None = None,
    mfu: float = MFU,
    data: Path | None = None,
    grid: tuple[int, int] | None = None,
    image_codes: int | None = None,
    text_pieces: int | None = None,
    dtype: DtypeName | None = None,
    generate: bool = False,
    model: str | None = None,
    batch: int = 1,
    cache: CacheName = "auto",
    json: bool = False,
) -> None:
    """Estimate memory and time of a run before it is started.

    Args:
        recipe: shape and training of the transformer.
        device: cpu, for this machine, or the name of a GPU: h100, a100-80, v100, rtx4090, ... To measure a run on this
            machine, use `cogview train ... --dry-run`.
        num_devices: devices that train together and share weights, gradients and optimizer state.
        device_memory_gb: memory of a device in 10^9 bytes; the known size by default.
        peak_tflops: peak performance of a device in the run's precision, in 10^12 operations a second; the known one,
            or on a CPU that of a timed matrix product, by default.
        mfu: model FLOPs utilization, the assumed share of the peak performance.
        data: folder of tokens for which to plan; by default the tokens that the recipe is made for.
        grid: rows and columns of codes of a picture; by default those of the tokens.
        image_codes: of the image tokenizer; by default those of the tokens.
        text_pieces: of the text tokenizer; by default those of the tokens.
        dtype: of the weights while drawing; float32 on CPU and half precision on a GPU by default.
        generate: plan only drawing, with the model of --model or the bundled one instead of a recipe; on a CPU, this is
            the peak of the whole process.
        model: with --generate, a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; by
            default the bundled model.
        batch: pictures drawn at once.
        cache: type of the KV cache while drawing.
        json: print the result as JSON.
    """
    for name, number in (("device-memory-gb", device_memory_gb), ("peak-tflops", peak_tflops)):
        if number is not None and not 0 < number < float("inf"):
            raise UsageError(f"{name} must be greater than 0, got {number}")
    if num_devices < 1:  # before torch is imported
        raise UsageError(f"num-devices must be at least 1, got {num_devices}")
    import torch

    from cogview.data.shards import TokenShards
    from cogview.planning.devices import find_device
    from cogview.planning.plan import plan_run
    from cogview.recipes.resolved import given_beside_tokens, shape_of_tokens

    hardware = find_device(device)
    if device_memory_gb is not None:
        hardware = dataclasses.replace(hardware, memory_bytes=device_memory_gb * 1e9)
    if peak_tflops is not None:
        hardware = dataclasses.replace(hardware, half_tflops=peak_tflops, float32_tflops=peak_tflops)
    if generate:
        from cogview.models.config import find_model_folder
        from cogview.planning.plan import plan_drawing
        from cogview.recipes.text_to_image import bundled

        if model is None and recipe.transformer != bundled().transformer:
            raise UsageError(
                "--generate plans for an existing model, not for a recipe: name one with --model, or use "
                "'cogview plan bundled --generate' for the bundled one"
            )
        result = plan_drawing(
            find_model_folder(model),
            hardware,
            dtype=None if dtype is None else getattr(torch, dtype),
            batch=batch,
            cache=cache,
        )
        print_result(
            result,
            [*_shape_lines(result, 1), "", *_generation_lines(result["generation"], result["device"])],
            json,
        )
        return
    if model is not None:
        raise UsageError("--model needs --generate")
    if dtype is None:
        dtype = "float32" if hardware.is_cpu else "bfloat16" if hardware.has_bfloat16 else "float16"
    if flag := given_beside_tokens(recipe):
        raise UsageError(f"{flag} follows from the tokens: give --grid, --image-codes or --text-pieces")
    made_for = recipe.made_for if data is None else shape_of_tokens(TokenShards(data))
    tokens = _tokens(made_for, grid, image_codes, text_pieces)
    result = plan_run(
        dataclasses.replace(recipe, made_for=tokens),
        hardware,
        num_devices=num_devices,
        mfu=mfu,
        dtype=getattr(torch, dtype),
        batch=batch,
        cache=cache,
    )
    print_result(result, _lines(result), json)


def _tokens(
    tokens: TokenShape, grid: tuple[int, int] | None, image_codes: int | None, text_pieces: int | None
) -> TokenShape:
    """Override the shape of the tokens by flags."""
    flags = {
        "grid_rows": grid and grid[0],
        "grid_columns": grid and grid[1],
        "num_image_codes": image_codes,
        "num_text_pieces": text_pieces,
    }
    return dataclasses.replace(tokens, **{name: each for name, each in flags.items() if each is not None})


def _lines(result: dict[str, Any]) -> list[str]:
    """Return the result as text lines."""
    tokens, device, num_devices = result["made_for"], result["device"], result["num_devices"]
    transformer, on_device = _shape_lines(result, num_devices)
    return [
        transformer,
        f"tokens: {tokens['grid_rows']} x {tokens['grid_columns']} of {tokens['num_image_codes']:,} codes, "
        f"{tokens['num_text_pieces']:,} text pieces",
        on_device,
        "",
        *_training_lines(result["training"], device, num_devices),
        "",
        *_generation_lines(result["generation"], device),
    ]


def _shape_lines(result: dict[str, Any], num_devices: int) -> list[str]:
    shape, device = result["transformer"], result["device"]
    many = f"{num_devices} x " if num_devices > 1 else ""
    return [
        f"transformer: {shape['num_layers']} layers of {shape['hidden_size']:,}, {shape['num_heads']} heads, "
        f"{_number(result['num_parameters'])} parameters",
        f"device: {many}{device['name']}, {gigabytes(device['memory_bytes'])}",
    ]


def _training_lines(training: dict[str, Any], device: dict[str, Any], num_devices: int) -> list[str]:
    micro_batch, largest = training["micro_batch_per_device"], training["largest_micro_batch"]
    sequences = "1 sequence" if micro_batch == 1 else f"{micro_batch:,} sequences"
    each = " on each device" if num_devices > 1 else ""
    compiled = "; counted as not compiled" if training["compiled"] else ""
    if largest:
        beyond = " or more" if training["largest_micro_batch_is_a_bound"] else ""
        advice = f"largest that fits: {largest:,}{beyond} at a time"
        if not training["fits"]:
            advice += f", --training.num-micro-batches {training['fewest_micro_batches_that_fit']}"
    else:
        least = gigabytes(training["bytes_at_micro_batch_1"])
        advice = f"does not fit {device['name']} at all: even one sequence at a time needs {least}"
        devices, tensor_parallel = training["fewest_devices_that_fit"], training["tensor_parallel"]
        if devices:
            most_parts = training["batch_size"] * tensor_parallel // devices
            advice += f"; {devices} that share the weights do, --training.num-micro-batches {most_parts}"
        else:
            advice += (
                ", and more devices that share the run do not help: see 'What does not fit' in docs/plan.md"
            )
    peak = f"{training['peak_tflops'] or 0:.3g} TFLOP/s"
    if training["peak_is_timed"]:
        peak = f"the {peak} of a product timed here just now"
    hours = "hours: not known without --peak-tflops"
    if training["hours"] is not None:
        share = f"{training['mfu']:.0%} of {peak}"
        hours = f"hours: {training['hours']:,.1f}, if {share} are reached (an assumption: --mfu)"
    return [
        f"training in {training['precision']} with {training['optimizer']}, {sequences} at a time{each}:",
        *_memory_lines(training["bytes_by_kind"]),
        f"  {'together':<34}{gigabytes(training['bytes']):>10}{compiled}",
        f"  {advice}",
        f"  a step: {_number(training['tokens_per_step'])} tokens, {training['flops_per_step']:.3g} FLOPs "
        f"({training['flops_per_token']:.3g} a token)",
        f"  the run: {training['num_steps']:,} steps, {_number(training['tokens'])} tokens",
        f"  {hours}",
    ]


def _generation_lines(generation: dict[str, Any], device: dict[str, Any]) -> list[str]:
    largest = generation["largest_batch"]
    fits = f"largest that fits: {largest:,} pictures at once"
    if not largest:
        needed = gigabytes(generation["bytes_for_one_picture"])
        fits = f"does not fit {device['name']} at all: one picture needs {needed}"
    seconds, timed = generation["seconds_per_picture"], []
    if seconds is not None:
        speed = generation["read_bytes_per_second"] / 1e9
        timed = [
            f"  seconds: {seconds:,.3g}, if each code takes a pass that reads the weights at {speed:.3g} GB/s, "
            "as a sum timed here just now did (an assumption)",
        ]
    together, batch = [], generation["batch"]
    if batch > 1:
        together = [f"  {f'{batch:,} pictures at once together':<34}{gigabytes(generation['bytes']):>10}"]
    return [
        f"drawing in {generation['dtype']}{' with guidance' if generation['guided'] else ''}:",
        *_memory_lines(generation["bytes_by_kind"]),
        f"  {'cache of a picture':<34}{gigabytes(generation['cache_bytes_per_picture']):>10}",
        f"  {'one picture together':<34}{gigabytes(generation['bytes_for_one_picture']):>10}",
        *together,
        f"  {fits}",
        f"  a picture: {generation['codes_per_picture']:,} codes of {generation['flops_per_code']:.3g} FLOPs",
        *timed,
    ]


def _memory_lines(bytes_by_kind: dict[str, float | int]) -> list[str]:
    """Return a line for each kind that is not zero."""
    return [f"  {_TITLES[kind]:<34}{gigabytes(each):>10}" for kind, each in bytes_by_kind.items() if each]


def _number(number: float | int) -> str:
    """Format a large number with three digits and a suffix."""
    for scale, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M")):
        if number >= scale:
            return f"{number / scale:.3g}{letter}"
    return f"{number:,.0f}"
