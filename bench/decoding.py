"""How fast codes are drawn: ours against the authors' scheme and GPT-2 of transformers, in one run.

    python bench/decoding.py                  # the full measurement, about half an hour on 2 cores
    python bench/decoding.py --quick          # a self-test at a tiny shape, seconds

The time of a picture is integrated from that of single steps at five lengths, the same five for all; the slowest
rival would otherwise take hours. Systems take turns at each length, and medians are taken over the rounds, so that a
machine that slows down does so for all. At batch 1 GPT-2 and ours also draw a whole picture, to check the integral.
"""

import dataclasses
import importlib.util
import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
import tyro

from cogview.decoding.linear import can_pack
from cogview.files import atomic_write_json
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from environment import RESULTS, describe, read_bandwidth, seconds_of, synchronise
from systems import GPT2, AuthorsScheme, Ours, OursInGraphs, System

# Large pages for all systems, as the command `cogview` has them.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

SHAPE = TransformerConfig(
    num_layers=8, hidden_size=512, num_heads=8, vocabulary_size=58_240, num_positions=1_089
)
TINY = TransformerConfig(num_layers=2, hidden_size=64, num_heads=2, vocabulary_size=640, num_positions=128)

TARGETS = {
    ("authors' scheme", "ours, float32, packed"): {1: 12.0, 4: 25.0, 16: 45.0},
    ("transformers GPT-2", "ours, float32, packed"): {1: 3.5, 4: 7.0, 16: 5.0},
    ("authors' scheme, same kernels", "ours, float32, packed"): {1: 4.0},
    ("transformers GPT-2, same kernels", "ours, float32, packed"): {1: 2.3},
    ("authors' scheme", "ours, bfloat16, packed"): {1: 20.0},
}
"""(rival, ours) -> batch -> how many times as fast ours has to be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is drawn.

    Args:
        num_prefix: tokens before the codes.
        num_codes: codes of a picture.
        num_legal: codes of the codebook.
        top_k: codes to draw from.
        lengths: at which steps are timed, from the first to the last of a picture.
    """

    num_prefix: int
    num_codes: int
    num_legal: int
    top_k: int
    lengths: tuple[int, ...]


FULL = Workload(num_prefix=16, num_codes=1024, num_legal=8192, top_k=200, lengths=(16, 272, 528, 784, 1040))
SMALL = Workload(num_prefix=8, num_codes=64, num_legal=256, top_k=20, lengths=(8, 40, 72))


def build_systems(
    transformer: Transformer, workload: Workload, batch: int, dtype: torch.dtype
) -> list[System]:
    """Return what is compared at a batch size."""
    args = (transformer, workload.top_k, workload.num_legal)
    if transformer.device.type == "cuda":
        return [
            AuthorsScheme(*args),
            GPT2(*args),
            Ours(*args, dtype, "plain"),
            OursInGraphs(*args, dtype),
        ]
    systems: list[System] = [
        AuthorsScheme(*args),
        GPT2(*args),
        Ours(*args, torch.float32, "plain"),
    ]
    if can_pack("cpu", torch.float32):
        systems.append(Ours(*args, torch.float32, "packed"))
        if batch == 1:
            systems += [AuthorsScheme(*args, packed=True), GPT2(*args, packed=True)]
    systems += [
        Ours(*args, half, "packed") for half in (torch.bfloat16, torch.float16) if can_pack("cpu", half)
    ]
    if importlib.util.find_spec("numba") is not None:
        systems += [Ours(*args, dtype, "native") for dtype in (torch.float32, torch.float16, torch.int8)]
    return systems


def step_seconds(system: System, batch: int, length: int, budget: float, device: torch.device) -> float:
    """Return the median time of a step at a length, of as many as fit into the budget but two at least."""
    system.start(batch, length)
    system.step()
    times: list[float] = []
    synchronise(device)
    while len(times) < 2 or (sum(times) < budget and len(times) < 30):
        times.append(seconds_of(system.step, device))
    system.stop()
    return statistics.median(times)


def measure(
    transformer: Transformer, workload: Workload, batch: int, rounds: int, budget: float, dtype: torch.dtype
) -> list[dict[str, Any]]:
    """Return the figures of each system at a batch size."""
    systems = build_systems(transformer, workload, batch, dtype)
    times: dict[str, dict[int, list[float]]] = {system.name: {} for system in systems}
    for _ in range(rounds):
        for length in workload.lengths:
            for system in systems:
                seconds = step_seconds(system, batch, length, budget, transformer.device)
                times[system.name].setdefault(length, []).append(seconds)
    figures = []
    for system in systems:
        medians = [statistics.median(times[system.name][length]) for length in workload.lengths]
        mean_step = np.trapezoid(medians, workload.lengths) / (workload.lengths[-1] - workload.lengths[0])
        figures.append(
            {
                "system": system.name,
                "batch": batch,
                "seconds": float(mean_step) * workload.num_codes,
                "mean_step_milliseconds": 1e3 * float(mean_step),
                "step_milliseconds": dict(zip(workload.lengths, (1e3 * x for x in medians), strict=True)),
            }
        )
        if isinstance(system, Ours):
            mean_length = statistics.mean((workload.lengths[0], workload.lengths[-1]))
            figures[-1]["bytes_per_step"] = system.bytes_per_step(batch, mean_length)
        if batch == 1 and isinstance(system, GPT2 | Ours):

            def whole(system: GPT2 | Ours = system) -> None:
                system.generate(workload.num_prefix, workload.num_codes)

            if isinstance(system, OursInGraphs):
                whole()  # captures graphs
            whole_times = [seconds_of(whole, transformer.device) for _ in range(min(rounds, 3))]
            figures[-1]["whole_seconds"] = statistics.median(whole_times)
    return figures


def compare(figures: list[dict[str, Any]], ours_reached: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times as fast as each rival ours is, beside what was aimed at and what is possible.

    Nothing that reads the bytes that ours reads can be more than `at_most` times as fast as the rival here.
    """
    seconds = {(figure["system"], figure["batch"]): figure["seconds"] for figure in figures}
    reached = {(line["system"], line["batch"]): line["reached"] for line in ours_reached}
    ratios = []
    for (rival, batch), rival_seconds in seconds.items():
        for (ours, our_batch), our_seconds in seconds.items():
            if batch == our_batch and ours.startswith("ours") and not rival.startswith("ours"):
                target = TARGETS.get((rival, ours), {}).get(batch)
                ratio = rival_seconds / our_seconds
                ratios.append(
                    {
                        "system": ours,
                        "against": rival,
                        "batch": batch,
                        "ratio": ratio,
                        "target": target,
                        "at_most": ratio / reached[ours, batch],
                    }
                )
    return ratios


def roofline(figures: list[dict[str, Any]], bytes_per_second: float) -> list[dict[str, Any]]:
    """Return how close our steps come to the time that reading their bytes takes."""
    return [
        {
            "system": figure["system"],
            "batch": figure["batch"],
            "megabytes_per_step": figure["bytes_per_step"] / 1e6,
            "least_milliseconds": 1e3 * figure["bytes_per_step"] / bytes_per_second,
            "measured_milliseconds": figure["mean_step_milliseconds"],
            "reached": figure["bytes_per_step"] / bytes_per_second / figure["mean_step_milliseconds"] * 1e3,
        }
        for figure in figures
        if "bytes_per_step" in figure
    ]


def check_agreement(transformer: Transformer, workload: Workload) -> None:
    """Assert that the authors' scheme and ours compute the same logits, so that the same work is compared."""
    authors = AuthorsScheme(transformer, workload.top_k, workload.num_legal)
    authors.start(2, 0)
    args = (transformer, workload.top_k, workload.num_legal, torch.float32)
    all_ours = [Ours(*args, "auto")]
    if importlib.util.find_spec("numba") is not None:
        all_ours.append(Ours(*args, "native"))
    for ours in all_ours:
        ours.start(2, 0)
    tokens = torch.randint(workload.num_legal, (2, 12))
    for place in range(12):
        position = torch.full((2, 1), place)
        expected = authors.read(tokens[:, place, None], position)[:, : workload.num_legal]
        for ours in all_ours:
            found = ours.read(tokens[:, place], position[:, 0])
            assert torch.allclose(expected, found, atol=1e-4), (
                "the authors' scheme and ours compute different logits"
            )
    greedy = (transformer, 1, workload.num_legal)
    systems = [Ours(*greedy, torch.float32, "auto"), OursInGraphs(*greedy, torch.float32)]
    codes = []
    for system in systems:
        system.start(2, 0)
        for _ in range(12):
            system.step()
            codes.append(np.asarray(system.codes if isinstance(system, OursInGraphs) else system.tokens))
    assert np.array_equal(codes[:12], codes[12:]), "ours and its steps of static shapes draw different codes"


def main(
    *,
    quick: bool = False,
    batches: tuple[int, ...] = (1, 4, 16),
    rounds: int = 5,
    budget_seconds: float = 1.0,
    device: str = "cpu",
    dtype: str = "float32",
    num_layers: int = SHAPE.num_layers,
    hidden_size: int = SHAPE.hidden_size,
    num_heads: int = SHAPE.num_heads,
    out: str = "",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        quick: a tiny shape and few steps, only to see that everything runs and agrees.
        batches: pictures drawn at once.
        rounds: how often everything is measured; medians are reported.
        budget_seconds: time for the steps of one system at one length.
        device: "cpu" or "cuda".
        dtype: of all weights on CUDA; on CPU the systems' names say theirs.
        num_layers: blocks of the transformer.
        hidden_size: its width.
        num_heads: its heads.
        out: name of the result; the device's kind by default.
    """
    shape = dataclasses.replace(SHAPE, num_layers=num_layers, hidden_size=hidden_size, num_heads=num_heads)
    config, workload = (TINY, SMALL) if quick else (shape, FULL)
    if quick:
        batches, rounds, budget_seconds = (1, 2), 1, 0.02
    torch.manual_seed(0)
    target, weights = torch.device(device), getattr(torch, dtype)
    with target:  # where large weights are drawn faster
        transformer = Transformer(config).eval().to(weights if device == "cuda" else torch.float32)
    transformer.requires_grad_(False)
    environment = describe(target)
    figures: list[dict[str, Any]] = []
    start = time.perf_counter()
    with torch.inference_mode():
        if quick and device == "cpu":
            check_agreement(transformer, workload)
        bandwidths = [read_bandwidth(target, *((10**7, 2) if quick else ()))]
        for batch in batches:
            figures += measure(transformer, workload, batch, rounds, budget_seconds, weights)
            bandwidths.append(read_bandwidth(target, *((10**7, 2) if quick else ())))
            print(f"batch {batch} after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    reached = roofline(figures, max(bandwidths))
    result = {
        "benchmark": "decoding",
        "environment": environment,
        "shape": dataclasses.asdict(config),
        "workload": dataclasses.asdict(workload),
        "rounds": rounds,
        "read_gigabytes_per_second": max(bandwidths) / 1e9,
        "figures": figures,
        "ratios": compare(figures, reached),
        "roofline": reached,
    }
    print(table(result))
    if not quick:
        path = RESULTS / f"decoding-{out or device}.json"
        atomic_write_json(path, json.loads(json.dumps(result)))
        print(path)


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["| system | batch | seconds a picture-batch | whole |", "|---|---|---|---|"]
    for figure in result["figures"]:
        whole = figure.get("whole_seconds")
        lines.append(
            f"| {figure['system']} | {figure['batch']} | {figure['seconds']:.3g} | "
            f"{f'{whole:.3g}' if whole else ''} |"
        )
    lines += [
        "",
        "| ours | against | batch | times as fast | wanted | at most |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {line['system']} | {line['against']} | {line['batch']} | {line['ratio']:.1f} | "
        f"{line['target'] or ''} | {line['at_most']:.1f} |"
        for line in result["ratios"]
    ]
    lines += ["", f"Reads {result['read_gigabytes_per_second']:.1f} GB/s.", ""]
    lines += ["| ours | batch | MB a step | least ms | measured ms | reached |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {line['system']} | {line['batch']} | {line['megabytes_per_step']:.0f} | "
        f"{line['least_milliseconds']:.2f} | {line['measured_milliseconds']:.2f} | {line['reached']:.0%} |"
        for line in result["roofline"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
