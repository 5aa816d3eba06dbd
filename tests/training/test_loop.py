import errno
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_task import TinyTask, tiny_config

from cogview.errors import CogViewError, UsageError
from cogview.training import loop
from cogview.training.checkpoint import list_checkpoints
from cogview.training.interruption import TrainingInterrupted
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.task import Task

pytestmark = pytest.mark.usefixtures("no_tensorboard")


def logged(run_folder: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(run_folder / "metrics.jsonl")]


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(list_checkpoints(run_folder / "checkpoints")[-1] / "model.safetensors")


def test_the_tiny_task_is_a_task() -> None:
    assert isinstance(TinyTask(), Task)


@pytest.mark.slow
def test_a_fixed_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    config = tiny_config(num_steps=100, learning_rate=5e-2, checkpoint_every_steps=100)
    summary = train(TinyTask(dropout=0.0, fixed_batch=True), config, tmp_path)
    assert logged(tmp_path, "loss")[0] > 1.0
    assert summary.metrics["loss"] < 0.05
    assert summary.metrics["color_loss"] == pytest.approx(summary.metrics["loss"])


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    for num_parts in (1, 2, 8):
        config = tiny_config(num_micro_batches=num_parts, log_every_steps=1, num_steps=5)
        train(TinyTask(dropout=0.0), config, tmp_path / str(num_parts))
    for name in ("loss", "color_loss", "gradient_norm"):
        for num_parts in ("2", "8"):
            assert logged(tmp_path / num_parts, name) == pytest.approx(logged(tmp_path / "1", name), rel=1e-4)
    for name, weight in weights(tmp_path / "1").items():
        # Not the moving average, which the task takes of the last part alone.
        if name != "mean_state":
            torch.testing.assert_close(weights(tmp_path / "8")[name], weight, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_bfloat16_learns_like_float32_and_keeps_float32_weights(tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        train(TinyTask(dropout=0.0), tiny_config(precision=precision), tmp_path / precision)
    precise, rough = logged(tmp_path / "float32", "loss"), logged(tmp_path / "bfloat16", "loss")
    assert rough == pytest.approx(precise, rel=0.03)
    assert rough != precise
    folder = list_checkpoints(tmp_path / "bfloat16" / "checkpoints")[-1]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert {tensor.dtype for tensor in load_file(folder / name).values()} == {torch.float32}


@pytest.mark.parametrize(("has_bfloat16", "taken"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.slow
def test_auto_precision_is_what_the_device_has_and_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, taken: str
) -> None:
    monkeypatch.setattr("cogview.training.precision.computes_bfloat16", lambda device: has_bfloat16)
    for precision in ("auto", taken):
        config = tiny_config(precision=precision, optimizer="muon")
        train(TinyTask(dropout=0.0), config, tmp_path / precision)
    assert logged(tmp_path / "auto", "loss") == logged(tmp_path / taken, "loss")
    assert json.loads((tmp_path / "auto" / "config.json").read_text())["precision"] == taken
    assert json.loads((tmp_path / "auto" / "config.json").read_text())["training"]["precision"] == "auto"


@pytest.mark.slow
def test_an_auto_run_goes_on_where_another_precision_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(precision="auto")
    monkeypatch.setattr("cogview.training.precision.computes_bfloat16", lambda device: True)
    train(TinyTask(), config, tmp_path)
    monkeypatch.setattr("cogview.training.precision.computes_bfloat16", lambda device: False)
    train(TinyTask(), config, tmp_path, resume=True)
    assert "was started with precision bfloat16, now it is float32" in capsys.readouterr().err


@pytest.mark.slow
def test_seed_and_step_are_the_only_randomness(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        torch.manual_seed(hash(name))
        task = TinyTask(dropout=0.5)
        torch.rand(len(name))
        train(task, tiny_config(seed=seed, num_steps=4, log_every_steps=1), tmp_path / name)
    assert logged(tmp_path / "one", "loss") == logged(tmp_path / "same", "loss")
    # Batches don't depend on the seed here, dropout does.
    assert logged(tmp_path / "one", "loss") != logged(tmp_path / "other", "loss")


@pytest.mark.slow
def test_gradients_are_clipped_to_the_limit(tmp_path: Path) -> None:
    norms = []
    real_step = torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return real_step(optimizer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(TinyTask(), tiny_config(gradient_clip=0.01, num_steps=3), tmp_path / "clipped")
        train(TinyTask(), tiny_config(gradient_clip=0.0, num_steps=3), tmp_path / "free")
    assert norms[:3] == pytest.approx([0.01] * 3, rel=1e-3)
    assert min(norms[3:]) > 0.01


@pytest.mark.slow
def test_each_batch_is_made_once_and_while_the_step_before_is_done(tmp_path: Path) -> None:
    made: list[int] = []
    next_is_made = [threading.Event() for _ in range(5)]

    class Watching(TinyTask):
        def batch(self, step: int) -> dict[str, torch.Tensor]:
            made.append(step)
            next_is_made[step].set()
            return dict(super().batch(step))

        def after_step(self, step: int) -> dict[str, torch.Tensor]:
            assert step == 4 or next_is_made[step + 1].wait(timeout=60)
            return {}

    train(Watching(), tiny_config(num_steps=5), tmp_path)
    assert made == [0, 1, 2, 3, 4]


def test_an_error_while_making_a_batch_ends_the_run_with_it(tmp_path: Path) -> None:
    class Failing(TinyTask):
        def batch(self, step: int) -> dict[str, torch.Tensor]:
            if step == 3:
                raise CogViewError("shard 7 cannot be read")
            return dict(super().batch(step))

    with pytest.raises(CogViewError, match="shard 7 cannot be read"):
        train(Failing(), tiny_config(), tmp_path)


@pytest.mark.slow
def test_only_the_latest_checkpoints_stay(tmp_path: Path) -> None:
    train(TinyTask(), tiny_config(keep_checkpoints=3), tmp_path)
    names = [path.name for path in list_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-00000021", "step-00000028", "step-00000030"]


@pytest.mark.slow
def test_samples_and_models_come_when_they_are_due(tmp_path: Path) -> None:
    task, sampled, exported = TinyTask(), [], []

    def sample(completed_steps: int) -> None:
        task.module.eval()
        sampled.append(completed_steps)

    def export(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        exported.append(folder)
        (folder / "number").write_text(str(len(exported)))

    modes = []
    task.module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    train(task, tiny_config(sample_every_steps=8), tmp_path, sample=sample, export=export)
    assert sampled == [8, 16, 24, 30]
    assert all(modes)
    assert (tmp_path / "model" / "number").read_text() == "5"  # 7, 14, 21, 28, 30
    assert not any(path.exists() for path in exported)


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    class Exploding(TinyTask):
        def loss(self, batch: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, metrics = super().loss(batch)
            return loss * batch["factor"].mean(), metrics

        def batch(self, step: int) -> dict[str, torch.Tensor]:
            factor = torch.full((self.batch_size,), math.nan if step == 12 else 1.0)
            return {**super().batch(step), "factor": factor}

    with pytest.raises(CogViewError, match=r"NaN in step 13; .*learning_rate"):
        train(Exploding(), tiny_config(log_every_steps=100), tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000007"]
    assert all(bool(weight.isfinite().all()) for weight in weights(tmp_path).values())


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_in_safetensors(folder: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_save, real_calls = loop.save_checkpoint, []

    def sometimes_full(folder: Path, step: int, *arguments: object) -> Path:
        if step in (7, 14):
            full_disk()
        real_calls.append(step)
        return real_save(folder, step, *arguments)

    monkeypatch.setattr(loop, "save_checkpoint", sometimes_full)
    train(
        TinyTask(),
        tiny_config(sample_every_steps=15),
        tmp_path,
        sample=lambda step: full_disk() if step < 30 else None,
    )
    assert real_calls == [21, 28, 30]
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == [
        "step-00000028",
        "step-00000030",
    ]
    message = capsys.readouterr().err
    for what in ("the checkpoint of step 7", "the checkpoint of step 14", "the samples of step 15"):
        assert f"The disk is full, {what} could not be written; the run goes on" in message


@pytest.mark.parametrize("fail", [full_disk, full_disk_in_safetensors])
@pytest.mark.slow
def test_a_run_whose_end_is_not_saved_does_not_pass_for_done(tmp_path: Path, fail: object) -> None:
    with pytest.raises(CogViewError, match="step 0 of 30"):
        train(TinyTask(), tiny_config(), tmp_path, export=fail)
    assert not (tmp_path / "model").exists()
    train(TinyTask(), tiny_config(), tmp_path, resume=True, export=lambda folder: (folder / "a").touch())
    assert (tmp_path / "model" / "a").exists()


def test_other_errors_of_the_disk_end_the_run(tmp_path: Path) -> None:
    def forbidden(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        train(TinyTask(), tiny_config(), tmp_path, export=forbidden)


@pytest.mark.slow
def test_the_summary_agrees_with_the_metrics(tmp_path: Path) -> None:
    summary = train(TinyTask(), tiny_config(), tmp_path)
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert summary.metrics == last
    assert (summary.num_steps, summary.unit, last["step"]) == (30, "images", 30)
    assert round(summary.seconds, 3) >= last["seconds"] > 0
    num_items = sum(TinyTask().num_items(TinyTask().batch(step))[0] for step in range(30))
    assert summary.items_per_second == pytest.approx(num_items / summary.seconds, rel=0.1)
    assert logged(tmp_path, "step") == [4, 8, 12, 16, 20, 24, 28, 30]
    assert logged(tmp_path, "learning_rate")[-1] == pytest.approx(1e-3)


@pytest.mark.slow
def test_without_a_terminal_each_log_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(TinyTask(), tiny_config(), tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("step 4/30: loss ")
    assert " images/s, " in lines[0]
    assert lines[0].endswith(" left")


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_loss_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(TinyTask(), tiny_config(), tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.replace("\n", "").split("\r")[-1]
    assert "30/30" in last
    assert "loss " in last
    assert " images/s" in last
    assert "step 4/30" not in captured.err


@pytest.mark.slow
def test_without_a_compiler_the_run_is_eager_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("No working C++ compiler found in ['g++']\nand a long tale")

    train(TinyTask(), tiny_config(), tmp_path / "eager")
    capsys.readouterr()
    monkeypatch.setattr(torch, "compile", broken)
    train(TinyTask(), tiny_config(compile=True), tmp_path / "compiled")
    message = capsys.readouterr().err
    assert message.count("torch.compile needs a C++ compiler, and here it says: No working C++ compiler") == 1
    assert "long tale" not in message
    assert logged(tmp_path / "eager", "loss") == logged(tmp_path / "compiled", "loss")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.slow
def test_compiled_steps_compute_the_same_and_are_compiled_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TinyTask(dropout=0.0)

    def sample(completed_steps: int) -> None:
        task.module.eval()

    train(TinyTask(dropout=0.0), tiny_config(), tmp_path / "eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        train(task, tiny_config(compile=True, sample_every_steps=5), tmp_path / "compiled", sample=sample)
    if "needs a C++ compiler" in capsys.readouterr().err:
        pytest.skip("nothing can be compiled here")
    assert logged(tmp_path / "compiled", "loss") == pytest.approx(
        logged(tmp_path / "eager", "loss"), rel=1e-3
    )


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="sees no CUDA device"):
        train(TinyTask(), tiny_config(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_learns_in_bfloat16_and_resumes(tmp_path: Path, channels_last: bool) -> None:
    task = TinyTask(dropout=0.0, fixed_batch=True)
    task.channels_last = channels_last
    config = tiny_config(num_steps=200, learning_rate=3e-2, device="cuda", precision="bfloat16")
    summary = train(task, config, tmp_path / "whole")
    assert summary.metrics["loss"] < 0.1
    assert next(task.module.parameters()).is_cuda

    class Stopped(TinyTask):
        def after_step(self, step: int) -> dict[str, torch.Tensor]:
            if step == 99:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().after_step(step)

    stopped, resumed = (kind(dropout=0.0, fixed_batch=True) for kind in (Stopped, TinyTask))
    stopped.channels_last = resumed.channels_last = channels_last
    with pytest.raises(TrainingInterrupted, match="saved up to step 100"):
        train(stopped, config, tmp_path / "cut")
    again = train(resumed, config, tmp_path / "cut", resume=True)
    assert again.metrics["loss"] == pytest.approx(summary.metrics["loss"], rel=0.2)
