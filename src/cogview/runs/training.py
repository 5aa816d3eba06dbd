"""Training and evaluation of a task, common to all training runs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cogview.data.ranks import Ranks
from cogview.files import atomic_write_json
from cogview.runs.training_options import TrainingOptions
from cogview.training.config import TrainingConfig
from cogview.training.dry_run import DryRun, take_two_steps
from cogview.training.interruption import TrainingInterrupted
from cogview.training.loop import TrainingSummary, train
from cogview.training.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training run.

    Args:
        run: its folder.
        model: folder of the trained model, image tokenizer or adapter.
        summary: steps, time and last losses.
        evaluation: figures by held-out split.
    """

    run: Path
    model: Path
    summary: TrainingSummary
    evaluation: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class DryRunResult:
    """Result of a dry run.

    Args:
        taken: measured in two steps on this machine.
        planned: forecast by `cogview.planning.plan.plan_training`; None if there is no plan for the task.
    """

    taken: DryRun
    planned: Mapping[str, Any] | None


def carry_out(
    task: Task,
    config: TrainingConfig,
    options: TrainingOptions,
    *,
    recipe: Mapping[str, Any],
    sample: Callable[[int], None],
    export: Callable[[Path], None],
    evaluate: Callable[[], Mapping[str, Mapping[str, float]]] | None = None,
    whole: nn.Module | None = None,
    foretell: Callable[[torch.device], Mapping[str, Any]] | None = None,
) -> TrainingResult | DryRunResult | None:
    """Train and evaluate a task, or do a dry run of it.

    Args:
        task: the stage.
        config: of the training.
        options: the run folder, and whether to resume or do a dry run.
        recipe: what else defines the run.
        sample: draws a sample sheet, given the number of completed steps.
        export: writes the model into an empty folder.
        evaluate: measures the trained model by held-out split.
        whole: with several processes, gets the full weights for samples and export.
        foretell: plans the training on a device, as `cogview.planning.plan.plan_training` does.

    Returns:
        The result; None in all processes but the first.
    """
    is_first = Ranks.from_environment(os.environ).rank == 0
    if options.dry_run:
        taken = take_two_steps(task, config)
        planned = foretell(taken.device) if foretell is not None and is_first else None
        return DryRunResult(taken=taken, planned=planned) if is_first else None
    out = options.out
    try:
        summary = train(
            task, config, out, resume=options.resume, recipe=recipe, sample=sample, export=export, whole=whole
        )
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(f"{stop} The same command with --resume goes on.") from stop
    if not is_first:
        return None
    evaluation = dict(evaluate() if evaluate else {})
    if evaluation:
        atomic_write_json(out / "evaluation.json", evaluation)
    return TrainingResult(run=out, model=out / "model", summary=summary, evaluation=evaluation)
