"""ruDALL-E's VQGAN with wavelets draws 512 pixels from 32 x 32 codes: twice the size that it encodes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.image.decoder_config import DecoderConfig
from cogview.interop.tokenizer_layouts import convert_image_tokenizer
from cogview.models.folder import save_pretrained
from cogview.training.decoder import DecoderTask
from plain_vqgan import WAVELETS, Plain, Shape, State, images, plain, random_state
from tiny import tiny_model

SHAPE = Shape(outputs=12)


def published(state: State) -> State:
    """Return the names of the published file, with what is idle in it and the constants of the wavelets."""
    half = 0.5**0.5
    constants = {
        "decoder.idwt.g0_col": torch.tensor([half, half]).view(1, 1, 2, 1),
        "decoder.idwt.g0_row": torch.tensor([half, half]).view(1, 1, 1, 2),
        "decoder.idwt.g1_col": torch.tensor([half, -half]).view(1, 1, 2, 1),
        "decoder.idwt.g1_row": torch.tensor([half, -half]).view(1, 1, 1, 2),
    }
    idle = {"post_quant_conv.weight": torch.ones(24, 12, 1, 1), "post_quant_conv.bias": torch.ones(24)}
    return {f"model.{name}": each for name, each in (state | constants | idle).items()}


def expected(bands: torch.Tensor) -> torch.Tensor:
    """Return the pixels of twice the size, one by one: sums and differences of the bands, halved."""
    b, _, height, width = bands.shape
    pixels = torch.empty(b, 3, 2 * height, 2 * width)
    for colour in range(3):
        low, first, second, third = (
            bands[:, each] for each in (colour, *range(3 + 3 * colour, 6 + 3 * colour))
        )
        for a, s in ((0, 1), (1, -1)):
            for c, t in ((0, 1), (1, -1)):
                pixels[:, colour, a::2, c::2] = (low + s * first + t * second + s * t * third) / 2
    return pixels


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("is_stripped", [True, False])
def test_codes_and_pixels_are_those_of_the_plain_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_stripped: bool
) -> None:
    made = plain(WAVELETS, SHAPE)
    beside = {} if is_stripped else {"loss.perceptual_loss.lin0.weight": torch.ones(2)}
    torch.save({"state_dict": published(made.state) | beside}, tmp_path / "sber-dwt.ckpt")
    assert main(["convert", str(tmp_path / "sber-dwt.ckpt"), str(tmp_path / "tokenizer"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "wavelets" in facts["layout"]
    assert (facts["downsampling_factor"], facts["scales"]) == (4, [1, 2])
    tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
    codes = tokenizer.encode(images())
    assert torch.equal(codes, made.codes(images()))
    assert len(codes.unique()) > 5
    large = expected(made.decoded(codes))
    assert large.shape[2:] == (32, 48)
    torch.testing.assert_close(tokenizer.decode(codes, 48), large.clamp(-1, 1), atol=1e-4, rtol=0)
    small = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(tokenizer.decode(codes), small.clamp(-1, 1), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_it_is_drawn_with_and_trained_for_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = random_state(WAVELETS, dataclasses.replace(SHAPE, num_codes=32, code_size=8))
    torch.save({"state_dict": published(state)}, tmp_path / "a.ckpt")
    assert main(["convert", str(tmp_path / "a.ckpt"), str(tmp_path / "tokenizer")]) == 0
    tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
    save_pretrained(dataclasses.replace(tiny_model(tmp_path), image_tokenizer=tokenizer), tmp_path / "model")
    pipe = cogview.load(tmp_path / "model", device="cpu")
    assert pipe.size_pixels == 32
    for size in (None, 16, 32):
        [picture] = pipe.generate("a red cat", 1, seed=3, size_pixels=size)
        assert picture.image.size == (size or 32, size or 32)
        drawn = tokenizer.decode(picture.codes[None], size or 32)[0].permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(picture.image) / 127.5 - 1 - drawn).max() < 0.01
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for number, each in enumerate(noise):
        Image.fromarray(each).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a red cat")
    given = ["--image-tokenizer", str(tmp_path / "tokenizer")]
    tokens = [*given, "--text-tokenizer", str(tmp_path / "model"), "--size-pixels", "16"]
    assert main(["tokenize", str(pictures), "--out", str(tmp_path / "tokens"), *tokens]) == 0
    capsys.readouterr()
    assert main(["plan", "tiny", "--generate", "--model", str(tmp_path / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_parameters"] > 0
    config = DecoderConfig(scales=(1, 2), channels=(8, 8, 8), num_blocks=(1, 1, 1), judged_pixels=24)
    task = DecoderTask(config, tokenizer, {1: noise[:, ::2, ::2], 2: noise}, seed=0, batch_size=2)
    before = tokenizer.decode(picture.codes[None], 32)
    for step in range(2):
        loss, _ = task.loss(task.batch(step))
        assert float(loss.detach()) > 0
    tokenizer.add_decoder("sharp", task.decoder)
    after = tokenizer.decode(picture.codes[None], 32)
    assert after.shape == before.shape
    assert not torch.equal(after, before), "the further decoder takes the place of the wavelets"


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("model.decoder.idwt.g1_col", torch.tensor([0.48, 0.84]), "g1_col is no Haar filter"),
        (
            "model.decoder.decoder.conv_out.weight",
            torch.zeros(3, 32, 3, 3),
            r"conv_out.weight is \[3, 32, 3, 3\]",
        ),
        ("model.decoder.post_quant_conv.bias", None, "missing decoder.post_quant_conv.bias"),
        ("model.decoder.idwt.g2_col", torch.ones(2), "unexpected decoder.idwt.g2_col"),
        ("model.quantize.proj.weight", torch.full((40, 12, 1, 1), torch.nan), "proj.weight .*NaN"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, tensor: torch.Tensor | None, said: str) -> None:
    state = published(random_state(WAVELETS, SHAPE))
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    with pytest.raises(CogViewError, match=f"wavelets: .*{said}") as caught:
        convert_image_tokenizer(state)
    assert "\n" not in str(caught.value)


def test_the_plain_bands_are_those_of_the_plain_decoder() -> None:
    made = Plain(state=random_state(WAVELETS, SHAPE), style=WAVELETS, shape=SHAPE)
    assert made.decoded(torch.zeros(1, 2, 2, dtype=torch.long)).shape == (1, 12, 8, 8)
