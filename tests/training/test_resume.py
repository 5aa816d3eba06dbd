"""A run that was killed and resumed ends bit for bit where an uninterrupted one does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import killed_run
import pytest
import torch
from tiny_task import TinyTask, tiny_config

from cogview.errors import UsageError
from cogview.training.config import LossScaleConfig, TrainingConfig
from cogview.training.interruption import TrainingInterrupted
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.optimizer import learning_rate_at

pytestmark = pytest.mark.slow

TIME_FIELDS = {"seconds", "items_per_second", "tokens_per_second"}


class Crash(Exception):
    """Stands for whatever ends a process without asking it."""


def results(run_folder: Path, num_steps: int = 30) -> tuple[bytes, bytes, list[dict[str, float]]]:
    """Return what must be equal: weights, optimizer state, metrics without times."""
    last = run_folder / "checkpoints" / f"step-{num_steps:08d}"
    lines = [
        {name: value for name, value in line.items() if name not in TIME_FIELDS}
        for line in read_metrics(run_folder / "metrics.jsonl")
    ]
    return (last / "model.safetensors").read_bytes(), (last / "optimizer.safetensors").read_bytes(), lines


def crash_at(crashing_step: int) -> object:
    def sample(completed_steps: int) -> None:
        if completed_steps == crashing_step:
            raise Crash

    return sample


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_run_that_is_killed_a_dozen_times_ends_bit_for_bit(tmp_path: Path) -> None:
    train(killed_run.HardTask(), killed_run.config(), tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, killed_run.__file__, str(tmp_path / "killed"), "12"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    num_deaths, said = int(done.stdout), done.stderr
    assert num_deaths == 12
    assert "damaged" not in said
    assert said.count("Resuming after step") > 6  # and from many places
    assert len(set(re.findall(r"Resuming after step (\d+)", said))) > 4
    assert re.search(r"step 40 \(rollback 1 of 2\).* 2 batches", said)
    assert not list((tmp_path / "killed" / "checkpoints").glob("*.broken"))
    last = killed_run.NUM_STEPS
    assert results(tmp_path / "killed", last) == results(tmp_path / "whole", last)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize(
    ("precision", "channels_last", "optimizer"),
    [
        ("float32", False, "adamw"),
        ("bfloat16", False, "adamw"),
        ("float32", True, "adamw"),
        ("float32", False, "muon"),
        ("bfloat16", False, "muon"),
        ("float16_o2", False, "adamw"),
        ("float16_o2", True, "muon"),
        ("bfloat16_o2", False, "adamw"),
    ],
)
def test_each_way_to_compute_resumes_bit_for_bit(
    tmp_path: Path, precision: str, channels_last: bool, optimizer: str
) -> None:
    # The scale starts so high that steps overflow, and moves after few: its counters must come back too.
    scale = LossScaleConfig(initial=2.0**24, window=5)
    config = tiny_config(precision=precision, optimizer=optimizer, sample_every_steps=1, loss_scale=scale)

    def task() -> TinyTask:
        new = TinyTask()
        new.channels_last = channels_last
        return new

    train(task(), config, tmp_path / "whole")
    # Twice: in the middle of an interval of the log, and before the first checkpoint after the resume.
    for step in (17, 19):
        with pytest.raises(Crash):
            train(task(), config, tmp_path / "cut", resume=step == 19, sample=crash_at(step))
    train(task(), config, tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    if precision == "float16_o2":
        lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
        assert len({line["loss_scale"] for line in lines}) > 3
        assert lines[-1]["overflows"] > 3


@pytest.mark.usefixtures("no_tensorboard")
def test_a_crash_before_the_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    config = tiny_config(sample_every_steps=1)
    train(TinyTask(), config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(TinyTask(), config, tmp_path / "cut", sample=crash_at(5))
    train(TinyTask(), config, tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.usefixtures("no_tensorboard")
def test_what_a_kill_left_half_written_goes_at_the_resume(tmp_path: Path) -> None:
    train(TinyTask(), tiny_config(), tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / ".metrics.jsonl.abcd_123").touch()
    mine = {".metrics.jsonl.bak", ".model.before", "notes.txt"}
    for name in mine:
        (tmp_path / name).touch()
    train(TinyTask(), tiny_config(), tmp_path, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == before | mine


@pytest.mark.usefixtures("no_tensorboard")
def test_a_finished_run_goes_on_when_it_is_given_more_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = tiny_config(num_steps=12), tiny_config(sample_every_steps=1)
    train(TinyTask(), short, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    train(TinyTask(), short, tmp_path / "whole", resume=True)
    assert "--training.num-steps" in capsys.readouterr().err
    train(TinyTask(), long, tmp_path / "whole", resume=True)
    old, new = learning_rate_at(11, short), learning_rate_at(12, long)
    said = capsys.readouterr().err
    assert re.search(rf"schedule .* 12 steps.* 30: .*{re.escape(f'{old:.3g} to {new:.3g}')}", said)
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [line["learning_rate"] for line in lines[3:]] == [
        learning_rate_at(line["step"] - 1, long) for line in lines[3:]
    ]
    # Killed on the way it ends there too, and from then on it is a run of 30 steps.
    with pytest.raises(Crash):
        train(TinyTask(), long, tmp_path / "cut", resume=True, sample=crash_at(23))
    with pytest.raises(UsageError, match="num_steps was 30, now 12"):
        train(TinyTask(), short, tmp_path / "cut", resume=True)
    train(TinyTask(), long, tmp_path / "cut", resume=True)
    assert "The schedule was made" not in capsys.readouterr().err.rpartition("Resuming after step 21")[2]
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert json.loads((tmp_path / "cut" / "config.json").read_bytes())["training"]["num_steps"] == 30


@pytest.mark.usefixtures("no_tensorboard")
def test_a_broken_checkpoint_costs_steps_but_no_bit(tmp_path: Path) -> None:
    config = tiny_config(sample_every_steps=1)
    train(TinyTask(), config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(TinyTask(), config, tmp_path / "cut", sample=crash_at(17))
    (tmp_path / "cut" / "checkpoints" / "step-00000014" / "model.safetensors").write_bytes(b"")
    train(TinyTask(), config, tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_told_to_stop_finishes_its_step_and_saves(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    class Stopped(TinyTask):
        def after_step(self, step: int) -> dict[str, torch.Tensor]:
            if step == 9:
                os.kill(os.getpid(), number)
            return super().after_step(step)

    train(TinyTask(), tiny_config(), tmp_path / "whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match=r"step 10 of 30, .* step 10") as caught:
        train(Stopped(), tiny_config(), tmp_path / "cut")
    assert caught.value.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert "Stopping after this step" in capfd.readouterr().err
    train(TinyTask(), tiny_config(), tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.usefixtures("no_tensorboard")
def test_a_run_told_to_stop_while_it_draws_samples_saves_the_next_step(tmp_path: Path) -> None:
    def sample(completed_steps: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=r"step 10 of 30, .* step 10"):
        train(TinyTask(), tiny_config(sample_every_steps=9), tmp_path, sample=sample)


@pytest.mark.usefixtures("no_tensorboard")
def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    class Stopped(TinyTask):
        def after_step(self, step: int) -> dict[str, torch.Tensor]:
            if step == 9:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().after_step(step)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(Stopped(), tiny_config(), tmp_path)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000007"]


@pytest.mark.usefixtures("no_tensorboard")
def test_resuming_a_finished_run_only_completes_its_results(tmp_path: Path) -> None:
    def export(folder: Path) -> None:
        (folder / "weights").write_text("final")

    first = train(TinyTask(), tiny_config(), tmp_path)
    before = results(tmp_path)
    second = train(TinyTask(), tiny_config(), tmp_path, resume=True, export=export)
    assert results(tmp_path) == before
    assert (tmp_path / "model" / "weights").read_text() == "final"
    assert second.metrics == first.metrics
    assert second.items_per_second == 0


@pytest.mark.usefixtures("no_tensorboard")
def test_how_a_run_is_carried_out_may_change_at_a_resume(tmp_path: Path) -> None:
    config = tiny_config(sample_every_steps=1)
    train(TinyTask(), config, tmp_path / "whole")
    with pytest.raises(Crash):
        train(TinyTask(), config, tmp_path / "cut", sample=crash_at(17))
    changed: TrainingConfig = tiny_config(checkpoint_every_steps=5, keep_checkpoints=1, device="auto")
    if torch.cuda.is_available():
        pytest.skip("auto is another device here")
    train(TinyTask(), changed, tmp_path / "cut", resume=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
