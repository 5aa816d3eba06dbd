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
from torch.nn.utils import clip_grad_norm_

from cogview.errors import CogViewError
from cogview.files import atomic_folder
from cogview.training.batches import prefetched_batches
from cogview.training.checkpoint import load_latest_checkpoint, save_checkpoint
from cogview.training.config import TrainingConfig
from cogview.training.interruption import StopRequest, TrainingInterrupted
from cogview.training.metrics import MetricMeans, MetricsLog, read_metrics
from cogview.training.optimizer import build_optimizers, set_learning_rates
from cogview.training.plot import plot_losses
from cogview.training.precision import autocast, compiler_failure, resolve_device, resolve_precision
from cogview.training.progress import Pace, Progress, say
from cogview.training.run_folder import claimed_run_folder, describe_run
from cogview.training.task import Batch, Metrics, Task


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a run came to.

    Args:
        num_steps: steps of the whole run.
        seconds: spent in training steps, over all resumes.
        items_per_second: the mean rate of this process; 0 if it had no step left to do.
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
) -> TrainingSummary:
    """Train a task's module and leave all there is to know of it in a folder.

    A run that is killed and resumed computes what it would have computed without: on the CPU bit for bit, as
    long as the number of threads and the versions stay.

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

    Raises:
        UsageError: the folder or the config doesn't allow this run.
        CogViewError: the loss became infinite or NaN, or the disk was full at the end.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    with ExitStack() as stack:
        device = resolve_device(config.device)
        precision = resolve_precision(config.precision, device)
        description = describe_run(config, recipe or {}, device, precision)
        stack.enter_context(claimed_run_folder(run_folder, description, resume))

        memory_format = torch.channels_last if task.channels_last else torch.preserve_format
        module = task.module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        optimizers = build_optimizers(module, config, precision)
        loss_of = _compiled(task.loss, device) if config.compile else task.loss
        means = MetricMeans()
        checkpoints = run_folder / "checkpoints"
        state = load_latest_checkpoint(checkpoints, module, optimizers) if resume else None
        first_step = saved_steps = state["step"] if state else 0
        if state:
            means.load_state(state["metric_sums"], device)
            say(f"Resuming after step {first_step} of {config.num_steps}.")
        module.train()

        steps = range(first_step, config.num_steps)
        batches = prefetched_batches(task, steps, config.num_micro_batches, device)
        stack.enter_context(closing(batches))
        log = stack.enter_context(MetricsLog(run_folder, first_step))
        stop = stack.enter_context(StopRequest())
        progress = stack.enter_context(Progress(first_step, config.num_steps))
        pace = Pace(state["seconds"] if state else 0.0)

        for step, micro_batches in zip(steps, batches, strict=True):
            # ---------------------------------- a single step ----------------------------------
            torch.manual_seed(_step_seed(config.seed, step))
            learning_rate = set_learning_rates(optimizers, step, config)
            for micro_batch in micro_batches:
                with autocast(precision, device):
                    loss, metrics = loss_of(micro_batch.tensors)
                torch.autograd.backward(loss * micro_batch.weight)
                means.add({"loss": loss, **metrics}, micro_batch.weight)
            gradient_norm = clip_grad_norm_(module.parameters(), config.gradient_clip or math.inf)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            means.add({"gradient_norm": gradient_norm, **task.after_step(step)})
            # -------------------------------- the step is done ---------------------------------
            means.watch(loss + gradient_norm, step)
            pace.count(sum(part.num_items for part in micro_batches), micro_batches[0].unit)
            progress.advance()
            completed_steps = step + 1
            is_last = completed_steps == config.num_steps
            is_stopping = stop.requested  # read once: a signal from here on is for the next step

            if is_last or completed_steps % config.log_every_steps == 0:
                means.check_finite()
                line = {**means.read(), "learning_rate": learning_rate, **pace.read()}
                progress.show(line, pace.unit)
                for advice in task.advice(completed_steps, line):
                    say(advice)
                with _full_disk_reported("a line of metrics.jsonl"):
                    log.write(completed_steps, line)

            if is_last or is_stopping or completed_steps % config.checkpoint_every_steps == 0:
                means.check_finite()  # a checkpoint of NaNs would push out a good one
                with pace.paused(), _full_disk_reported(f"the checkpoint of step {completed_steps}"):
                    log.sync()
                    run_state = {"metric_sums": means.state(), "seconds": pace.seconds, "run": description}
                    keep = config.keep_checkpoints
                    save_checkpoint(checkpoints, completed_steps, module, optimizers, run_state, keep)
                    _export(export, run_folder)
                    saved_steps = completed_steps
                module.train()

            if sample is not None and (is_last or _is_due(completed_steps, config.sample_every_steps)):
                with pace.paused(), _full_disk_reported(f"the samples of step {completed_steps}"):
                    sample(completed_steps)
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
            _export(export, run_folder)
        with _full_disk_reported("loss.png"):
            if not plot_losses(run_folder / "metrics.jsonl", run_folder / "loss.png"):
                say("There is no loss.png: drawing it needs matplotlib (pip install matplotlib).")
    return TrainingSummary(
        num_steps=config.num_steps,
        seconds=seconds,
        items_per_second=items_per_second,
        unit=pace.unit,
        metrics=(read_metrics(run_folder / "metrics.jsonl") or [{}])[-1],
    )


def _step_seed(seed: int, step: int) -> int:
    """Mix seed and step into one number, so that neither two steps nor two runs share their randomness."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def _export(export: Callable[[Path], None] | None, run_folder: Path) -> None:
    if export is not None:
        with atomic_folder(run_folder / "model") as folder:
            export(folder)


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
