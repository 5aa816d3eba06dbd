"""A VQModel of diffusers gives what its layers, written plainly from their names, give; what is not one is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.interop.diffusers_vqmodel import convert_vqmodel
from plain_vqgan import (
    DIFFUSERS,
    OLD_DIFFUSERS,
    Plain,
    Shape,
    State,
    Style,
    images,
    plain,
    random_state,
)

AMUSED = Shape(attention_grids=(), has_middle=False, num_blocks=1, groups=16)
"""Like aMUSEd's: no attention, groups of its own."""


def config_of(shape: Shape, **changes: Any) -> dict[str, Any]:
    """Return the content of a config.json of today."""
    grids = range(len(shape.factors))
    attends = ["Attn" if grid in shape.attention_grids else "" for grid in grids]
    return {
        "_class_name": "VQModel",
        "_diffusers_version": "0.25.0",
        "act_fn": "silu",
        "in_channels": 3,
        "out_channels": 3,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "force_upcast": False,
        "block_out_channels": [shape.channels * factor for factor in shape.factors],
        "layers_per_block": shape.num_blocks,
        "down_block_types": [f"{each}DownEncoderBlock2D" for each in attends],
        "up_block_types": [f"{each}UpDecoderBlock2D" for each in reversed(attends)],
        "latent_channels": shape.inner,
        "num_vq_embeddings": shape.num_codes,
        "vq_embed_dim": None if shape.code_size == shape.inner else shape.code_size,
        "norm_num_groups": shape.groups,
        "norm_type": "group",
        "mid_block_add_attention": shape.has_middle,
        "lookup_from_codebook": False,
    } | changes


def write(folder: Path, state: State, config: dict[str, Any], kind: str = "safetensors") -> Path:
    """Write a folder as diffusers does."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / f"diffusion_pytorch_model.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    return folder


OLD = ("norm_num_groups", "norm_type", "mid_block_add_attention", "lookup_from_codebook", "scaling_factor")
"""What files of 2022 lack."""


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "shape", "changes", "kind", "flag"),
    [
        (DIFFUSERS, Shape(), {}, "safetensors", ["--pixel-range", "symmetric"]),
        (OLD_DIFFUSERS, Shape(code_size=24), dict.fromkeys(OLD), "bin", ["--pixel-range", "symmetric"]),
        (DIFFUSERS, AMUSED, {"lookup_from_codebook": True}, "safetensors", []),
        (DIFFUSERS, AMUSED, {}, "bin", ["--pixel-range", "unit"]),
    ],
    ids=["new", "before 0.17", "aMUSEd", "asked"],
)
def test_codes_and_pixels_are_those_of_the_plain_layers(
    tmp_path: Path, style: Style, shape: Shape, changes: dict[str, Any], kind: str, flag: list[str]
) -> None:
    made = plain(style, shape)
    config = {name: value for name, value in config_of(shape, **changes).items() if value is not None}
    source = write(tmp_path / "vqvae", made.state, config, kind)
    assert main(["convert", str(source), str(tmp_path / "tokenizer"), *flag]) == 0
    tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
    is_unit = flag != ["--pixel-range", "symmetric"]
    codes = tokenizer.encode(images())
    assert torch.equal(codes, made.codes((images() + 1) / 2 if is_unit else images()))
    assert len(codes.unique()) > 5
    pixels = made.decoded(codes)
    expected = pixels.clamp(0, 1) * 2 - 1 if is_unit else pixels.clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(codes), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_the_whole_file_is_read_beside_that_in_half_precision_and_the_file_may_be_named(
    tmp_path: Path,
) -> None:
    shape = Shape(factors=(1, 1), attention_grids=(), num_blocks=1)
    made = plain(DIFFUSERS, shape)
    folder = write(tmp_path / "vqvae", made.state, config_of(shape))
    half = {name: each.half() for name, each in made.state.items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    torch.save(half, folder / "diffusion_pytorch_model.bin")
    codes = []
    for name in (".", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        words = ["convert", str(folder / name), str(tmp_path / "tokenizer"), "--pixel-range", "symmetric"]
        assert main(words) == 0
        tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
        codes.append(tokenizer.encode(images(8, 8)))
        stored = (tmp_path / "tokenizer" / "model.safetensors").stat().st_size
        assert (stored < (folder / "diffusion_pytorch_model.safetensors").stat().st_size * 0.6) == (
            "fp16" in name
        )
    rounded = Plain(state={name: each.float() for name, each in half.items()}, style=DIFFUSERS, shape=shape)
    assert torch.equal(codes[0], made.codes(images(8, 8)))
    assert torch.equal(codes[1], codes[0])
    assert torch.equal(codes[2], rounded.codes(images(8, 8)))


SMALL = Shape(factors=(1, 2), attention_grids=(1,), num_blocks=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_type": "spatial"}, "norm_type 'spatial', and only 'group'"),
        ({"act_fn": "relu"}, "act_fn 'relu'"),
        ({"in_channels": 1}, "in_channels '1'"),
        ({"time_embedding": True}, "unknown field time_embedding"),
        ({"norm_num_groups": "many"}, "norm_num_groups many"),
        ({"norm_num_groups": 48}, "multiples of norm_groups 48"),
        ({"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]}, "up_block_types"),
        ({"block_out_channels": [32, 32]}, r"block_out_channels \[32, 32\], and the weights have \[32, 64\]"),
        ({"layers_per_block": 2}, "layers_per_block 2"),
        ({"num_vq_embeddings": 41}, "num_vq_embeddings 41"),
        ({"vq_embed_dim": None}, "vq_embed_dim 24, and the weights have 12"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention False"),
    ],
)
def test_a_config_that_is_unsupported_or_of_other_weights_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    state = random_state(DIFFUSERS, SMALL)
    with pytest.raises(CogViewError, match=f"VQModel of diffusers: .*{said}") as caught:
        convert_vqmodel(state, config_of(SMALL, **changes), "symmetric")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("decoder.up_blocks.0.upsamplers.0.conv.bias", None, "missing decoder.up_blocks.0.upsamplers.0.conv"),
        ("encoder.mid_block.attentions.0.to_q.weight", torch.ones(64, 63), r"to_q.weight is \[64, 63\]"),
        ("decoder.mid_block.norm.weight", torch.ones(1), "unexpected decoder.mid_block.norm.weight"),
        ("post_quant_conv.bias", torch.full((24,), torch.nan), "post_quant_conv.bias .*NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name: str, tensor: torch.Tensor | None, said: str) -> None:
    state = random_state(DIFFUSERS, SMALL)
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    with pytest.raises(CogViewError, match=f"VQModel of diffusers: .*{said}") as caught:
        convert_vqmodel(state, config_of(SMALL), "symmetric")
    assert "\n" not in str(caught.value)


def test_the_range_of_pixels_is_asked_for_where_it_cannot_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = random_state(DIFFUSERS, SMALL)
    source = write(tmp_path / "vqvae", state, config_of(SMALL))
    assert main(["convert", str(source), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--pixel-range symmetric" in said
    assert said.count("\n") == 1
    (source / "config.json").unlink()
    assert main(["convert", str(source), str(tmp_path / "out"), "--pixel-range", "unit"]) == 1
    assert "without its config.json" in capsys.readouterr().err
    torch.save(random_state(replace(DIFFUSERS, down="encoder.blocks.{}"), SMALL), tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "out")]) == 1
    assert "unknown layout" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
