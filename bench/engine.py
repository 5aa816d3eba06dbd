"""How fast the engine draws: by window and batch, and against another checkout of this project.

    python bench/engine.py [--against PATH] [--works WORK ...]
    python bench/engine.py --device cuda

Windows: passes of the transformer, codes a pass and milliseconds, for windows of fixed width and for those that the
engine chooses; on CUDA with graphs and without. Against another checkout: both have a process that stays, they take
turns, and each repetition draws other texts with other seeds, so that nothing is remembered of them. Ratios are the
other's seconds over ours.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

import cogview
from bundled import run_once
from cogview.decoding.config import StepKind
from cogview.decoding.engine import Engine
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import AnyRequest, SequenceResult
from cogview.files import atomic_write_json
from cogview.generation.options import CodeOptions
from cogview.generation.text_to_image import picture_request
from environment import RESULTS, describe

THINGS = (
    "cat",
    "dog",
    "apple",
    "car",
    "tree",
    "flower",
    "house",
    "fish",
    "bird",
    "banana",
    "bus",
    "rocket",
    "lemon",
)
WARM_UP = 3
"""Rounds in which both draw pictures before anything is timed: kernels are compiled for each number of rows."""
PLACES = ("above", "below", "to the left of", "to the right of")

WORKER = """
import functools, json, sys, threading, time
import numpy as np
import torch
import cogview
pipe = cogview.load(device="cpu")
ours = hasattr(pipe, "size_pixels")
size = {"size_pixels": 128} if ours else {}
large = {"upscaler": "super-resolution"} if ours else {}

def arrivals(texts, seed):
    took = [0.0] * len(texts)
    def one(number):
        time.sleep(0.2 * number)
        start = time.perf_counter()
        pipe.generate(texts[number], 1, seed=seed + number, **size)
        took[number] = time.perf_counter() - start
    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(took) / len(took)

@functools.cache
def random_weights():
    # What draws the first 512 codes of some pictures, by a transformer of the shape that bench/decoding.py has.
    from cogview.transformer.config import TransformerConfig
    from cogview.transformer.model import Transformer

    torch.manual_seed(0)
    shape = dict(num_layers=8, hidden_size=512, num_heads=8, vocabulary_size=58_240, num_positions=1_089)
    transformer = Transformer(TransformerConfig(**shape)).eval()
    prefix, places, legal = np.arange(50_000, 50_016), np.arange(16, 528), range(8_192)
    if ours:
        from cogview.decoding.config import SamplingConfig
        from cogview.decoding.engine import Runner
        from cogview.decoding.request import Context, Request

        context = Context(tokens=prefix, positions=np.arange(16), next_positions=places)
        engine, config = Runner.of(transformer).engine, SamplingConfig(top_k=200)
        return lambda num, seed: engine.run([
            Request(context=context, legal=legal, seed=seed + each, sampling=config, num_columns=32)
            for each in range(num)
        ])
    from cogview.generation.config import SamplingConfig
    from cogview.generation.engine import Engine, Prompt
    from cogview.sequence.template import TokenSequence

    sequence = TokenSequence(tokens=prefix, positions=np.arange(16), kind=np.zeros(16, dtype=np.int8))
    engine, config = Engine(transformer, legal), SamplingConfig(top_k=200)
    return lambda num, seed: engine.generate(
        [Prompt(prefix=sequence, code_positions=places, seeds=tuple(range(seed, seed + num)))], config
    )

works = {
    "one": lambda texts, seed: pipe.generate(texts[0], 1, seed=seed, **size),
    "one, default size": lambda texts, seed: pipe.generate(texts[0], 1, seed=seed),
    "sixteen": lambda texts, seed: pipe.generate(texts[0], 16, seed=seed, **size),
    "ranked and upscaled": lambda texts, seed: pipe.generate(texts[:3], 16, keep=4, seed=seed, upscale=4, **large),
    "ranked and enlarged": lambda texts, seed: pipe.generate(texts[:3], 16, keep=4, seed=seed, upscale=4),
    "arrivals": arrivals,
    "random weights, 1": lambda texts, seed: random_weights()(1, seed),
    "random weights, 4": lambda texts, seed: random_weights()(4, seed),
    "random weights, 16": lambda texts, seed: random_weights()(16, seed),
}
for line in sys.stdin:
    work, texts, seed = json.loads(line)
    start = time.perf_counter()
    found = works[work](texts, seed)
    print(json.dumps(found if work == "arrivals" else time.perf_counter() - start), flush=True)
"""

WORKS = (
    "one",
    "one, default size",
    "sixteen",
    "arrivals",
    "random weights, 1",
    "random weights, 4",
    "random weights, 16",
    "ranked and upscaled",
)

BUSY = "while True: pass"


def texts_of(number: int) -> list[str]:
    """Return eight texts that no other number has."""
    return [
        f"a {THINGS[(number + each) % len(THINGS)]} {PLACES[(number // 7 + each) % len(PLACES)]} "
        f"a {THINGS[(3 * number + 5 * each + 1) % len(THINGS)]}"
        for each in range(8)
    ]


class Worker:
    """A process that has the bundled model of a checkout and does what it is told.

    Args:
        checkout: whose code; that which runs this if None.
    """

    def __init__(self, checkout: Path | None) -> None:
        environment = dict(os.environ)
        if checkout is not None:
            environment["PYTHONPATH"] = str(checkout.resolve() / "src")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def seconds(self, work: str, number: int) -> float:
        """Return how long a work takes, for texts and seeds that no other number has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([work, texts_of(number), 1000 * number]), file=self._process.stdin, flush=True)
        return float(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def busy_cores(num: int) -> Iterator[None]:
    """Keep cores busy."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(num)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_windows(
    batches: Sequence[int], widths: Sequence[int], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Return passes, codes a pass and milliseconds of each window and batch, and of each kind of step."""
    pipe = cogview.load(device=device)
    kinds: tuple[StepKind, ...] = ("graphs", "plain") if device.startswith("cuda") else ("plain",)
    runner, template = pipe.model.drawing()
    config = pipe.drawer.sampling(CodeOptions())

    def requests(batch: int, number: int) -> list[AnyRequest]:
        texts = texts_of(number)
        return [
            picture_request(
                runner,
                template,
                pipe.text_tokenizer.encode(texts[each // 8]),
                1000 * number + each,
                config,
            )
            for each in range(batch)
        ]

    figures = []
    print(
        "| steps | window | batch | passes | codes a pass and picture | ms a pass | ms a picture |\n"
        "|---|---|---|---|---|---|---|"
    )
    for batch, width, kind in itertools.product(batches, widths, kinds):
        proposer = Proposer(width, is_eager=True) if width else Proposer()
        engine = Engine(runner.engine.weights, max_batch=max(batch, 16), proposer=proposer, steps=kind)
        for _ in range(1 if kind == "plain" else 3):  # buckets are captured when they are met again
            engine.run(requests(batch, 0))
        seconds, passes = [], []
        for number in range(1, rounds + 1):
            before, start = engine.num_passes, time.perf_counter()
            results = engine.run(requests(batch, number))
            seconds.append(time.perf_counter() - start)
            passes.append(engine.num_passes - before)
            assert all(isinstance(result, SequenceResult) for result in results)
        figure = {
            "steps": kind,
            "window": width or "chosen",
            "batch": batch,
            "passes": statistics.mean(passes),
            "codes_a_pass_and_picture": template.num_codes_per_image / statistics.mean(passes),
            "milliseconds_a_pass": 1e3 * statistics.median(seconds) / statistics.mean(passes),
            "milliseconds_a_picture": 1e3 * statistics.median(seconds) / batch,
        }
        figures.append(figure)
        print(
            f"| {kind} | {figure['window']} | {batch} | {figure['passes']:.0f} "
            f"| {figure['codes_a_pass_and_picture']:.1f} "
            f"| {figure['milliseconds_a_pass']:.1f} | {figure['milliseconds_a_picture']:.0f} |",
            flush=True,
        )
    return figures


def measure_against(
    other: Path, works: Sequence[str], rounds: int, figures: dict[str, Any], save: Callable[[], None]
) -> None:
    """Measure the seconds of both checkouts and their ratio, of each work.

    Args:
        other: the other checkout.
        works: what both do.
        rounds: repetitions.
        figures: take what is measured.
        save: called after each work.
    """
    print("| work | ours, seconds | theirs, seconds | times as fast |\n|---|---|---|---|")

    def told(work: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
        own, their = statistics.median(ours), statistics.median(theirs)
        figures[work] = {"seconds": own, "other_seconds": their, "ratio": their / own, "all": [ours, theirs]}
        print(f"| {work} | {own:.2f} | {their:.2f} | {their / own:.2f} |", flush=True)
        save()

    with ExitStack() as stack:
        workers = [Worker(None), Worker(other)]
        for worker in workers:
            stack.callback(worker.close)
        for number, worker, work in itertools.product(range(WARM_UP), workers, ("one", "sixteen")):
            worker.seconds(work, 100 + number)
        for work in works:
            times: list[list[float]] = [[], []]
            for number in range(rounds + 1):
                for worker, taken in zip(workers, times, strict=True):
                    taken.append(worker.seconds(work, number))
            told(work, *(taken[1:] for taken in times))  # the first may prepare weights
        if "one" in works:
            with busy_cores(os.cpu_count() or 1):
                times = [
                    [worker.seconds("one", 50 + number) for number in range(rounds)] for worker in workers
                ]
            told("one, all cores busy", *times)
            figures["busy_over_idle"] = statistics.median(times[0]) / figures["one"]["seconds"]
            print(f"beside busy cores ours takes {figures['busy_over_idle']:.1f} times its time on idle ones")
    runs = [
        [run_once(1, None, checkout, texts_of(number)[0]) for number in range(rounds)]
        for checkout in (None, other)
    ]
    told("process to the first picture", *([run.seconds for run in each] for each in runs))
    peaks = [max(run.gigabytes for run in each) for each in runs]
    figures["peak_gigabytes"] = {"ours": peaks[0], "other": peaks[1], "ratio": peaks[0] / peaks[1]}
    print(f"peak memory {peaks[0]:.2f} GB, theirs {peaks[1]:.2f}: {peaks[0] / peaks[1]:.2f} of it")
    save()


def main(
    *,
    against: Path | None = None,
    rounds: int = 5,
    batches: tuple[int, ...] = (1, 4, 16),
    works: tuple[str, ...] = WORKS,
    windows: bool = True,
    widths: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 0),
    device: str = "cpu",
    out: str = "",
) -> None:
    """Measure, print tables and write the figures as JSON.

    Args:
        against: another checkout of this project.
        rounds: repetitions; medians are reported.
        batches: pictures drawn at once, for the table of windows.
        works: what both checkouts do.
        windows: whether to measure windows.
        widths: of windows, 0 for those that the engine chooses.
        device: on which windows are measured; another checkout is compared with on the CPU.
        out: name of the result.
    """
    name = out or ("" if device == "cpu" else device)
    path = RESULTS / f"engine{name and '-'}{name}.json"
    result: dict[str, Any] = {
        "benchmark": "engine",
        "environment": describe(torch.device(device)),
        "rounds": rounds,
    }
    if windows:
        result["windows"] = measure_windows(batches, widths, rounds, device)
    if against is not None:
        words = ["git", "-C", str(against), "rev-parse", "--short", "HEAD"]
        result["other_commit"] = subprocess.run(
            words, capture_output=True, text=True, check=True
        ).stdout.strip()
        result["against"] = {}
        save = partial(atomic_write_json, path, result)
        measure_against(against, works, rounds, result["against"], save)
    atomic_write_json(path, result)
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
