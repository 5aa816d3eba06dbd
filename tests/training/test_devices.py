"""Four processes, two, and one: the same losses, and each goes on with what the others began.

All that needs several processes runs in one start of them, `devices_program.py`; the tests look at what it left.
"""

import json
import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import devices_program
import pytest
import torch
from devices_program import BATCH_SIZE, HALVES, SPANS, Crash, DeviceTask, config_of, crash_at, transformer
from safetensors.torch import load_file
from tiny_task import TinyTask

from cogview.errors import CogViewError, UsageError
from cogview.image.picture_reading import UnusableImage
from cogview.training.checkpoint import list_checkpoints, load_latest_checkpoint
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.optimizer import build_optimizers
from cogview.training.processes import Processes, check_shares, joined_processes

pytestmark = pytest.mark.slow

CLOSE = {"rel": 1e-5, "abs": 1e-5}
FIGURES = (
    *("loss", "text_loss_nats", "image_loss_nats", "gradient_norm"),
    *("main_branch_max/01", "attention_score_max/01"),
)


def logged(run_folder: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_metrics(run_folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs, those of one process and those of several."""
    folder = tmp_path_factory.mktemp("devices")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("torch.utils.tensorboard", "matplotlib.figure"):
            patch.setitem(sys.modules, module, None)
        with pytest.raises(Crash):
            train(DeviceTask(crash_at(7)), config_of(optimizer="muon"), folder / "alone")
        program = [sys.executable, devices_program.__file__, str(folder)]
        ended = subprocess.run(program, check=False, timeout=240)
        assert ended.returncode == 0, [path.read_text() for path in sorted(folder.glob("rank-*.log"))]
        for optimizer in ("adamw", "muon"):
            train(DeviceTask(), config_of(optimizer=optimizer), folder / optimizer)
        train(DeviceTask(), config_of(num_steps=4), folder / "short")
        train(DeviceTask(), config_of(**SPANS), folder / "spans alone")
        train(DeviceTask(), config_of(**HALVES), folder / "halves alone")
    return folder


def ends(runs: Path, name: str) -> list[str]:
    """Return how a run ended, by rank."""
    results = [json.loads((runs / f"rank-{rank}.json").read_text()) for rank in range(4)]
    return [result[name] for result in results if name in result]


def test_four_processes_lose_what_one_does_and_two_go_on_along_the_curve(runs: Path) -> None:
    # Steps 1 to 6 are of four processes that share the weights, 7 and 8 of two that share the heads.
    assert ends(runs, "sharded") == ["Crash: "] * 4
    assert ends(runs, "pair sharded") == ["done"] * 2
    for name in FIGURES:
        assert logged(runs / "sharded", name) == pytest.approx(logged(runs / "adamw", name), **CLOSE)


@pytest.mark.parametrize(("name", "like"), [("grid", "muon"), ("replicas", "short")])
def test_each_way_to_share_loses_what_one_process_does(runs: Path, name: str, like: str) -> None:
    assert ends(runs, name) == ["done"] * 4
    for metric in FIGURES:
        assert logged(runs / name, metric) == pytest.approx(logged(runs / like, metric), **CLOSE)


def test_a_line_that_four_processes_begin_and_two_end_is_that_of_one(runs: Path) -> None:
    assert ends(runs, "spans") == ["Crash: "] * 4
    assert ends(runs, "pair spans") == ["done"] * 2
    for metric in FIGURES:
        assert logged(runs / "spans", metric) == pytest.approx(logged(runs / "spans alone", metric), **CLOSE)


def test_a_resume_whose_first_step_overflows_in_one_process_is_waited_for_by_none(runs: Path) -> None:
    assert ends(runs, "pair skipped") == ["Crash: "] * 2
    assert ends(runs, "pair skipped again") == ["done"] * 2
    [line] = read_metrics(runs / "skipped" / "metrics.jsonl")
    assert (line["step"], line["overflows"]) == (6, 1)
    assert math.isfinite(line["loss"])


def test_two_processes_go_on_with_what_one_began(runs: Path) -> None:
    assert ends(runs, "pair alone") == ["done"] * 2
    assert logged(runs / "alone") == pytest.approx(logged(runs / "muon"), **CLOSE)


@pytest.mark.usefixtures("no_tensorboard")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_process_goes_on_with_what_four_began(runs: Path, tmp_path: Path, optimizer: str) -> None:
    began = {"adamw": "sharded", "muon": "grid"}[optimizer]
    shutil.copytree(runs / began, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000008")
    num_parts = 2 if optimizer == "adamw" else 1
    config = config_of(optimizer=optimizer, num_micro_batches=num_parts)
    train(DeviceTask(), config, tmp_path, resume=True)
    assert logged(tmp_path) == pytest.approx(logged(runs / optimizer), **CLOSE)


@pytest.mark.parametrize(("name", "like"), [("sharded", "adamw"), ("grid", "muon"), ("alone", "muon")])
def test_the_model_and_the_samples_are_of_whole_weights(runs: Path, name: str, like: str) -> None:
    exported = load_file(runs / name / "model" / "weights.safetensors")
    expected = load_file(list_checkpoints(runs / like / "checkpoints")[-1] / "model.safetensors")
    assert exported.keys() == transformer().state_dict().keys()
    for key, weight in exported.items():
        torch.testing.assert_close(weight, expected[key], rtol=0, atol=2e-4)
    sampled = load_file(runs / name / "sample-8.safetensors")
    assert all(torch.equal(sampled[key], weight) for key, weight in exported.items())


def test_a_checkpoint_of_four_is_the_model_that_they_exported(runs: Path) -> None:
    module = transformer()
    optimizers = build_optimizers(module, config_of(optimizer="muon"))
    state = load_latest_checkpoint(runs / "grid" / "checkpoints", module, optimizers)
    assert state is not None
    assert state["step"] == 8
    exported = load_file(runs / "grid" / "model" / "weights.safetensors")
    assert all(torch.equal(weight, exported[name]) for name, weight in module.state_dict().items())
    files = [path.name for path in list_checkpoints(runs / "grid" / "checkpoints")[-1].iterdir()]
    assert len([name for name in files if name.endswith(".safetensors")]) == 4


def test_a_damaged_shard_costs_steps_but_nothing_else(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "grid" / "checkpoints", tmp_path / "checkpoints")
    shard = sorted((tmp_path / "checkpoints" / "step-00000008").glob("shard-00003-*"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    sorted((tmp_path / "checkpoints" / "step-00000006").glob("shard-00002-*"))[0].unlink()
    module = transformer()
    optimizers = build_optimizers(module, config_of(optimizer="muon"))
    state = load_latest_checkpoint(tmp_path / "checkpoints", module, optimizers)
    assert state is not None
    assert state["step"] == 3
    said = capsys.readouterr().err
    assert "step-00000008 is damaged (shard-00003" in said
    assert "step-00000006 is damaged (shard-00002" in said
    assert (tmp_path / "checkpoints" / "step-00000008.broken").is_dir()


def test_a_stop_asked_of_one_process_stops_all_after_the_same_step(runs: Path) -> None:
    stop = "TrainingInterrupted: Stopped after step 5 of 8, saved up to step 5; resume the run to go on."
    assert ends(runs, "pair stopped") == [stop] * 2
    assert [path.name for path in list_checkpoints(runs / "stopped" / "checkpoints")][-1] == "step-00000005"


def test_a_disk_that_is_full_for_one_process_costs_a_checkpoint(runs: Path) -> None:
    assert ends(runs, "pair full") == ["done"] * 2
    # What had been written of the other one is gone too, for it takes room.
    assert [path.name for path in (runs / "full" / "checkpoints").iterdir()] == ["step-00000006"]
    assert "checkpoint of step 3 could not be written; the run goes on" in (runs / "rank-2.log").read_text()


def test_halves_over_float32_masters_lose_what_those_of_one_process_do(runs: Path) -> None:
    assert ends(runs, "pair halves") == ["done"] * 2
    ours, theirs = logged(runs / "halves"), logged(runs / "halves alone")
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours != pytest.approx(logged(runs / "short"), rel=1e-6)  # it is rounded
    assert logged(runs / "halves", "gradient_norm") == pytest.approx(
        logged(runs / "halves alone", "gradient_norm"), rel=2e-2
    )
    shard = next((runs / "halves" / "checkpoints" / "step-00000004").glob("*.safetensors"))
    assert {tensor.dtype for tensor in load_file(shard).values()} == {torch.float32}


def test_a_loss_that_is_not_finite_in_one_process_takes_all_back(runs: Path) -> None:
    assert ends(runs, "pair broken") == ["done"] * 2
    last = read_metrics(runs / "broken" / "metrics.jsonl")[-1]
    assert (last["num_rollbacks"], last["skipped_batches"]) == (1, 2)
    assert "in step 5: back to step 3 (rollback 1 of 1)" in (runs / "rank-2.log").read_text()
    assert logged(runs / "broken")[:3] == logged(runs / "stopped")[:3]


def test_what_cannot_be_shared_is_refused_by_all_in_one_line(runs: Path) -> None:
    batch = "UsageError: batch_size 8 must be a multiple of num_micro_batches 4 times 4, the processes that have rows "
    assert all(end.startswith(batch) for end in ends(runs, "batch"))
    heads = "UsageError: tensor_parallel 4 does not divide the 2 heads: take a divisor."
    assert ends(runs, "heads") == [heads] * 4
    assert not (runs / "heads").exists()
    for name, message in (("again", "already holds a run"), ("other", "optimizer was muon, now adamw")):
        first, *others = ends(runs, name)
        assert message in first
        assert others == ["SystemExit: 2"] * 3


@pytest.mark.parametrize(
    ("changes", "num_processes", "message"),
    [
        ({"tensor_parallel": 2}, 1, "tensor_parallel 2 .* 1 processes"),
        ({"tensor_parallel": 4}, 6, "tensor_parallel 4 .* 6 processes"),
        ({"tensor_parallel": 2, "shard_over": 4}, 4, "shard_over 4 .* 2 processes"),
        ({"tensor_parallel": 2, "compile": True}, 2, "compile .*tensor_parallel"),
        ({}, 3, "batch_size 8 .*num_micro_batches 1 times 3"),
    ],
)
def test_numbers_of_processes_that_do_not_divide_are_refused(
    changes: dict[str, int], num_processes: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_shares(config_of(**changes), num_processes)
    check_shares(config_of(tensor_parallel=2), BATCH_SIZE * 2)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnusableImage("no picture", "damaged"), CogViewError("no picture")),
        (UsageError("no such number"), UsageError("no such number")),
        (KeyError("x"), RuntimeError("KeyError: 'x'")),
        (OSError(28, "full", "file"), OSError(28, "full", "file")),
    ],
)
def test_every_error_of_one_process_reaches_the_others(error: Exception, told: Exception) -> None:
    class Sending(Processes):
        def gather(self, value: object) -> list[object]:
            return [pickle.loads(pickle.dumps(value))]

    with pytest.raises(type(told)) as caught:
        Sending(device=torch.device("cpu")).agree(error)
    assert (type(caught.value), str(caught.value)) == (type(told), str(told))


def test_processes_that_do_not_know_where_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2 .*MASTER_ADDR"):
        joined_processes(config_of()).__enter__()


def test_what_is_for_transformers_is_refused_before_the_folder_is_taken(tmp_path: Path) -> None:
    task = TinyTask()
    with pytest.raises(UsageError, match="activation_checkpointing"):
        train(task, config_of(activation_checkpointing=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_tensorboard")
def test_activation_checkpointing_changes_no_bit(runs: Path, tmp_path: Path) -> None:
    calls = []
    task = DeviceTask()
    task.module.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(None))
    config = config_of(num_steps=4, activation_checkpointing=True)
    train(task, config, tmp_path)
    assert len(calls) == 12  # a step's: forward, once more for the backward pass, and for what is logged
    for kind in ("model", "optimizer"):
        ours, theirs = (
            (folder / "checkpoints" / "step-00000004" / f"{kind}.safetensors").read_bytes()
            for folder in (tmp_path, runs / "short")
        )
        assert ours == theirs
