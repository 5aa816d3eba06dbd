"""A VQGAN of each layout gives what its layers, written plainly from their names, give."""

import argparse
import json
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.image.config import VQGANConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.tokenizer_layouts import convert_image_tokenizer
from cogview.interop.weights import ConvertedTokenizer
from plain_vqgan import (
    GUMBEL,
    JANUS_OF_TRANSFORMERS,
    LLAMAGEN,
    TAMING,
    Plain,
    Shape,
    State,
    Style,
    images,
    plain,
    random_state,
    state_of,
)


def in_lightning(state: State, folder: Path) -> Path:
    """Write a checkpoint of a trainer, with its losses' networks."""
    extras = {
        "loss.discriminator.main.0.weight": torch.ones(3),
        "loss.bn.num_batches_tracked": torch.tensor(3),
    }
    torch.save({"state_dict": state | extras, "epoch": 7}, folder / "last.ckpt")
    return folder / "last.ckpt"


def in_llamagen(state: State, folder: Path) -> Path:
    """Write a file to go on training with."""
    content = {
        "model": state | {"quantize.codebook_used": torch.zeros(65_536)},
        "ema": {name: torch.zeros_like(each) for name, each in state.items()},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
        "discriminator": {"conv.weight": torch.ones(2)},
        "steps": 3,
        "args": argparse.Namespace(rate=1e-3, folder=Path("out")),
    }
    torch.save(content, folder / "vq_ds16_c2i_training.pt")
    return folder / "vq_ds16_c2i_training.pt"


def in_flat_folder(state: State, folder: Path) -> Path:
    """Write LlamaGen's folder on the hub."""
    (folder / "vq").mkdir()
    (folder / "vq" / "config.json").write_text('{"codebook_size": 40}')
    save_file(state | {"quantize.codebook_used": torch.zeros(64)}, folder / "vq" / "model.safetensors")
    return folder / "vq"


def others() -> State:
    """Return weights of a larger model, some of which are no floats."""
    return {
        "language_model.model.embed_tokens.weight": torch.ones(9, 4),
        "gen_embed.weight": torch.ones(4, 4),
        "vision_model.position_ids": torch.arange(5),
        "vision_model.mask": torch.tensor([True]),
    }


def in_shards(prefix: str, kind: str, model_type: str) -> Callable[[State, Path], Path]:
    """Write a larger model as several files and an index."""

    def write(state: State, folder: Path) -> Path:
        path = folder / "janus"
        path.mkdir()
        whole = {prefix + name: each for name, each in state.items()} | others()
        files: dict[str, State] = {}
        weight_map = {}
        for number, (name, each) in enumerate(whole.items()):
            file = f"model-{1 + number % 2:05}-of-00002.{kind}"
            files.setdefault(file, {})[name] = each
            weight_map[name] = file
        for file, part in files.items():
            save_file(part, path / file) if kind == "safetensors" else torch.save(part, path / file)
        index = {"metadata": {"total_size": 9}, "weight_map": weight_map}
        (path / f"model.{kind}.index.json").write_text(json.dumps(index))
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
        return path

    return write


def in_one_file(prefix: str) -> Callable[[State, Path], Path]:
    """Write a larger model as one file."""

    def write(state: State, folder: Path) -> Path:
        whole = {prefix + name: each for name, each in state.items()} | others()
        save_file(whole, folder / "model.safetensors")
        return folder / "model.safetensors"

    return write


def alone(state: State, folder: Path) -> Path:
    """Write the tokenizer alone."""
    torch.save(state, folder / "a.pt")
    return folder / "a.pt"


CASES = (
    ("a VQGAN of taming-transformers", TAMING, in_lightning),
    ("a Gumbel VQGAN", GUMBEL, in_lightning),
    ("LlamaGen", LLAMAGEN, in_llamagen),
    ("LlamaGen", LLAMAGEN, in_flat_folder),
    ("tokenizer of Janus\n", LLAMAGEN, in_shards("gen_vision_model.", "bin", "multi_modality")),
    ("package transformers", JANUS_OF_TRANSFORMERS, in_shards("model.vqmodel.", "safetensors", "janus")),
    ("package transformers", JANUS_OF_TRANSFORMERS, in_one_file("vqmodel.")),
    ("package transformers", JANUS_OF_TRANSFORMERS, alone),
)
"""What the command says, the words of the layout, and how a project writes it."""


def converted(source: Path, out: Path) -> ImageTokenizer:
    """Convert by the command, and load."""
    assert main(["convert", str(source), str(out)]) == 0
    return cogview.load_image_tokenizer(out)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("said", "style", "write"), CASES)
def test_codes_and_pixels_are_those_of_the_plain_layers(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    said: str,
    style: Style,
    write: Callable[[State, Path], Path],
) -> None:
    made = plain(style)
    tokenizer = converted(write(made.state, tmp_path), tmp_path / "tokenizer")
    assert said in capsys.readouterr().out
    assert (tokenizer.num_codes, tokenizer.downsampling_factor) == (40, 4)
    codes = tokenizer.encode(images())
    assert torch.equal(codes, made.codes(images()))
    assert len(codes.unique()) > 5, "codes that are all alike would prove nothing"
    expected = made.decoded(codes).clamp(-1, 1)
    assert (expected.abs() < 1).float().mean() > 0.5
    torch.testing.assert_close(tokenizer.decode(codes), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_gumbel_codes_are_not_the_nearest() -> None:
    made = plain(GUMBEL)
    assert (made.codes(images()) != made.nearest(images())).float().mean() > 0.5


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("shape", [Shape(has_middle=False), Shape(attention_grids=(0, 2), num_blocks=1)])
def test_attention_is_where_the_weights_are(tmp_path: Path, shape: Shape) -> None:
    made = plain(TAMING, shape)
    torch.save(made.state, tmp_path / "a.ckpt")
    tokenizer = converted(tmp_path / "a.ckpt", tmp_path / "tokenizer")
    codes = tokenizer.encode(images(8, 12))
    assert torch.equal(codes, made.nearest(images(8, 12)))
    expected = made.decoded(codes).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(codes), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_stay_half_or_become_single(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in plain(TAMING).state.items()}
    torch.save(state, tmp_path / "a.ckpt")
    tokenizer = converted(tmp_path / "a.ckpt", tmp_path / "tokenizer")
    size = sum(tensor.numel() for tensor in state.values()) * (2 if dtype == torch.float16 else 4)
    written = (tmp_path / "tokenizer" / "model.safetensors").stat().st_size
    assert size < written < 1.1 * size
    rounded = {name: tensor.float() for name, tensor in state.items()}
    made = Plain(state=rounded, style=TAMING, shape=Shape())
    assert torch.equal(tokenizer.encode(images(8, 12)), made.nearest(images(8, 12)))


IMPORTED: list[str] = []


@pytest.mark.slow
def test_what_lightning_leaves_in_a_file_is_neither_imported_nor_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published checkpoints name the class of a callback, and its state has paths and numbers."""
    names = (
        "pytorch_lightning",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.callbacks.model_checkpoint",
    )
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class ModelCheckpoint:
        def __init__(self) -> None:
            IMPORTED.append("called")
            self.folder = Path("logs")

        def __setstate__(self, state: object) -> None:
            IMPORTED.append("set")

        @staticmethod
        def rebuilt() -> None:
            IMPORTED.append("rebuilt")

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = names[-1], "ModelCheckpoint"
    sys.modules[names[-1]].ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    state = plain(TAMING).state
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": OrderedDict(state),
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(1.0), "best_model_path": Path("a")}},
        "kept": ModelCheckpoint(),
        "hyper_parameters": argparse.Namespace(rate=1e-3),
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}}],
    }
    torch.save(content, tmp_path / "last.ckpt")
    IMPORTED.clear()

    class Refusing:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("pytorch_lightning"):
                IMPORTED.append(name)

    for name in names:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    tokenizer = converted(tmp_path / "last.ckpt", tmp_path / "tokenizer")
    assert tokenizer.num_codes == 40
    assert not IMPORTED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "factors", "code_size", "num_codes"),
    [
        (TAMING, (1, 1, 2, 2, 4), 256, 16_384),
        (GUMBEL, (1, 1, 2, 4), 256, 8192),
        (LLAMAGEN, (1, 2, 2, 4), 8, 16_384),
    ],
)
def test_the_published_shapes_are_read_whole(
    style: Style, factors: tuple[int, ...], code_size: int, num_codes: int
) -> None:
    def empty(*shape: int) -> torch.Tensor:
        return torch.zeros(1).expand(shape)

    grids = (len(factors) - 1,)
    shape = Shape(
        channels=128,
        factors=factors,
        attention_grids=grids,
        inner=256,
        code_size=code_size,
        num_codes=num_codes,
    )
    tokenizer = convert(state_of(style, shape, empty))
    wanted = VQGANConfig(
        channel_factors=factors, attention_grids=grids, num_codes=num_codes, code_size=code_size
    )
    assert vars(tokenizer.config) | {"codebook": ""} == vars(wanted) | {"codebook": ""}


def convert(state: State) -> ConvertedTokenizer:
    found = convert_image_tokenizer(state)
    assert found is not None
    return found


def without(name: str) -> Callable[[State], object]:
    return lambda state: state.pop(name)


def changed(name: str, tensor: torch.Tensor) -> Callable[[State], object]:
    return lambda state: state.update({name: tensor})


SPOILT: dict[tuple[str, Style], list[tuple[Callable[[State], object], str]]] = {
    ("VQGAN of taming-transformers", TAMING): [
        (without("encoder.conv_out.weight"), "encoder.conv_out.weight is missing"),
        (changed("encoder.conv_in.weight", torch.tensor(1.0)), r"conv_in.weight is \(\), wanted 4"),
        (changed("quantize.embedding.weight", torch.zeros(3)), "weight is .*, wanted 2"),
        (without("decoder.up.1.block.0.conv2.bias"), "missing decoder.up.1.block.0.conv2.bias"),
        (changed("decoder.mid.gate.weight", torch.zeros(1)), "unexpected decoder.mid.gate.weight"),
        (changed("quant_conv.bias", torch.full((12,), torch.inf)), "quant_conv.bias .*infinite"),
        (changed("quant_conv.bias", torch.zeros(12).to_sparse()), "quant_conv.bias is .*sparse"),
        (changed("encoder.down.1.block.0.conv1.weight", torch.zeros(33, 32, 3, 3)), "multiples of 32"),
    ],
    ("Gumbel", GUMBEL): [
        (without("quantize.proj.bias"), "missing quantize.proj.bias"),
        (changed("quantize.proj.weight", torch.zeros(40, 13, 1, 1)), "proj.weight is .* instead of"),
    ],
    ("LlamaGen", LLAMAGEN): [
        (without("decoder.conv_blocks.0.upsample.conv.weight"), "missing decoder.conv_blocks.0.upsample"),
        (changed("encoder.mid.3.norm1.bias", torch.zeros(64)), "unexpected encoder.mid.3.norm1.bias"),
        (changed("quantize.embedding.weight", torch.full((40, 12), torch.nan)), "embedding.weight .*NaN"),
    ],
    ("transformers", JANUS_OF_TRANSFORMERS): [
        (without("decoder.up.2.block.2.conv1.weight"), "missing decoder.up.2.block.2.conv1.weight"),
        (changed("decoder.up.2.block.2.conv1.bias", torch.zeros(5)), r"conv1.bias is \[5\] instead"),
    ],
}


@pytest.mark.parametrize(
    ("layout", "style", "spoil", "said"),
    [(*layout, *each) for layout, spoilt in SPOILT.items() for each in spoilt],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_layout(
    layout: str, style: Style, spoil: Callable[[State], object], said: str
) -> None:
    state = random_state(style, Shape())
    spoil(state)
    with pytest.raises(CogViewError, match=f"{layout}.*: .*{said}") as caught:
        convert(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: next(folder.glob("*-00001-*")).unlink(), "model-00001-of-00002.safetensors: no such"),
        (
            lambda folder: save_file({"a": torch.ones(1)}, next(folder.glob("*-00002-*"))),
            "lacks model.vqmodel",
        ),
        (lambda folder: rewrite_index(folder, "../model.safetensors"), "weight_map of files beside it"),
        (lambda folder: rewrite_index(folder, 3), "weight_map of files beside it"),
        (lambda folder: next(folder.glob("*.index.json")).write_text("{"), "index.json"),
        (lambda folder: next(folder.glob("*.index.json")).unlink(), "several files of weights, model-00001"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], said: str
) -> None:
    state = random_state(JANUS_OF_TRANSFORMERS, Shape(factors=(1, 1), attention_grids=()))
    folder = in_shards("model.vqmodel.", "safetensors", "janus")(state, tmp_path)
    spoil(folder)
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 1
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()


def rewrite_index(folder: Path, place: object) -> None:
    """Let an index name something as the file of a tensor."""
    (path,) = folder.glob("*.index.json")
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = place
    path.write_text(json.dumps(index))
