"""The training loop of both stages, to be read from top to bottom."""

import errno
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import nn

from cogview.errors import CogViewError
from cogview.files import atomic_folder
from cogview.training.batches import prefetched_batches
from cogview.training.checkpoint import load_latest_checkpoint, save_checkpoint
from cogview.training.config import TrainingConfig
from cogview.training.interruption import StopRequest, TrainingInterrupted
from cogview.training.metrics import MetricMeans, MetricsLog, read_metrics
from cogview.training.optimizer import build_optimizers, set_learning_rates
from cogview.training.parallel import clip_gradients, copy_whole, parallelise
from cogview.training.plot import plot_losses
from cogview.training.precision import autocast, compiler_failure, resolve_precision
from cogview.training.processes import Processes, joined_processes
from cogview.training.progress import Pace, Progress, say
from cogview.training.run_folder import claimed_run_folder, describe_run
from cogview.training.task import Batch, Metrics, Task


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a run came to.

    Args:
        num_steps: steps of the whole run.
        seconds: spent in training steps, over all resumes.
        items_per_second: the mean rate since the last start; 0 if it had no step left to do.
        unit: the plural of what is counted as items.
        metrics: the last line of the metrics.
    """

    num_steps: int
    seconds: float
    items_per_second: float
    unit: str
    metrics: Mapping[str, int | float]


def train(
    task: Task,
    config: TrainingConfig,
    run_folder: Path,
    *,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    sample: Callable[[int], None] | None = None,
    export: Callable[[Path], None] | None = None,
    whole: nn.Module | None = None,
) -> TrainingSummary:
    """Train a task's module and leave all there is to know of it in a folder.

    A run that is killed and resumed computes what it would have computed without: on the CPU bit for bit, as
    long as the number of threads and the versions stay.

    Started by `torchrun` in several processes, each calls this alike. They share the rows of every batch and the
    weights, and compute what one process would, up to rounding; a run may go on with another number of them. The first
    one writes the metrics, the samples and the model.

    Args:
        task: the stage.
        config: how to train.
        run_folder: gets config.json, metrics.jsonl, tensorboard/, checkpoints/, loss.png and model/. It may
            exist, but hold no run unless `resume` is set.
        resume: go on with the run that lies in `run_folder`.
        recipe: the rest of the caller's resolved config, kept with the run; a resume with another is refused.
        sample: draws a sample sheet, given the number of steps done, as often as the config says and at the
            end; the loop restores the training mode.
        export: writes the model into an empty folder, which then becomes `run_folder/model`; called with each
            checkpoint.
        whole: a module of the task's shape, for several processes: gets the weights, which are spread over the task's
            module, before the first process samples or exports.

    Raises:
        UsageError: the folder or the config doesn't allow this run.
        CogViewError: the loss became infinite or NaN, or the disk was full at the end.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined_processes(config))
        device = processes.device
        precision = resolve_precision(config.precision, device)
        description = describe_run(config, recipe or {}, device, precision, processes.ranks.num_ranks)
        stack.enter_context(processes.first_alone(claimed_run_folder(run_folder, description, resume)))

        parallelise(task.module, config, processes)
        memory_format = torch.channels_last if task.channels_last else torch.preserve_format
        module = task.module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        optimizers = build_optimizers(module, config, precision)
        loss_of = _compiled(task.loss, device) if config.compile and processes.mesh is None else task.loss
        tell = say if processes.is_first else _keep_quiet
        means = MetricMeans()
        checkpoints = run_folder / "checkpoints"
        state = load_latest_checkpoint(checkpoints, module, optimizers, processes) if resume else None
        first_step = saved_steps = state["step"] if state else 0
        if state:
            means.load_state(state["metric_sums"] if processes.is_first else {}, device)
            tell(f"Resuming after step {first_step} of {config.num_steps}.")
        module.train()

        steps = range(first_step, config.num_steps)
        rows = processes.row_part, processes.num_row_parts
        batches = prefetched_batches(task, steps, config.num_micro_batches, device, *rows)
        stack.enter_context(closing(batches))
        log = stack.enter_context(MetricsLog(run_folder, first_step)) if processes.is_first else None
        stop = stack.enter_context(StopRequest())
        progress = stack.enter_context(Progress(first_step, config.num_steps, silent=not processes.is_first))
        pace = Pace(state["seconds"] if state else 0.0)

        for step, micro_batches in zip(steps, batches, strict=True):
            # ---------------------------------- a single step ----------------------------------
            torch.manual_seed(_step_seed(config.seed, step, processes.row_part))
            learning_rate = set_learning_rates(optimizers, step, config)
            for micro_batch in micro_batches:
                with autocast(precision, device):
                    loss, metrics = loss_of(micro_batch.tensors)
                # Gradients become the mean over the row parts, and are to be the sum.
                torch.autograd.backward(loss * (micro_batch.weight * processes.num_row_parts))
                means.add({"loss": loss, **metrics}, micro_batch.weight)
            gradient_norm = clip_gradients(module.parameters(), config.gradient_clip or math.inf)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            means.add({"gradient_norm": gradient_norm, **task.after_step(step)})
            # -------------------------------- the step is done ---------------------------------
            means.watch(loss + gradient_norm, step)
            pace.count(micro_batches[0].num_step_items, micro_batches[0].unit)
            progress.advance()
            completed_steps = step + 1
            is_last = completed_steps == config.num_steps
            is_stopping = processes.any(
                stop.requested
            )  # read once: a signal from here on is for the next step

            if is_last or completed_steps % config.log_every_steps == 0:
                means.check_finite(processes)
                line = {**means.read(processes), "learning_rate": learning_rate, **pace.read()}
                progress.show(line, pace.unit)
                for advice in task.advice(completed_steps, line):
                    tell(advice)
                with _full_disk_reported("a line of metrics.jsonl"):
                    if log is not None:
                        log.write(completed_steps, line)

            if is_last or is_stopping or completed_steps % config.checkpoint_every_steps == 0:
                means.check_finite(processes)  # a checkpoint of NaNs would push out a good one
                sums = means.state(processes)
                with pace.paused(), _full_disk_reported(f"the checkpoint of step {completed_steps}"):
                    if log is not None:
                        log.sync()
                    run_state = {"metric_sums": sums, "seconds": pace.seconds, "run": description}
                    keep = config.keep_checkpoints
                    save_checkpoint(
                        checkpoints, completed_steps, module, optimizers, run_state, keep, processes
                    )
                    _export(export, run_folder, module, whole, processes)
                    saved_steps = completed_steps
                module.train()

            if sample is not None and (is_last or _is_due(completed_steps, config.sample_every_steps)):
                with pace.paused(), _full_disk_reported(f"the samples of step {completed_steps}"):
                    _sample(sample, completed_steps, module, whole, processes)
                module.train()

            if is_stopping and not is_last:
                raise TrainingInterrupted(
                    f"Stopped after step {completed_steps} of {config.num_steps}, saved up to step {saved_steps}; "
                    "resume the run to go on."
                )

        seconds, items_per_second = pace.seconds, pace.items_per_second
        if saved_steps < config.num_steps:
            raise CogViewError(
                f"The disk is full and the run is saved only up to step {saved_steps} of {config.num_steps}; "
                "free some space and resume the run."
            )
        if not steps:  # it was done before, but perhaps not all of its results were written
            _export(export, run_folder, module, whole, processes)
        with _full_disk_reported("loss.png"):
            if processes.is_first and not plot_losses(run_folder / "metrics.jsonl", run_folder / "loss.png"):
                say("There is no loss.png: drawing it needs matplotlib (pip install matplotlib).")
    return TrainingSummary(
        num_steps=config.num_steps,
        seconds=seconds,
        items_per_second=items_per_second,
        unit=pace.unit,
        metrics=(read_metrics(run_folder / "metrics.jsonl") or [{}])[-1],
    )


def _step_seed(seed: int, step: int, row_part: int) -> int:
    """Mix the numbers into one, so that neither two steps, nor two runs, nor two parts of the rows share randomness."""
    numbers = (seed, step, row_part) if row_part else (seed, step)
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _keep_quiet(line: str) -> None:
    """Leave it to the first process to say."""


def _export(
    export: Callable[[Path], None] | None,
    run_folder: Path,
    module: nn.Module,
    whole: nn.Module | None,
    processes: Processes,
) -> None:
    if export is None:
        return
    if processes.mesh is not None:
        copy_whole(module, whole if processes.is_first else None)
    if processes.is_first:
        with atomic_folder(run_folder / "model") as folder:
            export(folder)


def _sample(
    sample: Callable[[int], None],
    completed_steps: int,
    module: nn.Module,
    whole: nn.Module | None,
    processes: Processes,
) -> None:
    if processes.mesh is not None:
        copy_whole(module, whole if processes.is_first else None)
    if processes.is_first:
        sample(completed_steps)


def _is_due(completed_steps: int, every_steps: int) -> bool:
    return every_steps > 0 and completed_steps % every_steps == 0


def _compiled(
    loss: Callable[[Batch], tuple[Float[torch.Tensor, ""], Metrics]],
    device: torch.device,
) -> Callable[[Batch], tuple[Float[torch.Tensor, ""], Metrics]]:
    """Compile the loss, or return it as it is where nothing can be compiled, and say so."""
    failure = compiler_failure(device)
    if failure is not None:
        say(f"Not compiling, so slower: torch.compile needs a C++ compiler, and here it says: {failure}")
        return loss
    say("Compiling the loss: the first step takes longer.")
    return torch.compile(loss, dynamic=False)


@contextmanager
def _full_disk_reported(what: str) -> Iterator[None]:
    """Let the run go on without what could not be written, since a later step may find room."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes files itself and knows no errno.
        number = error.errno if isinstance(error, OSError) else errno.ENOSPC * ("os error 28" in str(error))
        if number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"The disk is full, {what} could not be written; the run goes on. Please free some space.")
