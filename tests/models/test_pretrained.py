"""Model folders: what is saved comes back, and what does not fit is refused in one line."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from cogview.errors import CogViewError, UsageError
from cogview.image.tokenizer import load_image_tokenizer
from cogview.models import config as model_folder
from cogview.models import folder as pretrained
from cogview.models.config import BUNDLED_FOLDER, find_model_folder
from cogview.models.folder import REQUIRED_FILES, PretrainedModel, load_pretrained, save_pretrained
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import regions_for
from tiny import tiny_image_tokenizer, tiny_model, tiny_pipeline_folder, tiny_text_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refusal(folder: Path) -> str:
    with pytest.raises(CogViewError) as caught:
        load_pretrained(find_model_folder(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    model = dataclasses.replace(tiny_model(tmp_path, card="# A card\n", guidance=1.5), top_p=0.95)
    save_pretrained(model, tmp_path / "model")
    back = load_pretrained(tmp_path / "model")
    assert (back.guidance, back.top_p) == (1.5, 0.95)
    assert back.card == "# A card\n"
    assert back.template == model.template
    assert back.transformer.config == model.transformer.config
    for name, tensor in model.transformer.state_dict().items():
        assert torch.equal(back.transformer.state_dict()[name], tensor), name
    assert back.text_tokenizer.fingerprint == model.text_tokenizer.fingerprint
    assert back.image_tokenizer.fingerprint == model.image_tokenizer.fingerprint
    assert not back.transformer.training


def test_a_model_from_before_there_was_guidance_draws_without(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["guidance"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_pretrained(folder).guidance == 1.0


def test_a_model_that_names_no_top_p_draws_as_the_bundled_one(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["top_p"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_pretrained(folder).top_p == load_pretrained(find_model_folder(None)).top_p == 0.8


@pytest.mark.parametrize("top_p", [0, -0.5, "0.8", None, True, float("nan"), 1.5])
def test_an_impossible_top_p_is_refused(folder: Path, top_p: object) -> None:
    edit_config(folder, top_p=top_p)
    assert "has a top_p of" in refusal(folder)


@pytest.mark.parametrize("guidance", [-1, "2", None, float("nan"), 1e9])
def test_an_impossible_guidance_is_refused(folder: Path, guidance: object) -> None:
    edit_config(folder, guidance=guidance)
    assert "has a guidance of" in refusal(folder)


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    save_pretrained(model, tmp_path / "whole")
    save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    weight = load_pretrained(tmp_path / "half").transformer.embedding.tokens.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.transformer.embedding.tokens.weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        (torch.float16, torch.bfloat16),  # the bundled model on a GPU
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
        (torch.bfloat16, torch.float16),
    ],
)
@pytest.mark.slow
def test_weights_that_loading_rounded_are_not_saved_as_if_they_were_the_model(
    tmp_path: Path, stored: torch.dtype, loaded: torch.dtype
) -> None:
    save_pretrained(tiny_model(tmp_path), tmp_path / "model", dtype=stored)
    rounded = load_pretrained(tmp_path / "model", dtype=loaded)
    for dtype in {None, stored, torch.float32}:
        with pytest.raises(UsageError, match="dtype='float32'") as caught:
            save_pretrained(rounded, tmp_path / "copy", dtype=dtype)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "copy").exists()
    # Asked for by its name, that dtype gives what it would from the exact weights.
    save_pretrained(rounded, tmp_path / "rounded", dtype=loaded)
    save_pretrained(load_pretrained(tmp_path / "model"), tmp_path / "exact", dtype=loaded)
    weights, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("rounded", "exact"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loaded", [None, torch.float32, "as stored"])
@pytest.mark.slow
def test_weights_that_loading_kept_exact_can_be_saved(
    tmp_path: Path, stored: torch.dtype, loaded: torch.dtype | str | None
) -> None:
    save_pretrained(tiny_model(tmp_path), tmp_path / "model", dtype=stored)
    model = load_pretrained(tmp_path / "model", dtype=stored if loaded == "as stored" else loaded)
    save_pretrained(model, tmp_path / "copy", dtype=stored)
    weights, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("copy", "model"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in wanted.items())
    save_pretrained(model, tmp_path / "as-it-is")


def test_a_model_without_card_gets_the_bare_facts_with_the_header_of_the_hub(tmp_path: Path) -> None:
    save_pretrained(tiny_model(tmp_path), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: cogview\npipeline_tag: text-to-image\n---\n")
    assert "16x16 pixels" in card


def test_a_model_folder_is_replaced_and_anything_else_is_left_alone(saved: Path, tmp_path: Path) -> None:
    model = load_pretrained(saved)
    save_pretrained(model, tmp_path / "model")
    save_pretrained(model, tmp_path / "model")
    precious = tmp_path / "photographs"
    precious.mkdir()
    (precious / "wedding.png").write_bytes(b"precious")
    with pytest.raises(CogViewError, match="not replaced"):
        save_pretrained(model, precious)
    assert (precious / "wedding.png").read_bytes() == b"precious"


def test_others_may_read_a_model_as_they_may_any_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    wanted = (tmp_path / "ordinary").stat().st_mode
    assert {path.stat().st_mode for path in saved.rglob("*") if path.is_file()} == {wanted}


def test_the_picture_of_the_card_comes_along(folder: Path, tmp_path: Path) -> None:
    (folder / "samples.png").write_bytes(b"a picture")
    save_pretrained(load_pretrained(folder), tmp_path / "copy")
    assert (tmp_path / "copy" / "samples.png").read_bytes() == b"a picture"


def test_a_picture_of_the_card_that_has_no_end_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "samples.png").write_bytes(b"a picture")
    monkeypatch.setattr(pretrained, "_MAX_SAMPLES_BYTES", 8)
    with pytest.raises(CogViewError, match=r"samples\.png .*8 bytes"):
        load_pretrained(folder)


def test_a_failed_save_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_pretrained(saved)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "write_transformer", no_space)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(model, tmp_path / "models" / "new")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)


def test_a_missing_folder_and_a_file_in_its_place_are_refused(tmp_path: Path) -> None:
    assert "There is no model folder" in refusal(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    assert "cogview convert" in refusal(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "3"])
def test_a_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert "config" in refusal(folder)


def test_other_kinds_and_versions_are_refused(folder: Path) -> None:
    assert "load_image_tokenizer" in refusal(folder / "image_tokenizer")
    edit_config(folder, version=3)
    assert "version 3" in refusal(folder)
    edit_config(folder, format="other")
    assert "'other'" in refusal(folder)


@pytest.mark.parametrize("section", ["transformer", "vocabulary", "template"])
def test_a_section_of_the_config_that_makes_no_sense_is_named(folder: Path, section: str) -> None:
    edit_config(folder, **{section: {"unheard_of": 1}})
    assert f"'{section}'" in refusal(folder)


@pytest.mark.parametrize("tokenizer", ["text_tokenizer", "image_tokenizer"])
def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    if tokenizer == "text_tokenizer":
        captions = ("other words are other pieces", "别的词") * 5
        tiny_text_tokenizer(tmp_path, captions).save(folder / "text.model")
    else:
        other = tiny_image_tokenizer()
        with torch.no_grad():
            other.autoencoder.quantizer.embed.mul_(2)
        type(other)(other.autoencoder).save_pretrained(folder / "image_tokenizer")
    message = refusal(folder)
    assert tokenizer.replace("_", " ") in message
    assert json.loads((folder / "config.json").read_text())[tokenizer] in message


def test_wrong_tensors_are_named(folder: Path) -> None:
    name = "embedding.tokens.weight"
    edit_weights(folder, lambda weights: weights.update({name: weights[name][:-1].contiguous()}))
    message = refusal(folder)
    assert name in message
    assert "instead of" in message
    edit_weights(folder, lambda weights: weights.pop(name))
    assert f"missing {name}" in refusal(folder)
    edit_weights(folder, lambda weights: weights.update(stranger=torch.zeros(1)))
    assert "unexpected stranger" in refusal(folder)


def test_a_cut_off_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors cannot be read" in refusal(folder)


def test_parts_that_do_not_fit_together_are_refused(saved: Path) -> None:
    model = load_pretrained(saved)
    with pytest.raises(CogViewError, match=r"32 image codes.* 16"):
        PretrainedModel(
            source=model.transformer,
            template=model.template,
            text_tokenizer=model.text_tokenizer,
            image_tokenizer=tiny_image_tokenizer(num_codes=16),
        )


def test_regions_of_another_template_are_refused(saved: Path) -> None:
    model = load_pretrained(saved)
    config = dataclasses.replace(model.transformer.config, attention_pattern="three_region")
    with pytest.raises(CogViewError, match=r"the template wants ThreeRegionConfig.*num_image_tokens=16"):
        dataclasses.replace(model, source=Transformer(config))
    regions = regions_for(model.template, config.three_region)
    fitting = Transformer(dataclasses.replace(config, three_region=regions))
    assert dataclasses.replace(model, source=fitting).transformer is fitting


def test_a_run_stands_for_its_exported_model(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text('{"format": "cogview-run", "version": 1}')
    assert "has not exported a model yet" in refusal(run)
    shutil.copytree(saved, run / "model")
    assert find_model_folder(run) == run / "model"


def test_without_bundled_model_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "BUNDLED_FOLDER", tmp_path / "absent")
    with pytest.raises(CogViewError, match="no bundled model"):
        find_model_folder(None)


def test_only_an_id_that_can_be_no_path_asks_the_hub(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fake_download(repo_id: str, allow_patterns: list[str]) -> str:
        bundled = BUNDLED_FOLDER
        files = [path.relative_to(bundled).as_posix() for path in bundled.rglob("*") if path.is_file()]
        assert set(files) == set(filter_repo_objects(files, allow_patterns=allow_patterns))
        assert not list(filter_repo_objects(["model.bin", "run.py"], allow_patterns=allow_patterns))
        asked.append(repo_id)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake_download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert find_model_folder("someone/their-model") == saved
    for path in (
        "runs/mistyped",
        "./someone/model",
        "/someone/model",
        "model",
        "a/b/c",
        Path("someone/model"),
    ):
        assert "There is no model folder" in refusal(path)
    assert asked == ["someone/their-model"]


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise RuntimeError("cannot connect\nmany\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    monkeypatch.chdir(tmp_path)
    assert "cannot connect" in refusal("someone/model")


def test_an_image_tokenizer_of_rounded_weights_stays_small_and_itself(saved: Path, tmp_path: Path) -> None:
    model = load_pretrained(saved)
    model.image_tokenizer.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = load_image_tokenizer(tmp_path / "half")
    rounded = dataclasses.replace(model, image_tokenizer=half)
    save_pretrained(rounded, tmp_path / "rounded")
    sizes = [
        (folder / "image_tokenizer" / "model.safetensors").stat().st_size
        for folder in (tmp_path / "rounded", saved)
    ]
    assert sizes[0] < 0.7 * sizes[1]
    assert load_pretrained(tmp_path / "rounded").image_tokenizer.fingerprint == half.fingerprint


def test_a_model_folder_that_holds_something_else_is_not_replaced(folder: Path) -> None:
    model = load_pretrained(folder)
    (folder / "NOTES.md").write_text("mine")
    with pytest.raises(CogViewError, match=r"NOTES\.md"):
        save_pretrained(model, folder)
    assert (folder / "NOTES.md").read_text() == "mine"
    (folder / "NOTES.md").unlink()
    save_pretrained(model, folder)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("transformer", "num_layers", 2.0),
        ("transformer", "num_layers", True),
        ("transformer", "layer_norm_epsilon", "x"),
        ("transformer", "relax_alpha", float("nan")),
        ("template", "grid_rows", 4.0),
        ("vocabulary", "num_image_codes", 32.0),
    ],
)
def test_numbers_of_another_kind_are_refused(folder: Path, section: str, name: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, **{section: config[section] | {name: value}})
    assert f"no valid section '{section}'" in refusal(folder)


def test_a_config_that_asks_for_more_than_the_file_holds_is_refused_at_once(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, transformer=config["transformer"] | {"num_layers": 10**9})
    assert "1,000,000,000 layers are asked for, and there are 36 tensors" in refusal(folder)


def test_an_image_tokenizer_that_asks_for_more_than_its_file_holds_is_refused(folder: Path) -> None:
    path = folder / "image_tokenizer" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"config": content["config"] | {"num_codes": 10**9}}))
    assert "quantizer.embed is [32, 8] instead of [1000000000, 8]" in refusal(folder)
    path.write_text(json.dumps(content | {"config": content["config"] | {"decay": "x"}}))
    assert "configuration is not valid" in refusal(folder)


def test_tokenizers_that_nobody_named_may_be_absent_and_any_that_fit_are_taken(folder: Path) -> None:
    wanted = load_pretrained(folder)
    edit_config(folder, text_tokenizer=None, image_tokenizer=None)
    found = load_pretrained(folder)
    assert found.text_fingerprint == wanted.text_fingerprint
    assert found.image_fingerprint == wanted.image_fingerprint
    tiny_image_tokenizer(num_codes=16).save_pretrained(folder / "image_tokenizer")
    assert "wants 32 image codes, got 16" in refusal(folder)
    (folder / "image_tokenizer" / "config.json").unlink()
    assert "lacks image_tokenizer/config.json" in refusal(folder)
    shutil.rmtree(folder / "image_tokenizer")
    (folder / "text.model").unlink()
    bare = load_pretrained(folder)
    assert bare.text_tokenizer is bare.image_tokenizer is None
    # Written again, it is the same folder.
    save_pretrained(dataclasses.replace(bare, card=""), folder.parent / "again")
    weights, wanted_weights = (
        load_file(each / "model.safetensors") for each in (folder.parent / "again", folder)
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in wanted_weights.items())
    assert json.loads((folder.parent / "again" / "config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )
    assert "not in this folder" in (folder.parent / "again" / "README.md").read_text()
    # Not saying it is not the same as not knowing it.
    config = json.loads((folder / "config.json").read_text())
    del config["text_tokenizer"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "lacks text.model" in refusal(folder)
