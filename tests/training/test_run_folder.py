"""A run's folder: what it says of the run, and that nothing in it is lost."""

import json
from pathlib import Path

import pytest
import torch
from tiny_task import TinyTask, tiny_config

from cogview.errors import CogViewError, UsageError
from cogview.training import run_folder
from cogview.training.checkpoint import list_checkpoints
from cogview.training.loop import train
from cogview.training.run_folder import claimed_run_folder

pytestmark = pytest.mark.usefixtures("no_tensorboard")


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_not_touched(tmp_path: Path) -> None:
    train(TinyTask(), tiny_config(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="already holds a run"):
        train(TinyTask(), tiny_config(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_resume_with_another_config_says_what_differs(tmp_path: Path) -> None:
    train(TinyTask(), tiny_config(), tmp_path, recipe={"model": {"num_layers": 4}, "data": "abc"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        train(
            TinyTask(),
            tiny_config(learning_rate=0.5),
            tmp_path,
            resume=True,
            recipe={"model": {"num_layers": 6, "dropout": 0.1}, "data": "abc"},
        )
    for words in (
        "learning_rate was 0.01, now 0.5",
        "model.num_layers was 4, now 6",
        "model.dropout was absent, now 0.1",
    ):
        assert words in str(caught.value)
    assert "data" not in str(caught.value).replace("dataclass", "")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}'])
def test_a_config_that_is_not_a_runs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CogViewError, match=r"config\.json"):
        train(TinyTask(), tiny_config(), tmp_path, resume=True)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.slow
def test_a_resume_keeps_what_the_run_was_started_by_and_adds_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "git_commit", lambda: "first-dirty")
    train(TinyTask(), tiny_config(), tmp_path)
    started = json.loads((tmp_path / "config.json").read_bytes())
    for commit in ("second", "third"):
        monkeypatch.setattr(run_folder, "git_commit", lambda commit=commit: commit)
        train(TinyTask(), tiny_config(keep_checkpoints=7), tmp_path, resume=True)
    resumed = json.loads((tmp_path / "config.json").read_bytes())
    resumes = resumed.pop("resumes")
    assert resumed == started
    assert [resume["git_commit"] for resume in resumes] == ["second", "third"]
    assert resumes[0]["training"]["keep_checkpoints"] == 7


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        train(TinyTask(), tiny_config(), tmp_path / "missing", resume=True)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        train(TinyTask(), tiny_config(), tmp_path / "file")


@pytest.mark.slow
def test_what_a_person_put_beside_the_exported_model_stays(tmp_path: Path) -> None:
    exports = []

    def export(folder: Path) -> None:
        exports.append(folder)
        (folder / "inner").mkdir()
        for name in ("weights", "inner/config"):
            (folder / name).write_text(f"{len(exports)}")

    def sample(step: int) -> None:  # after the first export
        if step == 8:
            (model / "adapters" / "mine" / "empty").mkdir(parents=True)
            for name, text in mine.items():
                (model / name).write_text(text)
            (model / "link").symlink_to("adapters/mine")

    model = tmp_path / "model"
    mine = {"adapters/mine/a": "a", "adapters/mine/b": "b", "inner/notes": "n", ".hidden": "h"}
    config = tiny_config(sample_every_steps=1)
    train(TinyTask(), config, tmp_path, export=export, sample=sample)
    for num_exports in (len(exports), len(exports) + 1):
        assert len(exports) == num_exports >= 5
        assert {name: (model / name).read_text() for name in mine} == mine
        assert (model / "link").readlink() == Path("adapters/mine")
        assert (model / "adapters" / "mine" / "empty").is_dir()
        assert {(model / name).read_text() for name in ("weights", "inner/config")} == {f"{num_exports}"}
        if num_exports == len(exports):
            train(TinyTask(), config, tmp_path, resume=True, export=export)  # of a run that is done
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with claimed_run_folder(tmp_path / "run", {}, resume=False):
        (tmp_path / "run" / "config.json").unlink()
        with pytest.raises(UsageError, match="Another process is training"):
            train(TinyTask(), tiny_config(), tmp_path / "run")


@pytest.mark.slow
def test_the_run_folder_says_how_to_run_it_again(tmp_path: Path) -> None:
    train(TinyTask(), tiny_config(seed=5), tmp_path, recipe={"size": (16, 16), "folder": Path("pairs")})
    run = json.loads((tmp_path / "config.json").read_bytes())
    assert run["training"]["num_steps"] == 30
    assert run["recipe"] == {"size": [16, 16], "folder": "pairs"}
    assert (run["seed"], run["device"]) == (5, "cpu")
    assert run["versions"]["torch"] == torch.__version__
    assert run["versions"].keys() == {"python", "torch", "cogview"}
    assert {"git_commit", "command"} <= run.keys()
    state = json.loads((list_checkpoints(tmp_path / "checkpoints")[-1] / "state.json").read_bytes())
    assert state["run"] == run
