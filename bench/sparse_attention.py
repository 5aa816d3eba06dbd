"""How fast three-region attention is, and what memory it takes: against PyTorch's fused dense attention, in one run.

    python bench/sparse_attention.py            # a minute on 2 cores
    python bench/sparse_attention.py --quick    # a self-test at a tiny shape that writes nothing
    python bench/sparse_attention.py --device cuda --dtype bfloat16 --batch-size 4 --num-heads 40
    python bench/sparse_attention.py --device cuda --dtype bfloat16 --batch-size 4 --num-heads 40 --tune

At the paper's 4,096 tokens, 768 of text and pivots and a window of 768. The paper has 2.5 times the speed and 40 % less
memory, against a dense attention that held all scores; the fused one of today holds none and skips what lies in the
future, so there is less to be won. `plain` is that attention of then: with all scores, where the memory is enough.

Pivots of all layers are drawn at once, as in training, and a layer's share of that time counts. `flex` is
FlexAttention, which on some GPUs Triton kernels of our own replace; `--tune` times those with other tiles, and writes
nothing. Memory is what a call adds at its highest to what was held before: of the whole process on a CPU (on Linux), of
PyTorch's allocator on a GPU.
"""

import ctypes
import gc
import itertools
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from cogview.decoding.memory import peak_resident_bytes
from cogview.files import atomic_write_json
from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region import Regions, draw_regions, masked_dense_attention
from cogview.transformer.three_region_kernels import (
    flexible_attention,
    has_triton_kernels,
    three_region_attention,
)
from environment import RESULTS, describe, seconds_of

WANTED = {"speed": 2.5, "memory": 0.6}


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend to all earlier tokens, holding all scores."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ value


class Work:
    """What is measured: each system, forward alone and with its gradients, on the same inputs.

    Args:
        shape: batch, heads, tokens and channels.
        num_text: tokens of each text.
        config: of the regions.
        dtype: of queries, keys and values.
        device: where they lie.
        with_plain: whether the attention that holds all scores takes part.
        num_layers: whose pivots are drawn at once.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        num_text: int,
        config: ThreeRegionConfig,
        dtype: torch.dtype,
        device: torch.device,
        with_plain: bool,
        num_layers: int,
    ) -> None:
        torch.manual_seed(0)
        self.inputs = [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]
        self.gradient = torch.randn(shape, dtype=dtype, device=device)
        text = torch.full((shape[0],), num_text, device=device)

        def draw() -> list[Regions]:
            return draw_regions(text, torch.randint_like(text, 2**31), shape[2], num_layers, config)

        self.draw, regions = draw, draw()[0]

        def sparse(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return three_region_attention(query, key, value, regions, config)

        def flex(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return flexible_attention(query, key, value, regions, config)

        def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)

        self.systems: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
            "sparse": sparse,
            "dense": dense,
        }
        if device.type == "cuda" and has_triton_kernels(device):
            self.systems["flex"] = flex
        if with_plain:
            self.systems["plain"] = plain_attention

    def do(self, system: str, task: str) -> None:
        """Do one call, with its backward pass if the task is `training`."""
        if task == "forward":
            with torch.no_grad():
                self.systems[system](*self.inputs)
        else:
            torch.autograd.grad(self.systems[system](*self.inputs), self.inputs, self.gradient)


def peak_bytes(work: Work, system: str, task: str) -> int:
    """Return the bytes that a call adds at its highest; on a CPU this is known on Linux only."""
    device = work.gradient.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work.do(system, task)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed is taken again and adds nothing
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
    before = peak_resident_bytes()
    work.do(system, task)
    return peak_resident_bytes() - before


def check_sparse(device: torch.device) -> None:
    """Assert that what is measured computes what it should, gradients included, here and now."""
    config = ThreeRegionConfig(
        key_window_blocks=2, num_text_and_pivot_tokens=256, num_image_tokens=1_000, image_start_token=0
    )
    shape, num_text = (2, 2, 1_024, 64), torch.tensor([24, 60], device=device)
    (regions,) = draw_regions(num_text, torch.zeros_like(num_text), shape[2], 1, config)
    torch.manual_seed(0)
    inputs = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(shape, device=device)
    made = []
    for attention in (three_region_attention, masked_dense_attention):
        attended = attention(*inputs, regions, config)
        made.append((attended, *torch.autograd.grad(attended, inputs, gradient)))
    # On a GPU products may be rounded to TF32.
    tolerance = 1e-4 if device.type == "cpu" else 2e-2
    for fast, plain in zip(*made, strict=True):
        torch.testing.assert_close(fast, plain, atol=tolerance, rtol=tolerance)


def tune_tiles(work: Work, device: torch.device, rounds: int) -> None:
    """Print the milliseconds of Triton's kernels for each choice of tiles, forward and with the backward pass."""
    from triton.runtime.errors import OutOfResources

    from cogview.transformer.three_region_triton import TILES, Tiles

    wide = work.gradient.shape[3] > 64
    backward = "backward of more than 64 channels" if wide else "backward"
    for kind, task in (("forward", "forward"), (backward, "training")):
        before, found = TILES[kind], {}
        for numbers in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)):
            TILES[kind] = Tiles(*numbers)
            try:
                work.do("sparse", task)  # compiles
                once = partial(work.do, "sparse", task)
                taken = [seconds_of(once, device) for _ in range(rounds)]
            except OutOfResources as error:
                print(f"{kind} {tuple(numbers)}: {str(error)[:60]}", file=sys.stderr)
                continue
            found[numbers] = statistics.median(taken)
        TILES[kind] = Tiles(*min(found, key=found.__getitem__)) if found else before
        for numbers in sorted(found, key=found.__getitem__)[:5]:
            print(f"{task}: queries, keys, warps, stages {numbers}: {found[numbers] * 1e3:.3f} ms")


def main(
    *,
    quick: bool = False,
    rounds: int = 5,
    batch_size: int = 1,
    num_heads: int = 8,
    head_size: int = 64,
    num_tokens: int = 4_096,
    num_text: int = 64,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "cpu",
    num_layers: int = 48,
    plain: bool = True,
    tune: bool = False,
    out: str = "",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        quick: a tiny shape, only to see that everything runs and is right.
        rounds: of all systems, in turns; medians are reported.
        batch_size: sequences.
        num_heads: heads of each.
        head_size: channels of a head.
        num_tokens: of a sequence; the paper measures at 4,096.
        num_text: of these, text.
        dtype: of queries, keys and values.
        device: "cpu" or "cuda".
        num_layers: whose pivots are drawn at once.
        plain: let the attention that holds all scores take part.
        tune: time Triton's kernels with other tiles, and nothing else.
        out: name of the result; the device's kind by default.
    """
    if quick:
        rounds, batch_size, num_heads, num_tokens = 1, 1, 2, 512
    place = torch.device(device)
    environment = describe(place)
    check_sparse(place)
    config = ThreeRegionConfig(num_image_tokens=num_tokens - num_text)
    if quick:
        config = ThreeRegionConfig(
            key_window_blocks=2, num_text_and_pivot_tokens=128, num_image_tokens=num_tokens - num_text
        )
    shape = (batch_size, num_heads, num_tokens, head_size)
    work = Work(shape, num_text, config, getattr(torch, dtype), place, plain, num_layers)
    if tune:
        tune_tiles(work, place, rounds)
        return
    keys = [(task, system) for task in ("forward", "training") for system in work.systems]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    drawing: list[float] = []
    for number in range(-1, rounds):  # the first round compiles and prepares memory, and does not count
        taken = seconds_of(work.draw, place)
        if number >= 0:
            drawing.append(taken / num_layers)
        for task, system in keys:
            taken = seconds_of(lambda system=system, task=task: work.do(system, task), place)
            if number >= 0:
                seconds[task, system].append(taken)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    pivots = statistics.median(drawing)
    figures: dict[str, Any] = {"pivots_seconds_a_layer": pivots}
    print(f"pivots: {pivots * 1e3:.2f} ms a layer, counted below")
    print(
        "| | system | ms | sparse is faster by | memory, MB | sparse takes of it |\n|---|---|---|---|---|---|"
    )
    for task in ("forward", "training"):
        medians = {
            system: statistics.median(seconds[task, system]) + pivots * (system in ("sparse", "flex"))
            for system in work.systems
        }
        peaks = {system: peak_bytes(work, system, task) for system in work.systems}
        figures[task] = {
            "seconds": medians,
            "peak_bytes": peaks,
            "speed": {name: medians[name] / medians["sparse"] for name in medians},
            "memory": {name: peaks["sparse"] / max(peaks[name], 1) for name in peaks},
            "paper": WANTED,
        }
        for name in medians:
            print(
                f"| {task} | {name} | {medians[name] * 1e3:.1f} | {figures[task]['speed'][name]:.2f}x "
                f"| {peaks[name] / 1e6:.0f} | {figures[task]['memory'][name]:.0%} |"
            )
    if not quick:
        path = RESULTS / f"sparse-attention-{out or device}.json"
        facts = {
            "shape": shape,
            "num_text": num_text,
            "regions": vars(config),
            "dtype": dtype,
            "num_layers": num_layers,
            "rounds": rounds,
        }
        atomic_write_json(
            path, {"benchmark": "sparse_attention", "environment": environment} | facts | {"figures": figures}
        )
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
