"""What `cogview generate` takes where another process keeps a core busy, for several settings of OpenMP's waiting.

    python bench/busy_core.py [--rounds 3]

PyTorch's threads wait for each other by spinning. Where there are fewer free cores than threads, they may spin for a
thread that does not run. `GOMP_SPINCOUNT` bounds that; the command line sets it unless the user has. It matters beside
a process of higher priority, which is not measured here. Whole processes take turns, on an idle machine and beside one
busy loop; what takes longer than the limit is stopped and counts as it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import tyro

from cogview.files import atomic_write_json
from environment import RESULTS, describe

SETTINGS = {
    "PyTorch's own": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": "ACTIVE"},
    "spins 1000 times": {"GOMP_SPINCOUNT": "1000"},
    "the command line's": {},
    "spins 4000 times": {"GOMP_SPINCOUNT": "4000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def seconds_of(settings: dict[str, str], limit_seconds: float) -> float:
    """Return how long a process takes that draws one picture."""
    command = [sys.executable, "-c", "import sys; from cogview.cli.main import main; sys.exit(main())"]
    with tempfile.TemporaryDirectory() as folder:
        words = [*command, "generate", "a cat", "--num-candidates", "1", "--device", "cpu", "--out", folder]
        environment = {name: value for name, value in (os.environ | settings).items() if value}
        start = time.perf_counter()
        try:
            subprocess.run(words, env=environment, check=True, capture_output=True, timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            return limit_seconds
        return time.perf_counter() - start


def main(*, rounds: int = 3, limit_seconds: float = 60.0) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        rounds: processes of each kind, in turns; medians are reported.
        limit_seconds: after which a process is stopped.
    """
    environment = describe(torch.device("cpu"))
    found: dict[tuple[str, bool], list[float]] = {}
    for is_busy in (False, True):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if is_busy else None
        try:
            for _ in range(rounds):
                for name, settings in SETTINGS.items():
                    found.setdefault((name, is_busy), []).append(seconds_of(settings, limit_seconds))
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    print("| waiting | seconds, all cores free | beside one busy loop |\n|---|---|---|")
    figures = []
    for name in SETTINGS:
        free, beside = (statistics.median(found[name, is_busy]) for is_busy in (False, True))
        figures.append({"setting": name, "seconds_free": free, "seconds_beside_a_busy_loop": beside})
        more = " or more" if beside >= limit_seconds else ""
        print(f"| {name} | {free:.1f} | {beside:.1f}{more} |")
    path = RESULTS / "busy_core.json"
    atomic_write_json(
        path, {"benchmark": "busy_core", "environment": environment, "rounds": rounds, "figures": figures}
    )
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
