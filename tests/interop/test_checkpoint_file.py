"""Checkpoints of any trainer: weights are found whatever lies around them, and nothing is run or blown up."""

import argparse
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict, deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.interop.checkpoint_file import read_state_dict
from cogview.interop.other_projects import project_of
from cogview.interop.wrappers import unwrap

WEIGHTS = {
    "first.weight": torch.arange(6.0).view(2, 3),
    "first.bias": torch.ones(2),
    "scale": torch.tensor(3.0),
}


def assert_same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


class Record(dict):
    """A mapping of a trainer's own."""


class Names(list):
    """A list of a trainer's own."""


class Touching:
    """Makes a file when it is unpickled as pickle does it."""

    def __reduce__(self) -> object:
        return (Path.touch, (Path("touched-by-a-pickle"),))


class Opening:
    """Makes a file by a function that its pickle names."""

    def __reduce__(self) -> object:
        return (open, ("touched-by-a-pickle", "w"))


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of a package that is gone when the checkpoint is read."""
    module = types.ModuleType("a_trainer_that_is_not_installed")
    module.Callback = type("Callback", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.Callback  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "before 1.6"])
def test_anything_may_lie_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callback: type, is_old: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    beside = {
        "best": np.float64(1.5),
        "losses": np.zeros(3),
        "state of numpy": np.random.default_rng(0).integers(0, 9, 4, dtype=np.uint32),
        "arguments": argparse.Namespace(rate=1e-3, folder=Path("out")),
        "callbacks": {callback: {"best": callback()}},
        "counts": defaultdict(list, {"a": [1]}),
        "record": Record(a=1, b=callback()),
        "opened": Opening(),
        "last losses": deque([1.0, 2.0], maxlen=3),
        "names": Names(["a", callback()]),
        "numbers": [range(3), defaultdict(int, {"a": 1}), partial(open, "touched-by-a-pickle", "w")],
    }
    torch.save({**beside, "state_dict": WEIGHTS}, "last.ckpt", _use_new_zipfile_serialization=not is_old)
    monkeypatch.delitem(sys.modules, callback.__module__)
    assert_same(read_state_dict(Path("last.ckpt")))
    assert callback.__module__ not in sys.modules
    assert not Path("touched-by-a-pickle").exists()


def test_a_whole_model_in_the_old_form_is_refused_for_what_it_is(tmp_path: Path) -> None:
    whole = {"state_dict": WEIGHTS, "model": torch.nn.Linear(2, 2)}
    torch.save(whole, tmp_path / "last.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(CogViewError, match="whole model"):
        read_state_dict(tmp_path / "last.ckpt")


def test_harmless_names_are_not_blamed(tmp_path: Path) -> None:
    names = Names(["a"])
    names.of = "a trainer"  # type: ignore[attr-defined]
    beside = {"names": names, "order": OrderedDict(a=1)}
    torch.save({"state_dict": WEIGHTS, **beside}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CogViewError, match=r"\(it asks for [\w.]*Names\)"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["net", "a name of its own"])
def test_the_only_weights_are_found_under_any_name(tmp_path: Path, name: str) -> None:
    torch.save({"epoch": 1, name: WEIGHTS, "rates": {"first": 1e-3}}, tmp_path / "a.pt")
    assert_same(read_state_dict(tmp_path / "a.pt"))
    torch.save({"one": WEIGHTS, "other": WEIGHTS}, tmp_path / "b.pt")
    with pytest.raises(CogViewError, match="one, other"):
        read_state_dict(tmp_path / "b.pt")


@pytest.mark.parametrize("thing", [Touching(), {"state_dict": Opening()}, Record(WEIGHTS)])
def test_weights_that_running_code_would_make_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: object
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(thing, "last.ckpt")
    with pytest.raises(CogViewError, match=r"(asks for|but objects of) .*(getattr|open|Record)") as caught:
        read_state_dict(Path("last.ckpt"))
    assert "\n" not in str(caught.value)
    assert not Path("touched-by-a-pickle").exists()


BEFORE = st.lists(st.sampled_from(["module", "model", "ema_model", "model_ema", "ema"]), max_size=3)
INSIDE = st.lists(
    st.sampled_from(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]), max_size=2
)


@given(BEFORE, INSIDE, INSIDE, st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_wrappers_put_before_names_is_taken_away(
    before: list[str], outer: list[str], inner: list[str], counts: bool
) -> None:
    def wrapped(name: str) -> str:
        first, *rest = name.split(".")
        return ".".join([*outer, *before, first, *inner, *rest])

    weights = {f"layers.{name}": tensor for name, tensor in WEIGHTS.items()}
    tensors = {wrapped(name): tensor for name, tensor in weights.items()}
    if counts and before:
        tensors["n_averaged"] = torch.tensor(3)
    found = unwrap(tensors)
    assert found.keys() == weights.keys()
    assert all(found[name] is weights[name] for name in weights)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.a.weight", "ema_model.a.weight"], r"ema_model\., model\."),
        (["a.weight", "_orig_mod.a.weight"], "a.weight twice"),
    ],
)
def test_two_sets_of_weights_are_not_mixed(names: list[str], said: str) -> None:
    with pytest.raises(CogViewError, match=said):
        unwrap({name: torch.ones(1) for name in names})


def test_names_that_only_partly_have_a_prefix_stay() -> None:
    tensors = {"model.a": torch.ones(1), "head.a": torch.ones(1)}
    assert unwrap(tensors) == tensors


def test_safetensors_are_read_as_well(tmp_path: Path) -> None:
    save_file({f"module.{name}": tensor for name, tensor in WEIGHTS.items()}, tmp_path / "a.safetensors")
    assert_same(read_state_dict(tmp_path / "a.safetensors"))


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(8, 9)}, tmp_path / "a.pt")
    with pytest.raises(CogViewError, match="a claims 72 numbers"):
        read_state_dict(tmp_path / "a.pt")
    shared = torch.zeros(1000)
    torch.save({str(number): shared for number in range(100)}, tmp_path / "b.pt")
    with pytest.raises(CogViewError, match="claims 1,000 numbers"):
        read_state_dict(tmp_path / "b.pt")


def test_tied_weights_and_parts_of_a_tensor_are_no_claim(tmp_path: Path) -> None:
    table = torch.arange(40.0).view(10, 4)
    state = OrderedDict(table=table, head=table, part=table[2:5], turned=table.T)
    torch.save(state, tmp_path / "a.pt")
    found = read_state_dict(tmp_path / "a.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_compressed_zip_is_not_unpacked(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(CogViewError, match="compressed parts"):
        read_state_dict(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("names", "project"),
    [
        (["layers.0.glu.fc0.weight", "embed_tokens.weight"], "DALL-E mini"),
        (["stage2.tok_emb_img.weight", "stage2.tok_emb_txt.weight"], "minDALL-E"),
        (["encoder.down.0.block.0.conv1.weight", "quant_conv.weight"], "without codes"),
    ],
)
def test_known_projects_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], project: str
) -> None:
    assert project in (project_of(names) or "")
    torch.save({"state_dict": {name: torch.zeros(1) for name in names}}, tmp_path / "a.ckpt")
    assert main(["convert", str(tmp_path / "a.ckpt"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert project in said
    assert "cannot be converted yet" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"_class_name": "VQModel"}', "a VQModel of diffusers"),
        ('{"model_type": "janus"}', "a janus of the package"),
    ],
)
def test_folders_of_other_packages_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str, said: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
