"""Model FLOPs and the device's peak, for model FLOPs utilisation."""

import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch

from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig
from cogview.transformer.grid_attention import mean_keys

PEAK_TFLOPS: Mapping[str, float] = MappingProxyType(
    {
        "B200": 2250.0,
        "H200": 989.0,
        "H100 PCIe": 756.0,
        "H100 NVL": 835.0,
        "H100": 989.0,
        "A100": 312.0,
        "V100": 125.0,  # fp16 only
        "L40S": 362.0,
        "L4": 121.0,
        "A10": 125.0,
        "T4": 65.0,  # fp16 only
        "RTX 4090": 165.2,
        "RTX 3090": 71.0,
    }
)
"""Peak of dense half-precision products with fp32 sums, in 10^12 per second, from the makers' data sheets.

Keys are parts of CUDA's device names; the first match counts.
"""


def flops_per_token(
    config: TransformerConfig, num_tokens: int, num_rows: float | int, num_keys: float | None = None
) -> float:
    """Return a token's operations, forward and backward: 6 per weight, and its attention.

    6 (N + rows * d) + 12 * layers * d * keys, where N are the parameters without tables and head. A matrix product
    takes two operations per weight forward and four backward; scores and weighted values take 2 * 2 * d per key, three
    times. Recomputation for activation checkpointing and the drawing of pivots do not count.

    Args:
        config: the shape.
        num_tokens: of a sequence.
        num_rows: mean number of head rows that a token is scored against.
        num_keys: mean number of keys a token sees per layer, as `cogview.transformer.three_region.keys_seen` counts
            them; by default half of the tokens, or what the masks of a grid show.
    """
    if num_keys is None:
        assert config.attention_pattern != "three_region", "num_keys depends on the text"
        is_grid = config.attention_pattern == "grid"
        num_keys = mean_keys(config.grid, num_tokens) if is_grid else num_tokens / 2
    tables = (config.num_position_rows + config.vocabulary_size) * config.hidden_size
    if config.head == "own":
        tables += config.vocabulary_size * (config.hidden_size + 1)
    weights = config.num_parameters - tables + num_rows * config.hidden_size
    return 6.0 * weights + 12 * config.num_layers * config.hidden_size * num_keys


def peak_flops(
    asked: float | Literal["auto", "measure"], device: torch.device, precision: ComputedPrecision
) -> float | None:
    """Return the device's peak operations per second, or None if unknown.

    Model FLOPs utilisation (MFU) is `flops_per_token` times tokens per second, over this.

    Args:
        asked: in 10^12; "auto" for a known GPU in half precision; "measure" to time a large product.
        device: of the run.
        precision: of the run.
    """
    if asked == "measure":
        return measured_flops(device, precision)
    if asked != "auto":
        return float(asked) * 1e12
    if device.type != "cuda" or precision == "float32":
        return None
    name = torch.cuda.get_device_name(device)
    known = (tflops for part, tflops in PEAK_TFLOPS.items() if re.search(rf"{part}(?![A-Z0-9])", name))
    return next((tflops * 1e12 for tflops in known), None)


def measured_flops(
    device: torch.device, precision: ComputedPrecision, size: int | None = None, rounds: int = 5
) -> float:
    """Return the operations per second of a square product, the best of several rounds.

    Args:
        device: of the product.
        precision: of the product.
        size: rows and columns; large by default.
        rounds: timed rounds, after one that warms up.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    if precision == "float16_o2" and device.type == "cuda":  # a CPU has no fp16 to speak of
        dtype = torch.float16
    a = torch.ones(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])
