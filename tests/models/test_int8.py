"""Models in int8: loaded so, saved so, drawn with, and with adapters of the weights that they were rounded from."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import cogview
from cogview.cli.main import main
from cogview.errors import UsageError
from cogview.generation.devices import resolve_dtype
from cogview.models.adapters import save_task_model
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import TaskModel
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from tiny import tiny_pipeline_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_pipeline_folder(tmp_path)


@pytest.mark.slow
def test_a_model_may_be_saved_and_loaded_in_int8(folder: Path, tmp_path: Path) -> None:
    pipe = cogview.load(folder, "cpu", "int8")
    codes = pipe.generate_codes("a cat", seed=3)
    assert pipe.dtype == torch.int8
    assert pipe.fingerprint == cogview.load(folder, "cpu").fingerprint
    with pytest.raises(UsageError, match="rounded to int8"):
        pipe.save_pretrained(tmp_path / "lost")
    pipe.save_pretrained(tmp_path / "int8", torch.int8)
    cogview.load(folder, "cpu").save_pretrained(tmp_path / "again", torch.int8)
    for path in (tmp_path / "int8", tmp_path / "again"):
        again = cogview.load(path, "cpu")
        assert again.dtype == torch.int8
        assert again.fingerprint == pipe.fingerprint
        assert torch.equal(again.generate_codes("a cat", seed=3), codes)
        assert json.loads((path / "config.json").read_text())["version"] == 2, (
            "older packages say that they are old"
        )
        # What was rounded stays rounded: as floats it is another model, which is exactly these.
        again.save_pretrained(tmp_path / "floats", torch.float32)
        floats = cogview.load(tmp_path / "floats", "cpu")
        assert floats.dtype == torch.float32
        state = floats.transformer.state_dict()
        assert all(torch.equal(state[name], each) for name, each in pipe.transformer.state_dict().items())
    weights = "model.safetensors"
    assert (tmp_path / "int8" / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()


def test_the_command_makes_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(folder), str(tmp_path / "int8"), "--to", "int8"]) == 0
    assert "in int8" in capsys.readouterr().out
    assert load_pretrained(tmp_path / "int8").prepared_dtype == torch.int8


@pytest.mark.slow
def test_adapters_of_the_unrounded_weights_belong_to_the_rounded_ones(folder: Path, tmp_path: Path) -> None:
    base = load_pretrained(folder)
    adapted = AdaptedTransformer(base.transformer, AdapterConfig(rank=4, trains_norms=True))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.3
    template = dataclasses.asdict(base.template)
    del template["vocabulary"]
    save_task_model(TaskModel(task="style", transformer=adapted, template=template), tmp_path / "style", base)
    pipe = cogview.load(folder, "cpu", "int8")
    pipe.add_adapter(tmp_path / "style", "wiggly")
    drawn = pipe.generate_codes("a cat", adapter="wiggly")
    assert not torch.equal(drawn, pipe.generate_codes("a cat"))
    pipe.save_pretrained(tmp_path / "int8", torch.int8)
    again = cogview.load(tmp_path / "int8", "cpu")
    assert torch.equal(again.generate_codes("a cat", adapter="wiggly"), drawn)
    again.add_adapter(tmp_path / "style", "loose")
    assert torch.equal(again.generate_codes("a cat", adapter="loose"), drawn)


def test_int8_is_for_the_cpu() -> None:
    with pytest.raises(UsageError, match=r"int8 .*CPU"):
        resolve_dtype("int8", torch.device("cuda"))
