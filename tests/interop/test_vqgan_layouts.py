"""A VQGAN of each layout gives what its layers, written plainly from their names, give."""

import argparse
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_vqgan import GUMBEL, TAMING, Plain, Shape, State, Style, images, plain, state_of

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.image.config import VQGANConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.interop.tokenizer_layouts import convert_image_tokenizer
from cogview.interop.weights import ConvertedTokenizer

CASES = {"taming": TAMING, "Gumbel": GUMBEL}


def wrapped(case: str, state: State) -> dict[str, object]:
    """Return the content of a file of a project."""
    extras = {
        "loss.discriminator.main.0.weight": torch.ones(3),
        "loss.bn.num_batches_tracked": torch.tensor(3),
    }
    return {"state_dict": state | extras, "epoch": 7}


def expected_codes(case: str, made: Plain) -> torch.Tensor:
    """Return the codes of the pictures by the facts of a layout."""
    vectors = made.encoded(images())
    if case == "taming":
        return made.nearest(images())
    weight, bias = (made.state[f"quantize.proj.{kind}"] for kind in ("weight", "bias"))
    logits = torch.einsum("bdrs,vd->brsv", vectors.double(), weight.flatten(1).double()) + bias
    return logits.argmax(3)


def expected_pixels(case: str, made: Plain, codes: torch.Tensor) -> torch.Tensor:
    """Return the pixels of codes by the facts of a layout."""
    return made.decoded(made.state[made.style.codebook][codes]).clamp(-1, 1)


def converted(source: Path, out: Path) -> ImageTokenizer:
    """Convert by the command, and load."""
    assert main(["convert", str(source), str(out)]) == 0
    return cogview.load_image_tokenizer(out)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_codes_and_pixels_are_those_of_the_plain_layers(tmp_path: Path, case: str) -> None:
    made = plain(CASES[case])
    torch.save(wrapped(case, made.state), tmp_path / "last.ckpt")
    tokenizer = converted(tmp_path / "last.ckpt", tmp_path / "tokenizer")
    assert (tokenizer.num_codes, tokenizer.downsampling_factor) == (40, 4)
    codes = tokenizer.encode(images())
    assert torch.equal(codes, expected_codes(case, made))
    assert len(codes.unique()) > 5, "codes that are all alike would prove nothing"
    expected = expected_pixels(case, made, codes)
    torch.testing.assert_close(tokenizer.decode(codes), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_gumbel_codes_are_not_the_nearest() -> None:
    made = plain(GUMBEL)
    assert (expected_codes("Gumbel", made) != made.nearest(images())).float().mean() > 0.5


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("shape", [Shape(has_middle=False), Shape(attention_grids=(0, 2), num_blocks=1)])
def test_attention_is_where_the_weights_are(tmp_path: Path, shape: Shape) -> None:
    made = plain(TAMING, shape)
    torch.save(made.state, tmp_path / "a.ckpt")
    tokenizer = converted(tmp_path / "a.ckpt", tmp_path / "tokenizer")
    codes = tokenizer.encode(images(8, 12))
    assert torch.equal(codes, made.nearest(images(8, 12)))
    expected = expected_pixels("taming", made, codes)
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
    [(TAMING, (1, 1, 2, 2, 4), 256, 16_384), (GUMBEL, (1, 1, 2, 4), 256, 8192)],
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


@pytest.mark.parametrize(
    ("case", "spoil", "said"),
    [
        ("taming", without("encoder.conv_out.weight"), "encoder.conv_out.weight is missing"),
        ("taming", changed("encoder.conv_in.weight", torch.tensor(1.0)), r"conv_in.weight is \(\), wanted 4"),
        ("taming", changed("quantize.embedding.weight", torch.zeros(3)), "weight is .*, wanted 2"),
        ("taming", without("decoder.up.1.block.0.conv2.bias"), "missing decoder.up.1.block.0.conv2.bias"),
        ("taming", changed("decoder.mid.gate.weight", torch.zeros(1)), "unexpected decoder.mid.gate.weight"),
        ("taming", changed("quant_conv.bias", torch.full((12,), torch.inf)), "quant_conv.bias .*infinite"),
        ("taming", changed("quant_conv.bias", torch.zeros(12).to_sparse()), "quant_conv.bias is .*sparse"),
        (
            "taming",
            changed("encoder.down.1.block.0.conv1.weight", torch.zeros(33, 32, 3, 3)),
            "multiples of 32",
        ),
        ("Gumbel", without("quantize.proj.bias"), "missing quantize.proj.bias"),
        (
            "Gumbel",
            changed("quantize.proj.weight", torch.zeros(40, 13, 1, 1)),
            "proj.weight is .* instead of",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_layout(
    case: str, spoil: Callable[[State], object], said: str
) -> None:
    state = dict(plain(CASES[case], Shape(num_codes=40)).state)
    spoil(state)
    with pytest.raises(CogViewError, match=said) as caught:
        convert(state)
    assert case in str(caught.value)
    assert "\n" not in str(caught.value)
