import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import TinyModule, TinyTask, tiny_config

from cogview.errors import CogViewError
from cogview.training import checkpoint
from cogview.training.checkpoint import list_checkpoints, load_latest_checkpoint, save_checkpoint
from cogview.training.optimizer import build_optimizers


def trained(num_steps: int = 2) -> tuple[TinyModule, torch.optim.Optimizer]:
    task = TinyTask()
    optimizers = build_optimizers(task.module, tiny_config())
    for step in range(num_steps):
        task.loss(task.batch(step))[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return task.module, optimizers


def save(folder: Path, step: int, keep: int = 10, **state: object) -> Path:
    return save_checkpoint(folder, step, *trained(step), state, keep)


def assert_same_state(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    states = one.state_dict()["state"], other.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for number, tensors in states[0].items():
        assert tensors.keys() == states[1][number].keys()
        assert all(torch.equal(tensor, states[1][number][key]) for key, tensor in tensors.items())


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    module, optimizers = trained(3)
    save_checkpoint(tmp_path, 3, module, optimizers, {"seconds": 0.1, "texts": ["猫"]}, keep=1)
    new_module, new_optimizers = trained(0)
    state = load_latest_checkpoint(tmp_path, new_module, new_optimizers)
    assert state is not None
    assert (state["step"], state["seconds"], state["texts"]) == (3, 0.1, ["猫"])
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), new_module.parameters(), strict=True))
    assert torch.equal(module.mean_state, new_module.mean_state)
    assert_same_state(optimizers[0], new_optimizers[0])


def test_moments_keep_the_layout_of_their_weights(tmp_path: Path) -> None:
    save(tmp_path, 1)
    module, _ = trained(0)
    module.to(memory_format=torch.channels_last)
    optimizers = build_optimizers(module, tiny_config())
    load_latest_checkpoint(tmp_path, module, optimizers)
    weight = module.convolution.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert optimizers[0].state[weight]["exp_avg"].stride() == weight.stride()


def test_a_tied_weight_is_stored_once_and_loaded_into_both_places(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    names = load_file(path / "model.safetensors").keys()
    assert len({"head.weight", "embedding.weight"} & names) == 1
    module, optimizers = trained(0)
    load_latest_checkpoint(tmp_path, module, optimizers)
    assert module.head.weight is module.embedding.weight
    assert torch.equal(module.head.weight, trained(1)[0].head.weight)


def test_only_the_latest_stay(tmp_path: Path) -> None:
    module, optimizers = trained(1)
    for step in (8, 9, 10, 100_000_000):
        save_checkpoint(tmp_path, step, module, optimizers, {}, keep=2)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-100000000"]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_latest_checkpoint(tmp_path / "missing", *trained(0)) is None


def cut_tensors(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-8])


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(data)


def cut_state(path: Path) -> None:
    data = (path / "state.json").read_bytes()
    (path / "state.json").write_bytes(data[: len(data) // 2])


def drop_digests(path: Path) -> None:
    state = json.loads((path / "state.json").read_bytes())
    (path / "state.json").write_text(json.dumps({**state, "sha256": None}))


def change_a_number(path: Path) -> None:
    text = (path / "state.json").read_text()
    assert '"step": 2' in text
    (path / "state.json").write_text(text.replace('"step": 2', '"step": 3'))


def drop_a_file(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


@pytest.mark.parametrize(
    "damage", [cut_tensors, flip_a_bit, cut_state, drop_digests, change_a_number, drop_a_file]
)
def test_a_broken_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: object, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    module, optimizers = trained(0)
    state = load_latest_checkpoint(tmp_path, module, optimizers)
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(module.head.weight, trained(1)[0].head.weight)
    assert "step-00000002 is damaged" in capsys.readouterr().err
    # It is set aside, so that it neither counts among those kept nor is mistaken for a good one.
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]
    assert (tmp_path / "step-00000002.broken").is_dir()


def test_a_state_that_earlier_versions_wrote_without_its_digest_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, 2) / "state.json"
    state = json.loads(path.read_bytes())
    del state["own_sha256"]
    path.write_text(json.dumps(state))
    loaded = load_latest_checkpoint(tmp_path, *trained(0))
    assert loaded is not None
    assert loaded["step"] == 2


@pytest.mark.parametrize("version", [99, "2", None])
def test_a_checkpoint_of_another_version_stops_the_run_and_stays(tmp_path: Path, version: object) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "version": version}))
    with pytest.raises(CogViewError, match=r"step-00000002 .*version .* 1 and 2") as caught:
        load_latest_checkpoint(tmp_path, *trained(0))
    assert "\n" not in str(caught.value)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("name", ["state.json", "model.safetensors"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_checkpoint_that_the_system_refuses_to_read_stops_the_run_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    save(tmp_path, 1)
    refused = save(tmp_path, 2) / name
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == refused:
            raise OSError(number, os.strerror(number), str(path))
        return read_bytes(path)

    module, optimizers = trained(0)
    with monkeypatch.context() as patch:  # root may read everything, so permissions alone would prove nothing
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(CogViewError, match=os.strerror(number)) as caught:
            load_latest_checkpoint(tmp_path, module, optimizers)
    assert str(refused) in str(caught.value)
    assert "\n" not in str(caught.value)
    state = load_latest_checkpoint(tmp_path, module, optimizers)
    assert state is not None
    assert state["step"] == 2


def test_all_broken_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    cut_state(save(tmp_path, 1))
    cut_state(save(tmp_path, 2))
    with pytest.raises(CogViewError, match="2 checkpoints"):
        load_latest_checkpoint(tmp_path, *trained(0))


def test_what_a_kill_left_half_written_is_never_taken_and_goes(tmp_path: Path) -> None:
    save(tmp_path, 1)
    half = tmp_path / ".step-00000002.removed"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    state = load_latest_checkpoint(tmp_path, *trained(0))
    assert state is not None
    assert state["step"] == 1
    assert not half.exists()


def test_another_models_checkpoint_is_refused_in_plain_words(tmp_path: Path) -> None:
    save(tmp_path, 1)
    module = TinyModule(dropout=0.0)
    module.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CogViewError, match=r"another model: .*extra\.bias"):
        load_latest_checkpoint(tmp_path, module, build_optimizers(module, tiny_config()))
    module = TinyModule(dropout=0.0)
    module.norm = torch.nn.LayerNorm(9)
    with pytest.raises(CogViewError, match=r"another model: .*norm\.bias"):
        load_latest_checkpoint(tmp_path, module, build_optimizers(module, tiny_config()))


def test_a_full_disk_leaves_the_earlier_checkpoints_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def no_room(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_durably", no_room)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, keep=1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
