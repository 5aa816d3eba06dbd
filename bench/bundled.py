"""How long the bundled model takes on a user's machine: whole processes of `cogview generate`, and once it is loaded.

    python bench/bundled.py [--against PATH]

Wanted on 2 cores: the first picture in under 10 s, 8 candidates in under 20 s, at most 1.5 GB of memory. With
`--against`, the path of another checkout, its processes take turns with this one's, each drawing at its own default
size. Then it is told whether both draw the same codes, decode and encode them to the same values by the image
tokenizer's own decoder, and find the same losses; the transformer's are means, which may be summed otherwise, so there
one part in a million is let pass.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from cogview.files import atomic_write_json
from environment import RESULTS, describe

WANTED_SECONDS = {1: 10.0, 8: 20.0}
WANTED_GIGABYTES = 1.5
TEXT = "蓝色背景上的一只猫和一个苹果"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process: from start to end in seconds, what it computed in seconds of all cores, and its peak memory."""

    seconds: float
    cpu_seconds: float
    gigabytes: float


def run_once(num_candidates: int, model: str | None, checkout: Path | None, text: str = TEXT) -> Run:
    """Time a process that draws a text.

    Args:
        num_candidates: that it draws.
        model: to draw with; the bundled one if None.
        checkout: whose code is run; that which runs this if None.
        text: to draw.
    """
    command = [sys.executable, "-c", "import sys; from cogview.cli.main import main; sys.exit(main())"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["generate", text, "--num-candidates", str(num_candidates), "--out", folder]
        command += ["--device", "cpu"] + (["--model", model] if model else [])
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment_of(checkout)
        )
        assert process.stderr is not None
        messages = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"cogview generate failed: {messages.decode().strip().splitlines()[-1]}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Run(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        gigabytes=kilobytes * 1024 / 1e9,
    )


LOADED = """
import sys, time
import cogview
text, num_candidates, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pipe = cogview.load(*sys.argv[4:], device="cpu")
pipe.generate(text, num_candidates=num_candidates, seed=0)
for seed in range(1, rounds + 1):
    start = time.perf_counter()
    pipe.generate(text, num_candidates=num_candidates, seed=seed)
    print(time.perf_counter() - start)
"""


FACTS = """
import hashlib, importlib.util, json, sys
import cogview
from cogview.training.transformer import evaluate_losses
text, pipe = sys.argv[1], cogview.load(*sys.argv[2:], device="cpu")
digest = lambda values: hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
has_samplers = importlib.util.find_spec("cogview.decoding") is not None
inverted = {"sampler": "inversion"} if has_samplers else {}  # as all were drawn before
codes = pipe.generate_codes(text, 4, seed=0, **inverted)[0]
pixels = pipe.image_tokenizer.decode(codes)
pairs = [(pipe.text_tokenizer.encode(text), each.numpy()) for each in codes]
print(json.dumps({
    "codes drawn": digest(codes),
    "pixels decoded": digest(pixels),
    "codes encoded": digest(pipe.image_tokenizer.encode(pixels)),
    "caption losses": pipe.caption_loss(list(codes), text),
    "losses": evaluate_losses(pipe.transformer, pipe.template, pairs, batch_size=4),
}))
"""


def _environment_of(checkout: Path | None) -> dict[str, str]:
    """Return the variables with which a process imports a checkout's package; this one's if None."""
    return dict(os.environ) | ({} if checkout is None else {"PYTHONPATH": str(checkout.resolve() / "src")})


def _process(checkout: Path | None, code: str, *words: str) -> str:
    """Return what a Python process prints that runs some code with a checkout's package."""
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, env=_environment_of(checkout), capture_output=True, text=True, check=True)
    return run.stdout


def facts_of(checkout: Path | None, model: str | None, text: str) -> dict[str, Any]:
    """Return what must not change: the codes drawn for a text, what they are decoded and encoded to, and losses."""
    facts: dict[str, Any] = json.loads(_process(checkout, FACTS, text, *([model] if model else [])))
    return facts


def time_once_loaded(
    num_candidates: int, model: str | None, checkout: Path | None, text: str, rounds: int
) -> float:
    """Return the median seconds of a call of a pipeline that is loaded and has drawn before.

    Args:
        num_candidates: that each call draws.
        model: to draw with; the bundled one if None.
        checkout: whose code is run; that which runs this if None.
        text: to draw.
        rounds: calls, each with a seed of its own.
    """
    words = [text, str(num_candidates), str(rounds), *([model] if model else [])]
    out = _process(checkout, LOADED, *words)
    return statistics.median(float(line) for line in out.split())


def main(
    *,
    rounds: int = 3,
    model: str | None = None,
    text: str = TEXT,
    num_candidates: tuple[int, ...] = tuple(WANTED_SECONDS),
    against: Path | None = None,
    out: str = "cpu",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        rounds: processes of each kind, in turns; medians are reported.
        model: another model than the bundled one.
        text: to draw.
        num_candidates: to draw of it, each number of its own; 1 and 8 have a time that is wanted.
        against: another checkout of this project, whose processes take turns with this one's.
        out: name of the result.
    """
    environment = describe(torch.device("cpu"))
    checkouts = [None] if against is None else [None, against]
    kinds = [(num, checkout) for num in num_candidates for checkout in checkouts]
    runs: dict[tuple[int, Path | None], list[Run]] = {kind: [] for kind in kinds}
    for checkout in checkouts:
        run_once(1, model, checkout, text)  # reads everything from disk once
    for _ in range(rounds):
        for num, checkout in kinds:
            runs[num, checkout].append(run_once(num, model, checkout, text))
    loaded = {
        (num, checkout): time_once_loaded(num, model, checkout, text, rounds) for num, checkout in kinds
    }
    figures: list[dict[str, Any]] = []
    print(
        "| candidates | seconds | wanted | CPU seconds | once loaded | peak GB | wanted "
        "| other | other CPU | other, once loaded | times as fast |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for num in num_candidates:
        wanted = WANTED_SECONDS.get(num)
        own = _medians(runs[num, None])
        figure = {
            "num_candidates": num,
            **own,
            "seconds_once_loaded": loaded[num, None],
            "wanted_seconds": wanted,
            "wanted_gigabytes": WANTED_GIGABYTES,
        }
        row = f"| {num} | {own['seconds']:.1f} | {wanted or ''} | {own['cpu_seconds']:.1f} "
        row += f"| {loaded[num, None]:.2f} "
        row += f"| {own['peak_gigabytes']:.2f} | {WANTED_GIGABYTES} "
        if against is None:
            row += "| | | | |"
        else:
            other = _medians(runs[num, against])
            figure["against"] = {
                **other,
                "seconds_once_loaded": loaded[num, against],
                "commit": _commit_of(against),
                "seconds_ratio": other["seconds"] / own["seconds"],
                "cpu_seconds_ratio": other["cpu_seconds"] / own["cpu_seconds"],
                "once_loaded_ratio": loaded[num, None] / loaded[num, against],
            }
            row += f"| {other['seconds']:.1f} | {other['cpu_seconds']:.1f} "
            row += f"| {loaded[num, against]:.2f} "
            row += f"| {figure['against']['seconds_ratio']:.2f} |"
        figures.append(figure)
        print(row)
    same: dict[str, bool] = {}
    if against is not None:
        ours, theirs = facts_of(None, model, text), facts_of(against, model, text)
        means, other_means = ours.pop("losses"), theirs.pop("losses")
        same = {name: ours[name] == theirs[name] for name in ours}
        same["losses"] = all(math.isclose(means[name], other_means[name], rel_tol=1e-6) for name in means)
        caption_losses = zip(ours["caption losses"], theirs["caption losses"], strict=True)
        del same["caption losses"]  # the engine scores by other products than the loops before it
        same["caption losses to five digits"] = all(
            math.isclose(*each, rel_tol=1e-5) for each in caption_losses
        )
        print("the same as", _commit_of(against), same)
    path = RESULTS / f"bundled-{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "bundled",
            "environment": environment,
            "rounds": rounds,
            "text": text,
            "figures": figures,
            **({"same_as_the_other": same} if same else {}),
        },
    )
    print(path)


def _medians(runs: list[Run]) -> dict[str, float]:
    """Return the medians of some runs, and the most memory that one took."""
    return {
        "seconds": statistics.median(run.seconds for run in runs),
        "cpu_seconds": statistics.median(run.cpu_seconds for run in runs),
        "peak_gigabytes": max(run.gigabytes for run in runs),
    }


def _commit_of(checkout: Path) -> str | None:
    """Return the commit of a checkout, if git knows it."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or None


if __name__ == "__main__":
    tyro.cli(main)
