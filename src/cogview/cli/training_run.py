"""What the two verbs that train have in common: how a run is carried out and reported."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cogview.cli.report import print_result
from cogview.data.ranks import Ranks
from cogview.files import atomic_write_json
from cogview.training.config import TrainingConfig
from cogview.training.interruption import TrainingInterrupted
from cogview.training.loop import train
from cogview.training.task import Task


def run_training(
    task: Task,
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool,
    recipe: Mapping[str, Any],
    sample: Callable[[int], None],
    export: Callable[[Path], None],
    evaluate: Callable[[], Mapping[str, Mapping[str, float]]] | None = None,
    whole: nn.Module | None = None,
    as_json: bool,
) -> None:
    """Train, and print what came of it.

    Args:
        task: the stage.
        config: how to train.
        out: the run folder.
        resume: go on with the run that lies there.
        recipe: what else defines the run.
        sample: draws a sample sheet, given the number of steps done.
        export: writes the model into an empty folder.
        evaluate: measures the trained model on each held-out split.
        whole: of several processes, gets the weights before samples are drawn and the model is exported.
        as_json: print the result as JSON.
    """
    try:
        summary = train(
            task, config, out, resume=resume, recipe=recipe, sample=sample, export=export, whole=whole
        )
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(f"{stop} The same command with --resume goes on.") from stop
    if Ranks.from_environment(os.environ).rank > 0:
        return  # the first one tells
    evaluation = dict(evaluate() if evaluate else {})
    if evaluation:
        atomic_write_json(out / "evaluation.json", evaluation)
    result: dict[str, Any] = {
        "run": out,
        "model": out / "model",
        "num_steps": summary.num_steps,
        "seconds": round(summary.seconds, 1),
        f"{summary.unit}_per_second": round(summary.items_per_second, 1),
        "metrics": dict(summary.metrics),
        "evaluation": evaluation,
    }
    shown = {
        name: value for name, value in summary.metrics.items() if name.endswith(("loss", "nats", "psnr"))
    }
    lines = [
        f"{summary.num_steps} steps in {summary.seconds:,.0f} s",
        *(f"{name}: {value:.4f}" for name, value in shown.items()),
        *(f"{name}: {_facts(value)}" for name, value in result["evaluation"].items()),
        f"samples: {out / 'samples'}",
        f"model: {out / 'model'}",
    ]
    print_result(result, lines, as_json)


def _facts(values: Mapping[str, float]) -> str:
    """Return named numbers in one line."""
    return ", ".join(f"{name} {value:,.2f}" for name, value in values.items())
