"""Training loop of both stages, to be read from top to bottom."""

import errno
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from cogview.errors import CogViewError
from cogview.folders import atomic_folder
from cogview.training.batches import MicroBatch, prefetched_batches
from cogview.training.checkpoint import load_latest_checkpoint, save_checkpoint
from cogview.training.config import TrainingConfig
from cogview.training.divergence import Detours, LossWatch
from cogview.training.flops import peak_flops
from cogview.training.interruption import StopRequest, TrainingInterrupted
from cogview.training.metrics import MetricMeans, MetricsLog, read_metrics, read_scalars
from cogview.training.optimizer import describe_new_schedule
from cogview.training.parallel import copy_whole, forget_gathered
from cogview.training.plot import plot_losses
from cogview.training.precision import autocast
from cogview.training.processes import Processes
from cogview.training.progress import Pace, Progress, say
from cogview.training.run_folder import carry_over, claimed_run_folder, describe_run
from cogview.training.steps import Steps, joined
from cogview.training.task import Mean, Task


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Summary of a run.

    Args:
        num_steps: steps of the whole run.
        seconds: spent in training steps, over all resumes.
        items_per_second: mean rate since the last start; 0 if no step was left.
        unit: plural name of the items.
        metrics: last line of the metrics.
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
    """Train a task's module, and write everything about the run to a folder.

    A run that is killed and resumed computes what it would have computed without interruption: on the CPU bit for bit,
    with the same versions and number of threads.

    With `torchrun`, all processes call this alike. They share the rows of every batch and the weights, and compute what
    one process would, up to rounding; a run may resume with another number of them. The first one writes metrics,
    samples and model.

    Args:
        task: the stage.
        config: of the training.
        run_folder: gets config.json, metrics.jsonl, tensorboard/, checkpoints/, loss.png and model/. It may exist, but
            hold no run unless `resume` is set.
        resume: continue the run in `run_folder`; a larger `num_steps` changes the schedule from there on.
        recipe: the rest of the caller's resolved config, kept with the run; a resume with another is refused.
        sample: draws a sample sheet, given the number of completed steps; the loop restores training mode.
        export: writes the model into an empty folder, which becomes `run_folder/model`, with each checkpoint. Other
            files there, such as an adapter, stay.
        whole: with several processes, a module of the task's shape that gets the full weights before samples and
            export.

    Raises:
        UsageError: the folder or the config doesn't allow this run.
        CogViewError: the loss diverged with no rollback left, every step overflowed and was skipped, or the disk was
            full at the end.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    with ExitStack() as stack:
        processes, precision = stack.enter_context(joined(task, config))  # before the folder is claimed
        device = processes.device
        description = describe_run(config, recipe or {}, device, precision, processes.ranks.num_ranks)
        stack.enter_context(processes.first_alone(claimed_run_folder(run_folder, description, resume)))

        steps = Steps(task, config, precision, processes)
        module, stepper = steps.module, steps.stepper
        stack.callback(stepper.close)
        tell = say if processes.is_first else _keep_quiet
        means = MetricMeans()
        watch = LossWatch(config.spike_threshold if config.max_rollbacks else None)
        detours = Detours(config.max_rollbacks)
        checkpoints = run_folder / "checkpoints"

        def load() -> dict[str, Any] | None:
            """Load the latest checkpoint and return its state, if there is one."""
            with stepper.float32_weights():
                state = load_latest_checkpoint(checkpoints, module, stepper.optimizers, processes)
            if state is not None:
                stepper.load_state(state["stepper"])
                # Earlier versions stored other sums under another name: those steps are dropped from the means.
                means.load_state(state.get("means", {}), device, processes)
                watch.load_state(state["usual_losses"])
            return state

        def save(step: int) -> None:
            """Write the checkpoint of a step."""
            run_state = {
                "stepper": stepper.state(),
                "means": means.state(processes),
                "usual_losses": watch.state(),
                "detours": detours.state(),
                "seconds": pace.seconds,
                "run": description,
            }
            with stepper.float32_weights():
                keep = config.keep_checkpoints
                save_checkpoint(checkpoints, step, module, stepper.optimizers, run_state, keep, processes)

        def batches_from(step: int) -> Generator[list[MicroBatch], None, None]:
            numbers = range(step + detours.skipped_batches, config.num_steps + detours.skipped_batches)
            rows = processes.row_part, processes.num_row_parts
            return prefetched_batches(task, numbers, config.num_micro_batches, device, *rows)

        state = load() if resume else None
        first_step = step = saved_steps = state["step"] if state else 0
        if state:
            detours.load_state(state["detours"])
            tell(f"Resuming after step {first_step} of {config.num_steps}.")
            num_steps_before = state["run"]["training"]["num_steps"]
            if num_steps_before != config.num_steps:
                tell(describe_new_schedule(stepper.applied_steps, num_steps_before, config))
            elif first_step == config.num_steps:
                tell("The run is done already; resume it with more --training.num-steps to train it longer.")
        module.train()

        batches = batches_from(step)
        stack.callback(lambda: batches.close())  # the latest ones
        log = stack.enter_context(MetricsLog(run_folder, step, silent=not processes.is_first))
        stop = stack.enter_context(StopRequest())
        progress = stack.enter_context(Progress(step, config.num_steps, silent=not processes.is_first))
        peak = peak_flops(config.peak_tflops, device, precision)
        pace = Pace(state["seconds"] if state else 0.0, peak and peak * processes.ranks.num_ranks)
        if state is None and config.max_rollbacks:
            save(0)  # for the first rollback

        while step < config.num_steps:
            micro_batches = next(batches)
            # ---------------------------------- a single step ----------------------------------
            taken = steps.take(step + detours.skipped_batches, micro_batches)
            if taken.gradient_norm is not None:  # else the gradient overflowed and the step was skipped
                for part, (loss, metrics) in zip(micro_batches, taken.losses, strict=True):
                    means.add({"loss": Mean(loss * part.num_own_items, part.num_own_items), **metrics})
                means.add_common({"gradient_norm": taken.gradient_norm, **task.after_step(step)}, processes)
                shares = zip(micro_batches, taken.losses, strict=True)
                loss_of_step = torch.stack([loss * part.weight for part, (loss, _) in shares]).sum()
                watch.add(step, loss_of_step, taken.gradient_norm)
            # -------------------------------- the step is done ---------------------------------
            for part in micro_batches:
                pace.count(part.num_items, part.unit, part.work)
            progress.advance()
            completed_steps = step + 1
            is_last = completed_steps == config.num_steps
            # Read once: later signals are for the next step.
            is_stopping = processes.any(stop.requested)
            is_logged = is_last or completed_steps % config.log_every_steps == 0
            is_saved = is_last or is_stopping or completed_steps % config.checkpoint_every_steps == 0

            # Checked before saving: a checkpoint of a diverged run would replace a good one.
            trouble = watch.read(processes) if is_logged or is_saved else None
            if trouble is not None:
                detours.check(trouble)
                state = load()
                assert state is not None, "there is one from before the first step"
                step = saved_steps = state["step"]
                tell(detours.add(trouble, step))
                batches.close()
                batches = batches_from(step)
                log.rewind(step)
                progress.rewind(step)
                continue

            if is_logged:
                with autocast(precision, device):
                    inside = task.telemetry(micro_batches[0].tensors)
                forget_gathered(module)
                line = {
                    "loss": math.nan,  # if all steps since the last line were skipped
                    **means.read(processes),
                    "learning_rate": taken.learning_rate,
                    **stepper.read(),
                    **detours.state(),
                    **processes.largest(read_scalars(inside)),
                    **pace.read(),
                }
                progress.show(line, pace.unit)
                for advice in task.advice(completed_steps, line):
                    tell(advice)
                with _full_disk_reported("a line of metrics.jsonl", tell):
                    processes.first_does(partial(log.write, completed_steps, line))

            if is_saved:
                if export is not None and (is_last or is_stopping):
                    tell("Writing the checkpoint and the model.")
                with pace.paused(), _full_disk_reported(f"the checkpoint of step {completed_steps}", tell):
                    processes.first_does(log.sync)
                    save(completed_steps)
                    with stepper.float32_weights():
                        _export(export, run_folder, module, whole, processes)
                    saved_steps = completed_steps
                module.train()

            if sample is not None and (is_last or _is_due(completed_steps, config.sample_every_steps)):
                problem = _full_disk_reported(f"the samples of step {completed_steps}", tell)
                with pace.paused(), problem, stepper.float32_weights():
                    draw = partial(_on_device, partial(sample, completed_steps), whole, device)
                    _with_whole(draw, module, whole, processes)
                module.train()

            if is_stopping and not is_last:
                raise TrainingInterrupted(
                    f"Stopped after step {completed_steps} of {config.num_steps}, saved up to step {saved_steps}; "
                    "resume the run to go on."
                )
            step = completed_steps

        seconds, items_per_second = pace.seconds, pace.items_per_second
        if saved_steps < config.num_steps:
            raise CogViewError(
                f"The disk is full and the run is saved only up to step {saved_steps} of {config.num_steps}; "
                "free some space and resume the run."
            )
        if not stepper.applied_steps:
            raise CogViewError(
                f"All {config.num_steps} steps overflowed and were skipped, so nothing was learnt: train longer, start "
                "with a smaller --training.loss-scale.initial, or take the precision bfloat16."
            )
        if first_step == config.num_steps:  # complete before, but perhaps not all results were written
            with stepper.float32_weights():
                _export(export, run_folder, module, whole, processes)
        with _full_disk_reported("loss.png", tell):
            if processes.is_first and not plot_losses(run_folder / "metrics.jsonl", run_folder / "loss.png"):
                say("There is no loss.png: drawing it needs matplotlib (pip install matplotlib).")
        if whole is not None and processes.is_first:
            whole.to(device)  # for a faster evaluation
    return TrainingSummary(
        num_steps=config.num_steps,
        seconds=seconds,
        items_per_second=items_per_second,
        unit=pace.unit,
        metrics=(read_metrics(run_folder / "metrics.jsonl") or [{}])[-1],
    )


def _keep_quiet(line: str) -> None:
    """Print nothing: the first process does."""


def _export(
    export: Callable[[Path], None] | None,
    run_folder: Path,
    module: nn.Module,
    whole: nn.Module | None,
    processes: Processes,
) -> None:
    if export is None:
        return

    def write() -> None:
        with atomic_folder(run_folder / "model", refuse=lambda _: None) as folder:
            export(folder)
            carry_over(run_folder / "model", folder)

    _with_whole(write, module, whole, processes)


def _with_whole(
    action: Callable[[], None], module: nn.Module, whole: nn.Module | None, processes: Processes
) -> None:
    """Run an action in the first process, with the full weights of a module that may be sharded."""
    if processes.mesh is not None:
        copy_whole(module, whole if processes.is_first else None)
    processes.first_does(action)


def _on_device(action: Callable[[], None], whole: nn.Module | None, device: torch.device) -> None:
    """Run an action with the whole module, if any, on a device; it is moved away afterwards to save memory."""
    if whole is None:
        action()
        return
    whole.to(device)
    try:
        action()
    finally:
        whole.to("cpu")


def _is_due(completed_steps: int, every_steps: int) -> bool:
    return every_steps > 0 and completed_steps % every_steps == 0


@contextmanager
def _full_disk_reported(what: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Report a full disk and go on, since a later step may find room."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes files itself, and its errors have no errno.
        number = error.errno if isinstance(error, OSError) else errno.ENOSPC * ("os error 28" in str(error))
        if number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        tell(f"The disk is full, {what} could not be written; the run goes on. Please free some space.")
