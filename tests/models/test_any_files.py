"""Model folders that anybody may have made: whatever their files say, loading them ends well or in one line."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import cogview
from cogview.errors import CogViewError
from cogview.models.adapters import save_task_model
from cogview.models.folder import load_pretrained
from cogview.models.pretrained import TaskModel, fields_of
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from tiny import tiny_pipeline_folder

CONFIGS = ("config.json", "image_tokenizer/config.json", "adapters/style/config.json")
WEIGHTS = ("model.safetensors", "image_tokenizer/model.safetensors", "adapters/style/model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an adapter."""
    folder = tiny_pipeline_folder(tmp_path_factory.mktemp("saved"))
    base = load_pretrained(folder)
    adapted = AdaptedTransformer(base.transformer, AdapterConfig(rank=2))
    style = TaskModel(task="style", transformer=adapted, template=fields_of(base.template))
    save_task_model(style, folder / "adapters" / "style", base)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def draw_with_all(folder: Path) -> None:
    """Load a model and what its adapters need."""
    pipeline = cogview.load(folder)
    for name in pipeline.adapters:
        pipeline.model.drawing(name)


def refusal(folder: Path) -> str:
    with pytest.raises(CogViewError) as caught:
        draw_with_all(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_one_line(error: CogViewError) -> None:
    """Assert it, but for what the tests' own type checker adds where a class would have refused a choice."""
    assert "\n" not in str(error).partition("Type-check error")[0]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a JSON value."""
    found = []
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += [(value, key), *places(value[key])]
    return found


ODD = st.sampled_from(
    [0, 1, -1, 2, 7, 2**31, 2**63 - 1, 2**64, 10**400, 0.5, 1e308, float("inf"), True, None]
)
ODD_VALUES = ODD | st.text(max_size=3) | st.lists(ODD, max_size=3) | st.dictionaries(st.text(max_size=2), ODD)


@given(st.sampled_from(CONFIGS), st.integers(0, 10**6), ODD_VALUES | st.just("delete"))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_any_change_of_a_config_loads_or_is_one_line(
    saved: Path, name: str, number: int, value: object
) -> None:
    path = saved / name
    before = path.read_bytes()
    content = json.loads(before)
    every = places(content)
    container, key = every[number % len(every)]
    if value == "delete":
        del container[key]
    else:
        container[key] = value
    path.write_text(json.dumps(content))
    try:
        draw_with_all(saved)
    except CogViewError as error:
        assert_one_line(error)
    finally:
        path.write_bytes(before)


@given(st.sampled_from(WEIGHTS), st.integers(0, 2_000), st.binary(min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_any_change_of_a_header_loads_or_is_one_line(saved: Path, name: str, place: int, data: bytes) -> None:
    path = saved / name
    before = path.read_bytes()
    path.write_bytes(before[:place] + data + before[place + len(data) :])
    try:
        draw_with_all(saved)
    except CogViewError as error:
        assert_one_line(error)
    finally:
        path.write_bytes(before)


def narrowed(dtype: torch.dtype) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)

    return change


def test_a_model_in_8_bit_floats_is_the_one_of_those_values(folder: Path) -> None:
    shutil.rmtree(folder / "adapters")  # which is for other weights
    path = folder / "model.safetensors"
    narrowed(torch.float8_e4m3fn)(path)
    found = load_pretrained(folder).transformer.state_dict()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in load_file(path).items())


@pytest.mark.parametrize("name", WEIGHTS)
def test_whole_numbers_are_no_weights(folder: Path, name: str) -> None:
    narrowed(torch.int8)(folder / name)
    assert "is int8" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "section", "change", "said"),
    [
        ("config.json", "transformer", {"num_layers": 10**9}, "1,000,000,000 layers"),
        ("config.json", "transformer", {"hidden_size": 2**40, "num_heads": 1}, "not those of its config"),
        ("config.json", "transformer", {"mlp_factor": 2**50}, "not those of its config"),
        (CONFIGS[1], "config", {"encoder_channels": [20_000, 20_000]}, "belong to different tokenizers"),
        (CONFIGS[1], "config", {"encoder_blocks": [10**9, 0]}, "1,000,000,004 layers"),
        (CONFIGS[1], "config", {"patch_size_pixels": 2**40}, "belong to different tokenizers"),
        (CONFIGS[2], "adapter", {"rank": 3_000_000}, "not those of its config"),
        (CONFIGS[2], "adapter", {"num_positions": 10**9}, "not those of its config"),
        (CONFIGS[2], "adapter", {"token_rows": [2**40]}, "not those of its config"),
    ],
)
def test_a_config_that_claims_more_than_its_file_holds_is_refused(
    folder: Path, name: str, section: str, change: dict[str, object], said: str
) -> None:
    content = json.loads((folder / name).read_text())
    content[section] |= change
    (folder / name).write_text(json.dumps(content))
    assert said in refusal(folder)


@pytest.mark.parametrize(
    "name", ["image_tokenizer/notes.txt", "adapters/style/notes.txt", "adapters/notes.txt"]
)
def test_saving_deletes_nothing_that_is_not_of_a_model(folder: Path, name: str) -> None:
    pipeline = cogview.load(folder)
    (folder / name).write_text("precious")
    with pytest.raises(CogViewError, match="notes"):
        pipeline.save_pretrained(folder)
    assert (folder / name).read_text() == "precious"
    (folder / name).unlink()
    pipeline.save_pretrained(folder)
    draw_with_all(folder)


def test_tokenizers_that_a_model_lacks_are_not_deleted_by_it(folder: Path) -> None:
    bare = shutil.copytree(folder, folder.with_name("bare"))
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"text_tokenizer": None}))
    (bare / "text.model").unlink()
    pipeline = cogview.load(bare)
    with pytest.raises(CogViewError, match=r"has text\.model, and this model has none"):
        pipeline.save_pretrained(folder)
    assert (folder / "text.model").is_file()


def test_a_card_in_another_encoding_keeps_no_model_from_loading(folder: Path) -> None:
    for card in (folder / "README.md", folder / "adapters" / "style" / "README.md"):
        card.write_bytes("# Modèle".encode("cp1252"))
    draw_with_all(folder)
    assert cogview.load(folder).card == "# Modèle"


@pytest.mark.slow
def test_threads_share_runners_and_only_the_last_strength_is_kept(folder: Path) -> None:
    pipeline = cogview.load(folder)
    failures: list[Exception] = []

    def draw(strength: float) -> None:
        try:
            for _ in range(20):
                pipeline.model.drawing("style", strength)
        except Exception as error:  # whatever it is, it ends the test
            failures.append(error)

    threads = [threading.Thread(target=draw, args=(strength,)) for strength in (0.3, 0.5, 0.7, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(pipeline.model._runners) <= 2
    assert pipeline.model.drawing("style")[0] is pipeline.model.drawing("style")[0]
