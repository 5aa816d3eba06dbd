"""A checkpoint of the released layout gives the logits that the release's computation, written plainly, gives."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.interop.checkpoint_file import read_state_dict
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import GridConfig
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import regions_for
from released import (
    HIDDEN,
    LAYERS,
    POSITIONS,
    ROWS,
    State,
    released_logits,
    released_state,
    share_of,
    text_model_of_50_000_pieces,
    write_released,
)
from tiny import tiny_image_tokenizer, tiny_model, tiny_pipeline_folder

ITERATION = "142000"
FIRST = f"{ITERATION}/mp_rank_00_model_states.pt"
SECOND = f"{ITERATION}/mp_rank_01_model_states.pt"


@pytest.fixture(scope="module")
def state() -> State:
    return released_state()


@pytest.fixture(scope="module")
def small_state() -> State:
    """Of one layer of 64 channels, where the weights do not matter."""
    return released_state(hidden=64, layers=1)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model_of_50_000_pieces(tmp_path_factory.mktemp("text") / "cog-pretrain.model")


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 58_219, (2, 24), generator=generator)
    return tokens, torch.arange(24).expand(2, -1) * 45


@pytest.mark.parametrize("num_ranks", [1, 2])
@torch.no_grad()
@pytest.mark.slow
def test_logits_are_those_of_the_plain_computation(tmp_path: Path, state: State, num_ranks: int) -> None:
    source = write_released(state, tmp_path / "source", num_ranks)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    transformer = cogview.load(tmp_path / "ours").transformer
    logits = transformer(*sequences())
    wanted = released_logits(state, *sequences())
    assert wanted.std() > 0.1, "logits that are all alike would prove nothing"
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    # What the release is told apart by shows at this tolerance.
    for norm in transformer.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            norm.scope = "none"
    assert (transformer(*sequences()) - wanted).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.slow
def test_four_ranks_of_four_heads(tmp_path: Path) -> None:
    state = released_state(hidden=256, layers=1)
    source = write_released(state, tmp_path / "source", num_ranks=4)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    model = cogview.load(tmp_path / "ours")
    assert model.transformer.config.num_heads == 4
    wanted = released_logits(state, *sequences(), heads=4)
    torch.testing.assert_close(model.transformer(*sequences()), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flags", [[], ["--num-heads", "8"]])
@pytest.mark.slow
def test_shape_and_stabilisers_are_those_of_the_release(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    source = write_released(state, tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "ours"), "--json", *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    transformer = config["transformer"]
    assert transformer["num_layers"] == said["num_layers"] == LAYERS
    assert transformer["hidden_size"] == HIDDEN
    assert transformer["num_heads"] == said["num_heads"] == (8 if flags else HIDDEN // 64)
    assert (transformer["vocabulary_size"], transformer["num_positions"]) == (ROWS, POSITIONS)
    assert transformer["layer_norm"] == "sandwich"
    assert transformer["norm_scope"] == "tensor"
    assert transformer["layer_norm_epsilon"] == 1e-5
    assert Vocabulary(**config["vocabulary"]) == Vocabulary(num_image_codes=8192, num_text_pieces=50_000)
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert said["num_parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert load_pretrained(tmp_path / "ours", dtype=torch.float16).rounded_to is None


@pytest.mark.parametrize("path", ["", ITERATION, FIRST])
@pytest.mark.parametrize("pointer", ["latest", "latest_checkpointed_iteration.txt"])
@pytest.mark.slow
def test_folder_iteration_and_file_are_recognised(
    tmp_path: Path, small_state: State, path: str, pointer: str
) -> None:
    source = write_released(small_state, tmp_path / "source", pointer=pointer)
    assert main(["convert", str(source / path), str(tmp_path / "ours")]) == 0
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(weights["embedding.tokens.weight"], small_state["word_embeddings.weight"])


def test_the_state_of_a_training_beside_the_weights_is_left_out(tmp_path: Path, small_state: State) -> None:
    content = {
        "module": {f"module.{name}": tensor for name, tensor in small_state.items()},
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "csr_tensor_module_names": set(),
    }
    torch.save(content, tmp_path / "trained.pt")
    assert read_state_dict(tmp_path / "trained.pt").keys() == small_state.keys()


def test_padding_of_the_vocabulary_for_several_ranks_is_dropped(tmp_path: Path, state: State) -> None:
    table = state["word_embeddings.weight"]
    padded = state | {
        "word_embeddings.weight": torch.cat([table, torch.ones(128, HIDDEN, dtype=table.dtype)])
    }
    source = write_released(padded, tmp_path / "source", num_ranks=2)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert torch.equal(load_file(tmp_path / "ours" / "model.safetensors")["embedding.tokens.weight"], table)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.slow
def test_the_way_to_ours_and_back_is_exact(tmp_path: Path, state: State, num_ranks: int) -> None:
    source = write_released(state, tmp_path / "source", num_ranks)
    back, again = tmp_path / "back", tmp_path / "again"
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    flags = ["--to", "released", "--num-ranks", str(num_ranks)]
    assert main(["convert", str(tmp_path / "ours"), str(back), *flags]) == 0
    for rank in range(num_ranks):
        found = read_state_dict(back / "release" / f"mp_rank_{rank:02d}_model_states.pt")
        wanted = share_of(state, num_ranks, rank)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
        # Nothing but the share is in the file.
        size = (back / "release" / f"mp_rank_{rank:02d}_model_states.pt").stat().st_size
        assert size < 1.01 * sum(tensor.nbytes for tensor in wanted.values()) + 50_000
    assert main(["convert", str(back), str(again)]) == 0
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()


def test_a_model_of_ours_goes_to_the_release_and_what_is_lost_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = tiny_model(tmp_path), tmp_path / "ours"
    regions = regions_for(model.template, model.transformer.config.three_region)
    config = dataclasses.replace(
        model.transformer.config, attention_pattern="three_region", three_region=regions
    )
    save_pretrained(dataclasses.replace(model, source=Transformer(config)), folder)
    assert main(["convert", str(folder), str(tmp_path / "released"), "--to", "released"]) == 0
    said = capsys.readouterr().out
    for words in ("rounded to float16", "norm scope token", "number of heads, 2", "its attention is sparse"):
        assert words in said
    found = read_state_dict(tmp_path / "released" / "release" / "mp_rank_00_model_states.pt")
    wanted = load_file(folder / "model.safetensors")
    assert len(found) == len(wanted)
    name, ours = "transformer.layers.1.fourth_layernorm.bias", "blocks.1.mlp_output_norm.bias"
    assert torch.equal(found[name], wanted[ours].half())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"qk_norm": True}, "the gains of qk_norm"),
        ({"head": "own"}, "a head of its own"),
        (
            {
                "position_table": "rows_and_columns",
                "grid": GridConfig(num_rows=4, num_columns=4, first_place=2, first_position=2),
            },
            "positions by rows and columns",
        ),
    ],
)
def test_what_the_release_does_not_have_has_no_place_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], said: str
) -> None:
    model = tiny_model(tmp_path)
    config = dataclasses.replace(model.transformer.config, **fields)
    save_pretrained(dataclasses.replace(model, source=Transformer(config)), tmp_path / "ours")
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "out"), "--to", "released"]) == 2
    assert f"no place for {said}, which {tmp_path / 'ours'} has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights["final_norm.bias"].fill_(1e6), "too large for float16"),
        (lambda weights: weights["final_norm.bias"].fill_(torch.nan), "too large for float16"),
    ],
)
def test_weights_that_float16_does_not_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[State], object], said: str
) -> None:
    from safetensors.torch import save_file

    folder = tiny_pipeline_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", "released"]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def draw_smaller_pictures(folder: Path) -> None:
    """Make a converted model draw 12 codes and not 1,024, which take their time."""
    config = json.loads((folder / "config.json").read_text())
    config["template"] |= {"grid_rows": 3, "grid_columns": 4}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_without_tokenizers_there_is_the_transformer_and_one_line_for_the_rest(
    tmp_path: Path, small_state: State, text_model: Path
) -> None:
    source = write_released(small_state, tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    model = cogview.load(tmp_path / "ours")
    assert model.transformer.config.num_layers == 1
    with pytest.raises(CogViewError, match="image tokenizer") as caught:
        model.generate("a cat")
    assert "\n" not in str(caught.value)
    with pytest.raises(CogViewError, match=r"text\.model.*--text-tokenizer") as caught:
        model.generate_codes("a cat")
    assert "\n" not in str(caught.value)
    # What is put beside it later is taken.
    shutil.copy(text_model, tmp_path / "ours" / "text.model")
    draw_smaller_pictures(tmp_path / "ours")
    codes = cogview.load(tmp_path / "ours").generate_codes("a cat", num_candidates=2)
    assert codes.shape == (1, 2, 3, 4)
    assert 100 < codes.max() < 8192
    assert not torch.equal(codes[0, 0], codes[0, 1])


@pytest.mark.slow
def test_tokenizers_are_put_beside_it(tmp_path: Path, small_state: State, text_model: Path) -> None:
    source = write_released(small_state, tmp_path / "source")
    pictures = tiny_image_tokenizer(num_codes=8192)
    pictures.save_pretrained(tmp_path / "pictures")
    flags = ["--text-tokenizer", str(text_model), "--image-tokenizer", str(tmp_path / "pictures")]
    assert main(["convert", str(source), str(tmp_path / "ours"), *flags]) == 0
    draw_smaller_pictures(tmp_path / "ours")
    model = cogview.load(tmp_path / "ours")
    assert model.image_tokenizer.fingerprint == pictures.fingerprint
    assert model.text_tokenizer.num_pieces == 50_000
    (drawn,) = model.generate("a cat", num_candidates=1)
    assert drawn.image.size == (16, 12)
    assert torch.equal(drawn.codes, model.generate_codes("a cat", num_candidates=1)[0, 0])
    # From now on no other will do.
    (tmp_path / "ours" / "text.model").unlink()
    with pytest.raises(CogViewError, match=r"lacks text\.model"):
        cogview.load(tmp_path / "ours")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("touched-by-a-pickle"),))


def resave(path: Path, change: Callable[[State], object]) -> None:
    state = {name: tensor.clone() for name, tensor in read_state_dict(path).items()}
    change(state)
    path.unlink()
    torch.save({"module": state}, path)


def changed(name: str, tensor: torch.Tensor | None, file: str = FIRST) -> Callable[[Path], None]:
    def change(state: State) -> None:
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor

    return lambda folder: resave(folder / file, change)


def many_layers(folder: Path) -> None:
    resave(
        folder / FIRST,
        lambda state: state.update({f"transformer.layers.{n}.x": torch.ones(1) for n in range(1, 1001)}),
    )


NORM = "transformer.layers.0.third_layernorm.bias"


@pytest.mark.parametrize(
    ("num_ranks", "spoil", "said"),
    [
        (
            1,
            lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-5000]),
            "FIRST: the file is cut",
        ),
        (1, lambda folder: (folder / FIRST).write_bytes(b""), "FIRST: no file of PyTorch"),
        (1, lambda folder: torch.save({"module": Bomb()}, folder / FIRST), "it asks for"),
        (1, lambda folder: torch.save({"module": {}}, folder / FIRST), "FIRST: holds no tensors"),
        (1, lambda folder: (folder / FIRST).unlink(), "no checkpoint that is known"),
        (1, lambda folder: (folder / "latest").write_text("../142000"), "folder '../142000'"),
        (1, lambda folder: (folder / "latest").write_text("7"), "folder '7'"),
        (1, lambda folder: (folder / "latest").write_bytes(b"\xff\x00\n1"), "not beside it"),
        (1, lambda folder: (folder / "latest").write_text(""), "folder ''"),
        (1, lambda folder: (folder / "latest").write_text(".."), "folder '..'"),
        (1, lambda folder: (folder / "latest").write_text("x" * 400), "folder 'xxx"),
        (2, lambda folder: (folder / FIRST).unlink(), "mp_rank_00_model_states.pt .*2 ranks"),
        (2, lambda folder: (folder / SECOND).unlink(), "FIRST .*2 ranks.* 1 "),
        (1, changed("transformer.stranger", torch.ones(1)), r"stranger is \[1\], wanted missing"),
        (1, many_layers, r"has 1,0\d\d tensors for 1,001 layers"),
        (1, changed(NORM, None), r"third_layernorm.bias is missing, wanted \[64\]"),
        (1, changed(NORM, torch.ones(32).half()), r"third_layernorm.bias is \[32\], wanted \[64\]"),
        (1, changed(NORM, torch.full([64], torch.nan).half()), "third_layernorm.bias .*infinite or NaN"),
        (1, changed(NORM, torch.ones(64).int()), "is int32"),
        (1, changed(NORM, torch.ones(64).half().to_sparse()), "sparse_coo, on cpu"),
        (1, changed(NORM, torch.ones(64, device="meta").half()), "on meta"),
        (2, changed(NORM, torch.full([64], torch.inf).half(), SECOND), "SECOND: .* infinite or NaN"),
        (2, changed(NORM, torch.ones(64).half(), SECOND), "SECOND .*third_.* differs"),
        (2, changed(NORM, torch.ones(32).half(), SECOND), r"SECOND .*bias is \[32\]"),
        (2, changed("more", torch.ones(32).half(), SECOND), r"SECOND .*more is \[32\]"),
        (1, changed("word_embeddings.weight", torch.ones(100, 64).half()), r"is \[100, 64\], wanted"),
        (1, changed("word_embeddings.weight", torch.tensor(1.0)), r"is \[\], wanted"),
        (1, changed("transformer.position_embeddings.weight", torch.ones(32, 64).half()), "1088 positions"),
        (1, changed("word_embeddings.weight", None), "lacks word_embeddings.weight"),
        (1, changed("transformer.final_layernorm.weight", None), "lacks transformer.final_layernorm.weight"),
        (
            1,
            changed("transformer.final_layernorm.weight", torch.tensor(1.0)),
            "lacks transformer.final_layer",
        ),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_converted_is_one_line_and_writes_nothing(
    tmp_path: Path,
    small_state: State,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    num_ranks: int,
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_released(small_state, tmp_path / "source", num_ranks)
    spoil(source)
    assert main(["convert", str(source), str(tmp_path / "out")]) == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    said = said.replace("FIRST", FIRST).replace("SECOND", SECOND)
    assert complaint.startswith("cogview: error: ")
    assert re.search(said, complaint), complaint
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-heads", "5"], "--num-heads"),
        (["--num-ranks", "2"], "--num-ranks"),
        (["--to", "released", "--num-heads", "2"], "--num-heads"),
    ],
)
def test_flags_that_cannot_be_are_a_usage_error(
    tmp_path: Path, small_state: State, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    source = write_released(small_state, tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_width_that_no_head_of_64_divides_asks_for_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_released(released_state(hidden=96, layers=1), tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "out")]) == 2
    assert "--num-heads" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "out"), "--num-heads", "3"]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-ranks", "3"], "3 ranks"),
        (["--num-ranks", "0"], "0 ranks"),
    ],
)
def test_a_model_that_cannot_be_cut_so_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    folder = tiny_pipeline_folder(tmp_path)
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", "released", *flags]) == 2
    assert said in capsys.readouterr().err
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 2
    assert "--to released" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["convert", str(folder), str(folder), "--to", "released"]) == 2
    assert "empty folder" in capsys.readouterr().err
