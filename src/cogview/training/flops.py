"""How much of the device a run makes use of: operations of the model, and what the device could do at most."""

import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch

from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig

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
"""Dense products of half precision with fp32 sums, in 10^12 a second, by the makers' data sheets.

The names are parts of those that CUDA tells; the first that fits counts.
"""


def flops_per_token(
    config: TransformerConfig, num_tokens: int, num_rows: float | int, num_keys: float | None = None
) -> float:
    """Return the operations of a token, forward and backward: 6 a weight, and attention to the keys that it sees.

    6 (N + rows * d) + 12 * layers * d * keys, where N are the parameters without the tables. A product of a matrix
    takes two operations a weight forward and four backward; scores and the sum of values take 2 * 2 * d operations
    for each key, three times. What is computed again to save memory does not count, nor does drawing pivots.

    Args:
        config: the shape.
        num_tokens: of a sequence.
        num_rows: of the head that a token is scored against, on average.
        num_keys: that a token sees in a layer, on average, as `cogview.transformer.three_region.keys_seen` counts them;
            where attention is dense, half of the tokens.
    """
    if num_keys is None:
        assert config.attention_pattern == "dense", "how many keys are seen depends on the text"
        num_keys = num_tokens / 2
    tables = (config.num_positions + config.vocabulary_size) * config.hidden_size
    weights = config.num_parameters - tables + num_rows * config.hidden_size
    return 6.0 * weights + 12 * config.num_layers * config.hidden_size * num_keys


def peak_flops(
    asked: float | Literal["auto", "measure"], device: torch.device, precision: ComputedPrecision
) -> float | None:
    """Return the operations a second that the device can do at most, or None if that is not known.

    MFU, model FLOPs utilisation, is the operations of the model's formula a second (`flops_per_token` times tokens a
    second) over this.

    Args:
        asked: in 10^12, or "auto" for what is known of a GPU in half precision, or "measure" for what a large product
            in the run's precision reaches here.
        device: what computes.
        precision: in which.
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
    """Return the operations a second of a square product, the best of some rounds.

    Args:
        device: what computes.
        precision: in which.
        size: rows and columns; large by default.
        rounds: to time, after a first that is not.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    if precision == "float16_o2" and device.type == "cuda":  # a CPU has no fp16 to speak of
        dtype = torch.float16
    a = torch.ones(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(rounds + 1):  # the first gets things going
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])
