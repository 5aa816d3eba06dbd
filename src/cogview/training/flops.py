"""How much of the device a run makes use of: operations of the model, and what the device could do at most."""

import re
import time
from typing import Literal

import torch

from cogview.training.config import ComputedPrecision
from cogview.transformer.config import TransformerConfig

# Dense products of half precision with fp32 sums, in 10^12 a second, by the makers' data sheets; the first that fits.
_PEAK_TFLOPS = {
    r"B200": 2250.0,
    r"H200": 989.0,
    r"H100 PCIe": 756.0,
    r"H100 NVL": 835.0,
    r"H100": 989.0,
    r"A100": 312.0,
    r"V100": 125.0,  # fp16 only
    r"L40S": 362.0,
    r"L4\b": 121.0,
    r"A10\b": 125.0,
    r"T4\b": 65.0,  # fp16 only
    r"RTX 4090": 165.2,
    r"RTX 3090": 71.0,
}


def flops_per_token(config: TransformerConfig, num_tokens: int, num_rows: float | int) -> float:
    """Return the operations of a token, forward and backward: 6 a weight, and attention to half of the tokens.

    6 (N + rows * d) + 6 * layers * d * tokens, where N are the parameters without the tables. A product of a matrix
    takes two operations a weight forward and four backward; scores and the sum of values take 2 * 2 * d operations
    for each of tokens / 2 earlier ones, three times. What is computed again to save memory does not count.

    Args:
        config: the shape.
        num_tokens: of a sequence.
        num_rows: of the head that a token is scored against, on average.
    """
    tables = (config.num_positions + config.vocabulary_size) * config.hidden_size
    weights = config.num_parameters - tables + num_rows * config.hidden_size
    return 6.0 * weights + 6 * config.num_layers * config.hidden_size * num_tokens


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
        return _measured_flops(device, precision)
    if asked != "auto":
        return float(asked) * 1e12
    if device.type != "cuda" or precision == "float32":
        return None
    name = torch.cuda.get_device_name(device)
    known = (tflops for pattern, tflops in _PEAK_TFLOPS.items() if re.search(pattern, name))
    return next((tflops * 1e12 for tflops in known), None)


def _measured_flops(device: torch.device, precision: ComputedPrecision, rounds: int = 5) -> float:
    """Return the operations a second of a large square product, the best of some rounds."""
    size = 8192 if device.type == "cuda" else 2048
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
