"""Trains whatever a recipe is for, and tells what came of it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cogview.data.ranks import Ranks
from cogview.files import atomic_write_json
from cogview.training.config import TrainingConfig
from cogview.training.interruption import TrainingInterrupted
from cogview.training.loop import TrainingSummary, train
from cogview.training.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What came of a training.

    Args:
        run: its folder.
        model: what was trained: the folder of a model, an image tokenizer or an adapter.
        summary: steps, time and last losses.
        evaluation: figures by held-out split.
    """

    run: Path
    model: Path
    summary: TrainingSummary
    evaluation: Mapping[str, Mapping[str, float]]


def carry_out(
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
) -> TrainingResult | None:
    """Train a task and measure it.

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

    Returns:
        What came of it; None in all processes but the first.
    """
    try:
        summary = train(
            task, config, out, resume=resume, recipe=recipe, sample=sample, export=export, whole=whole
        )
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(f"{stop} The same command with --resume goes on.") from stop
    if Ranks.from_environment(os.environ).rank > 0:
        return None
    evaluation = dict(evaluate() if evaluate else {})
    if evaluation:
        atomic_write_json(out / "evaluation.json", evaluation)
    return TrainingResult(run=out, model=out / "model", summary=summary, evaluation=evaluation)
