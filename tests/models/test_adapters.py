"""Adapters as files: written, read again, refused where they do not belong, and drawn with."""

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cogview
from cogview.errors import CogViewError, UsageError
from cogview.generation.pipeline import Pipeline
from cogview.models.adapters import load_task_model, save_task_model
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.sequence.captioning import CaptionTemplate
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from cogview.transformer.model import Transformer
from grid_models import grid_template, grid_transformer
from tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    return tiny_model(tmp_path_factory.mktemp("text"))


@torch.no_grad()
def style(model: PretrainedModel, seed: int = 1, **changes: object) -> TaskModel:
    """Return an adapter of random weights that float16 holds exactly."""
    adapted = AdaptedTransformer(model.transformer, AdapterConfig(rank=4, trains_norms=True), seed)
    torch.manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.copy_((parameter + torch.randn_like(parameter) * 0.3).half())
    template = dataclasses.asdict(model.template)
    del template["vocabulary"]
    parts = {"task": "style", "transformer": adapted, "template": template, "licence": "CC-BY-SA-4.0"}
    return TaskModel(**{**parts, **changes})  # type: ignore[arg-type]


def fresh(model: PretrainedModel) -> PretrainedModel:
    return dataclasses.replace(model, adapters={})


def logits(transformer: Transformer) -> torch.Tensor:
    with torch.inference_mode():
        return transformer(torch.arange(20)[None], torch.arange(20)[None])


def test_what_is_saved_is_loaded(model: PretrainedModel, tmp_path: Path) -> None:
    adapter = style(model, card="# Drawn in Wiggly\n")
    save_task_model(adapter, tmp_path / "wiggly", model)
    found = load_task_model(tmp_path / "wiggly", model)
    assert torch.equal(logits(found.transformer), logits(adapter.transformer))
    assert (found.task, found.licence, found.card) == ("style", "CC-BY-SA-4.0", "# Drawn in Wiggly\n")
    assert found.template == adapter.template
    stored = load_file(tmp_path / "wiggly" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert set(stored).isdisjoint(name for name in model.transformer.state_dict() if "norm" not in name)
    save_task_model(found, tmp_path / "wiggly", model)  # replaces its own kind
    (tmp_path / "wiggly" / "notes").write_text("mine")
    with pytest.raises(CogViewError, match="is not replaced"):
        save_task_model(found, tmp_path / "wiggly", model)


def test_a_card_is_made_of_the_facts(model: PretrainedModel, tmp_path: Path) -> None:
    save_task_model(style(model), tmp_path / "wiggly", model)
    card = (tmp_path / "wiggly" / "README.md").read_text()
    assert "license: CC-BY-SA-4.0" in card
    assert "adapter for style" in card


@pytest.mark.slow
def test_a_pipeline_switches_and_keeps_its_adapters(model: PretrainedModel, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        save_task_model(style(model, seed), tmp_path / name, model)
    pipe = Pipeline(fresh(model))
    plain = pipe.generate_codes("a red cat", seed=3)
    assert list(pipe.adapters) == []
    for name in ("a", "b"):
        pipe.add_adapter(tmp_path / name, name)
    drawn = {name: pipe.generate_codes("a red cat", seed=3, adapter=name) for name in ("a", "b")}
    assert not torch.equal(drawn["a"], drawn["b"])
    assert not torch.equal(drawn["a"], plain)
    assert torch.equal(pipe.generate_codes("a red cat", seed=3), plain)
    alone = torch.cat([pipe.generate_codes("a red cat", 1, seed=3 + n, adapter="a") for n in range(4)], 1)
    assert torch.equal(alone, drawn["a"])
    picture = pipe.generate("a red cat", 1, seed=3, adapter="b")[0]
    assert torch.equal(picture.codes, drawn["b"][0, 0])

    pipe.save_pretrained(tmp_path / "model")
    again = cogview.load(tmp_path / "model")
    assert list(again.adapters) == ["a", "b"]
    assert again.adapters["a"].licence == "CC-BY-SA-4.0"
    for name, codes in drawn.items():
        assert torch.equal(again.generate_codes("a red cat", seed=3, adapter=name), codes)
    assert torch.equal(again.generate_codes("a red cat", seed=3), plain)
    # One of a name that is there takes its place.
    again.add_adapter(tmp_path / "b", "a")
    assert torch.equal(again.generate_codes("a red cat", seed=3, adapter="a"), drawn["b"])


def test_adapters_are_not_lost_by_replacing_their_model(model: PretrainedModel, tmp_path: Path) -> None:
    pipe = Pipeline(fresh(model))
    save_task_model(style(model), tmp_path / "wiggly", model)
    pipe.add_adapter(tmp_path / "wiggly", "wiggly")
    pipe.save_pretrained(tmp_path / "model")
    pipe.save_pretrained(tmp_path / "model")
    with pytest.raises(CogViewError, match=r"has adapters that this model lacks \(wiggly\)"):
        save_pretrained(fresh(model), tmp_path / "model")


def test_a_model_without_adapters_has_the_files_it_always_had(model: PretrainedModel, tmp_path: Path) -> None:
    save_pretrained(fresh(model), tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "text.model", "image_tokenizer", "README.md"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_base_is_known_however_it_is_stored_and_loaded(
    model: PretrainedModel, dtype: torch.dtype, tmp_path: Path
) -> None:
    """The weights here use all the bits of float32: exported as float16 they are still the adapter's base."""
    save_task_model(style(model), tmp_path / "wiggly", model)
    save_pretrained(fresh(model), tmp_path / "half", torch.float16)
    exported = load_pretrained(tmp_path / "half", dtype=dtype)
    assert load_task_model(tmp_path / "wiggly", exported).task == "style"
    assert exported.fingerprint == model.fingerprint


def test_saved_in_another_precision_the_adapters_go_with_what_is_written(
    model: PretrainedModel, tmp_path: Path
) -> None:
    save_task_model(style(model), tmp_path / "wiggly", model)
    pipe = Pipeline(fresh(model))
    pipe.add_adapter(tmp_path / "wiggly", "wiggly")
    pipe.save_pretrained(tmp_path / "brain", torch.bfloat16)
    assert list(cogview.load(tmp_path / "brain").adapters) == ["wiggly"]


def test_an_adapter_of_another_base_is_refused(model: PretrainedModel, tmp_path: Path) -> None:
    save_task_model(style(model), tmp_path / "wiggly", model)
    other = Transformer(model.transformer.config)
    with pytest.raises(CogViewError, match=r"trained with other weights \(\w{16}\) than those of this model"):
        Pipeline(dataclasses.replace(model, source=other, adapters={})).add_adapter(
            tmp_path / "wiggly", "wiggly"
        )


@pytest.mark.slow
def test_a_whole_transformer_can_take_the_place_of_an_adapter(model: PretrainedModel, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = Transformer(model.transformer.config).eval().half().float()
    save_task_model(style(model, transformer=whole), tmp_path / "whole", model)
    pipe = Pipeline(fresh(model))
    pipe.add_adapter(tmp_path / "whole", "whole")
    assert torch.equal(logits(pipe.adapters["whole"].transformer), logits(whole))
    expected = Pipeline(dataclasses.replace(model, source=whole)).generate_codes("a cat", seed=1)
    assert torch.equal(pipe.generate_codes("a cat", seed=1, adapter="whole"), expected)
    # So can the folder of another model.
    save_pretrained(dataclasses.replace(fresh(model), source=whole), tmp_path / "model")
    pipe.add_adapter(tmp_path / "model", "other-model")
    assert torch.equal(pipe.generate_codes("a cat", seed=1, adapter="other-model"), expected)
    pipe.save_pretrained(tmp_path / "both")
    assert list(cogview.load(tmp_path / "both").adapters) == ["other-model", "whole"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not an adapter of this project"),
        ({"version": 2}, "has version 2 and this cogview reads version 1"),
        ({"task": "juggling"}, "for an unknown task 'juggling'"),
        ({"template": 3}, "no valid sections 'template' and 'licence'"),
        ({"template": {"grid_rows": 4}}, r"wiggly.config\.json: The template for style is not valid"),
        ({"task": "captioning"}, r"wiggly.config\.json: The template for captioning is not valid"),
        (
            {"task": "super-resolution"},
            r"wiggly.config\.json: The template for super-resolution wants",
        ),
        ({"adapter": {"rank": 0}}, "no valid section 'adapter'"),
        ({"adapter": {"rank": 2}}, "are not those of its config"),
        ({"base": None}, "trained with other weights"),
    ],
    ids=str,
)
def test_damaged_configs_are_refused_in_one_line(
    model: PretrainedModel, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_task_model(style(model), tmp_path / "wiggly", model)
    path = tmp_path / "wiggly" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CogViewError, match=message) as refusal:
        load_task_model(tmp_path / "wiggly", model)
    assert "\n" not in str(refusal.value)


def test_a_whole_transformer_of_other_tokenizers_is_refused(model: PretrainedModel, tmp_path: Path) -> None:
    save_task_model(style(model, transformer=model.transformer), tmp_path / "whole", model)
    path = tmp_path / "whole" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_tokenizer": "0" * 16}))
    with pytest.raises(CogViewError, match="another image tokenizer"):
        load_task_model(tmp_path / "whole", model)


def test_damaged_tensors_are_refused(model: PretrainedModel, tmp_path: Path) -> None:
    save_task_model(style(model), tmp_path / "wiggly", model)
    path = tmp_path / "wiggly" / "model.safetensors"
    weights = load_file(path)
    weights["blocks.0.mlp.inner.up.weight"] = weights["blocks.0.mlp.inner.up.weight"][:-1].clone()
    save_file(weights, path)
    with pytest.raises(CogViewError, match=r"blocks.0.mlp.inner.up.weight"):
        load_task_model(tmp_path / "wiggly", model)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(CogViewError, match="cannot be read"):
        load_task_model(tmp_path / "wiggly", model)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("own_head.rows", (2, 31)), ("own_head.rows", (3, 32)), ("own_head.row_biases", (2, 1))],
)
def test_rows_of_an_own_head_fit_or_are_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    template = grid_template()
    base = PretrainedModel(
        source=grid_transformer(template), template=template, text_tokenizer=None, image_tokenizer=None
    )
    adapted = AdaptedTransformer(base.transformer, AdapterConfig(rank=2, token_rows=(3, 40)))
    saved = TaskModel(task="style", transformer=adapted, template=fields_of(template))
    save_task_model(saved, tmp_path / "rows", base, torch.float32)
    assert torch.equal(load_task_model(tmp_path / "rows", base).transformer.head(), adapted.head())
    path = tmp_path / "rows" / "model.safetensors"
    whole = load_file(path)
    for weights in (
        whole | {name: torch.zeros(shape)},
        {each: whole[each] for each in whole if each != name},
    ):
        save_file(weights, path)
        with pytest.raises(CogViewError, match=rf"rows.model\.safetensors .*{name}"):
            load_task_model(tmp_path / "rows", base)


def test_impossible_requests_are_refused(model: PretrainedModel, tmp_path: Path) -> None:
    template = fields_of(CaptionTemplate.of(model.template))
    save_task_model(style(model, task="captioning", template=template), tmp_path / "words", model)
    pipe = Pipeline(fresh(model))
    with pytest.raises(CogViewError, match="nowhere"):
        pipe.add_adapter(tmp_path / "nowhere", "nowhere")
    with pytest.raises(UsageError, match="adapter's name"):
        pipe.add_adapter(tmp_path / "words", "../words")
    with pytest.raises(UsageError, match=r"'none'.*: none"):
        pipe.generate("a cat", adapter="none")
    pipe.add_adapter(tmp_path / "words", "words")
    with pytest.raises(UsageError, match=r"'words' .*captioning"):
        pipe.generate("a cat", adapter="words")
    with pytest.raises(CogViewError, match="an adapter"):
        cogview.load(tmp_path / "words")


@pytest.mark.slow
def test_an_adapter_is_drawn_with_at_any_strength(model: PretrainedModel, tmp_path: Path) -> None:
    save_task_model(style(model), tmp_path / "a", model)
    weak = style(model)
    assert isinstance(weak.transformer, AdaptedTransformer)
    save_task_model(
        dataclasses.replace(weak, transformer=weak.transformer.at_strength(0.25)), tmp_path / "weak", model
    )
    pipe = Pipeline(fresh(model))
    for name in ("a", "weak"):
        pipe.add_adapter(tmp_path / name, name)

    def drawn(name: str, strength: float = 1.0) -> torch.Tensor:
        return pipe.generate_codes("a red cat", seed=3, adapter=name, adapter_strength=strength)

    whole, quarter = drawn("a"), drawn("a", 0.25)
    assert torch.equal(quarter, drawn("weak"))
    assert not torch.equal(quarter, whole)
    assert torch.equal(drawn("a"), whole)
    assert not torch.equal(drawn("a", 4), quarter)
    assert torch.equal(drawn("a", 0.25), quarter)
    picture = pipe.generate("a red cat", 1, seed=3, adapter="a", adapter_strength=0.25)[0]
    assert torch.equal(picture.codes, quarter[0, 0])
    # What is saved is the adapter as it is, and one that takes its place is not mistaken for it.
    pipe.save_pretrained(tmp_path / "model")
    assert cogview.load(tmp_path / "model").adapters["a"].transformer.adapter.alpha == 16  # type: ignore[attr-defined]
    pipe.add_adapter(tmp_path / "weak", "a")
    assert torch.equal(drawn("a"), quarter)
    assert not torch.equal(drawn("a", 0.25), quarter)


def test_a_strength_without_an_adapter_is_refused(model: PretrainedModel, tmp_path: Path) -> None:
    pipe = Pipeline(fresh(model))
    with pytest.raises(UsageError, match="there is no adapter"):
        pipe.generate("a cat", adapter_strength=0.5)
    whole = dataclasses.replace(style(model), transformer=model.transformer)
    save_task_model(whole, tmp_path / "whole", model)
    pipe.add_adapter(tmp_path / "whole", "whole")
    with pytest.raises(UsageError, match="has no strength"):
        pipe.generate("a cat", adapter="whole", adapter_strength=0.5)
    save_task_model(style(model), tmp_path / "a", model)
    pipe.add_adapter(tmp_path / "a", "a")
    with pytest.raises(UsageError, match="must be greater than 0"):
        pipe.generate("a cat", adapter="a", adapter_strength=0)


def test_a_broken_adapter_hinders_nobody_who_does_not_ask_for_it(
    model: PretrainedModel, tmp_path: Path
) -> None:
    adapters = {"broken": style(model), "whole": style(model, seed=2)}
    save_pretrained(dataclasses.replace(model, adapters=adapters), tmp_path / "model")
    weights = tmp_path / "model/adapters/broken/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    pipe = cogview.load(tmp_path / "model", device="cpu")
    assert "broken" in pipe.adapters
    assert pipe.model.parts.names_for("style") == ["broken", "whole"]
    assert pipe.generate_codes("a", num_candidates=1, adapter="whole").shape[:2] == (1, 1)
    for ask in (
        lambda: pipe.adapters["broken"],
        lambda: list(pipe.adapters),
        lambda: pipe.generate_codes("a", num_candidates=1, adapter="broken"),
        lambda: pipe.save_pretrained(tmp_path / "copy"),
    ):
        with pytest.raises(CogViewError, match=r"broken/model\.safetensors cannot be read"):
            ask()
    assert not (tmp_path / "copy").exists()
    del pipe.model.parts.adapters["broken"]
    assert list(pipe.adapters) == ["whole"]


def test_a_broken_config_of_an_adapter_is_told_when_its_model_is_loaded(
    model: PretrainedModel, tmp_path: Path
) -> None:
    save_pretrained(dataclasses.replace(model, adapters={"a": style(model)}), tmp_path / "model")
    (tmp_path / "model/adapters/a/config.json").write_text("{}")
    with pytest.raises(CogViewError, match="not an adapter"):
        cogview.load(tmp_path / "model")


def test_another_folder_beside_adapters_is_told_and_never_deleted(
    model: PretrainedModel, tmp_path: Path
) -> None:
    save_pretrained(dataclasses.replace(model, adapters={"a": style(model)}), tmp_path / "model")
    notes = tmp_path / "model/adapters/notes"
    notes.mkdir()
    (notes / "today.txt").write_text("mine")
    with pytest.warns(UserWarning, match=r"adapters/notes .*config\.json"):
        pipe = cogview.load(tmp_path / "model", device="cpu")
    assert list(pipe.adapters) == ["a"]
    with pytest.raises(CogViewError, match="not replaced"):
        pipe.save_pretrained(tmp_path / "model")
    assert (notes / "today.txt").read_text() == "mine"


def test_an_adapter_is_read_once_and_not_before_it_is_asked_for(
    model: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(
        dataclasses.replace(model, adapters={"a": style(model), "b": style(model)}), tmp_path / "model"
    )
    read: list[str] = []

    def reading(folder: Path, base: PretrainedModel) -> TaskModel:
        read.append(folder.name)
        return load_task_model(folder, base)

    monkeypatch.setattr("cogview.models.adapters.load_task_model", reading)
    pipe = cogview.load(tmp_path / "model", device="cpu")
    pipe.generate_codes("a", num_candidates=1)
    assert read == []
    with ThreadPoolExecutor(4) as threads:
        assert len({id(found) for found in threads.map(pipe.adapters.__getitem__, "aaaa")}) == 1
    assert read == ["a"]
    assert list(pipe.adapters) == ["a", "b"]
    assert read == ["a", "b"]


@pytest.mark.slow
def test_to_load_draw_and_take_up_an_adapter_no_compiler_is_imported(
    model: PretrainedModel, tmp_path: Path
) -> None:
    save_pretrained(dataclasses.replace(model, adapters={"a": style(model)}), tmp_path / "model")
    code = (
        "import sys, cogview\n"
        f"pipe = cogview.load({str(tmp_path / 'model')!r}, device='cpu')\n"
        "pipe.generate('a', num_candidates=1, adapter='a')\n"
        "print({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
