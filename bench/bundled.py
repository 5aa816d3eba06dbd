"""How long the bundled model takes on a user's machine: whole processes of `cogview generate`, start included.

    python bench/bundled.py

Wanted on 2 cores: the first picture in under 10 s, 8 candidates in under 20 s, at most 1.5 GB of memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
import tyro

from cogview.files import atomic_write_json
from environment import RESULTS, describe

WANTED_SECONDS = {1: 10.0, 8: 20.0}
WANTED_GIGABYTES = 1.5
TEXT = "蓝色背景上的一只猫和一个苹果"


def run_once(num_candidates: int, folder: str, model: str | None) -> tuple[float, float]:
    """Return the seconds from start to end of a process that draws a text, and its peak memory in GB."""
    command = [sys.executable, "-c", "import sys; from cogview.cli.main import main; sys.exit(main())"]
    command += ["generate", TEXT, "--num-candidates", str(num_candidates), "--out", folder]
    command += ["--device", "cpu"] + (["--model", model] if model else [])
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"cogview generate failed: {messages.decode().strip().splitlines()[-1]}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return seconds, kilobytes * 1024 / 1e9


def main(*, rounds: int = 3, model: str | None = None, out: str = "cpu") -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        rounds: processes of each kind, in turns; medians are reported.
        model: another model than the bundled one.
        out: name of the result.
    """
    environment = describe(torch.device("cpu"))
    runs: dict[int, list[tuple[float, float]]] = {num: [] for num in WANTED_SECONDS}
    with tempfile.TemporaryDirectory() as folder:
        run_once(1, folder, model)  # reads everything from disk once
        for _ in range(rounds):
            for num_candidates in runs:
                runs[num_candidates].append(run_once(num_candidates, folder, model))
    figures: list[dict[str, Any]] = []
    print("| candidates | seconds | wanted | peak GB | wanted |\n|---|---|---|---|---|")
    for num_candidates, results in runs.items():
        seconds = statistics.median(result[0] for result in results)
        gigabytes = max(result[1] for result in results)
        wanted = WANTED_SECONDS[num_candidates]
        figures.append(
            {
                "num_candidates": num_candidates,
                "seconds": seconds,
                "wanted_seconds": wanted,
                "peak_gigabytes": gigabytes,
                "wanted_gigabytes": WANTED_GIGABYTES,
            }
        )
        print(f"| {num_candidates} | {seconds:.1f} | {wanted:.0f} | {gigabytes:.2f} | {WANTED_GIGABYTES} |")
    path = RESULTS / f"bundled-{out}.json"
    atomic_write_json(path, {"benchmark": "bundled", "environment": environment, "figures": figures})
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
