"""How long the linear maps of decoding take, by dtype, shape and number of rows.

    python bench/linear.py            # one thread, about a minute

Every dtype meets the same rows. Times are the least of several repetitions, since other work on the machine only adds;
the weights of several maps take turns, so that large ones come from memory. Writes bench/results/linear.json.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import tyro

from cogview.decoding.linear import DecodingLinear, can_pack, prepare_linear
from cogview.decoding.linear_int8 import has_int8_kernel, int8_product
from cogview.files import atomic_write_json
from cogview.transformer.quantized import QuantizedRows
from environment import RESULTS, describe

SHAPES = {"bundled, 1024 x 256": (1024, 256, 8), "4B, 7680 x 2560": (7680, 2560, 3)}
"""Outputs, inputs, and how many such maps take turns."""

ROWS = (1, 8, 16, 32, 64, 128)


def maps_of(dtype: str, num_outputs: int, num_inputs: int, num: int) -> list[DecodingLinear]:
    """Return maps of random weights."""
    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(num_outputs, num_inputs, generator=generator) for _ in range(num))
    if dtype == "int8":
        return [int8_product(QuantizedRows.of(weight)) for weight in weights]
    return [prepare_linear(weight, dtype=getattr(torch, dtype)) for weight in weights]


def milliseconds(maps: Sequence[DecodingLinear], x: torch.Tensor, seconds: float = 0.4) -> float:
    """Return the time of one map, the least of many."""
    best, stop = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < stop or best == float("inf"):
            start = time.perf_counter()
            for each in maps:
                each(x)
            best = min(best, (time.perf_counter() - start) / len(maps))
    return 1000 * best


def main(*, out: str = "linear") -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        out: name of the result.
    """
    environment = describe(torch.device("cpu"))
    dtypes = [each for each in ("float32", "bfloat16", "float16") if can_pack("cpu", getattr(torch, each))]
    figures: list[dict[str, Any]] = []
    print(
        "| shape | rows | "
        + " | ".join(f"{each} ms" for each in [*dtypes, "int8"])
        + " | int8 over float32 |"
    )
    print("|" + "---|" * (len(dtypes) + 4))
    for shape, (num_outputs, num_inputs, num) in SHAPES.items():
        prepared = {dtype: maps_of(dtype, num_outputs, num_inputs, num) for dtype in [*dtypes, "int8"]}
        for num_rows in ROWS:
            x = torch.randn(num_rows, num_inputs)
            times = {dtype: milliseconds(maps, x) for dtype, maps in prepared.items()}
            figures.append({"shape": shape, "rows": num_rows, "milliseconds": times})
            cells = " | ".join(f"{each:.3f}" for each in times.values())
            print(f"| {shape} | {num_rows} | {cells} | {times['int8'] / times['float32']:.2f} |", flush=True)
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "linear",
            "environment": environment,
            "has_int8_kernel": has_int8_kernel(),
            "threads": torch.get_num_threads(),
            "figures": figures,
        },
    )
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
