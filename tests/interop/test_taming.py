"""A VQGAN of the published layout gives what its layers, written plainly from their names, give."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import cogview
from cogview.cli.main import main
from cogview.errors import CogViewError
from cogview.image.config import VQGANConfig
from cogview.interop.taming import convert_taming_vqgan, is_taming_vqgan

State = dict[str, torch.Tensor]


class Layout:
    """Names and shapes of the published layout; `fill` makes the values."""

    def __init__(self, fill, channels, factors, num_blocks, attention_grids, inner, code_size, num_codes):
        self.state: State = {}
        self.fill = fill
        widths = [channels * factor for factor in factors]
        last = len(widths) - 1
        self.conv("encoder.conv_in", 3, channels, 3)
        width = channels
        for grid, wider in enumerate(widths):
            for block in range(num_blocks):
                self.block(f"encoder.down.{grid}.block.{block}", width, wider)
                if grid in attention_grids:
                    self.attention(f"encoder.down.{grid}.attn.{block}", wider)
                width = wider
            if grid < last:
                self.conv(f"encoder.down.{grid}.downsample.conv", width, width, 3)
        self.bottom("encoder", width)
        self.norm("encoder.norm_out", width)
        self.conv("encoder.conv_out", width, inner, 3)
        self.conv("quant_conv", inner, code_size, 1)
        self.state["quantize.embedding.weight"] = fill(num_codes, code_size)
        self.conv("post_quant_conv", code_size, inner, 1)
        self.conv("decoder.conv_in", inner, width, 3)
        self.bottom("decoder", width)
        for grid in range(last, -1, -1):
            for block in range(num_blocks + 1):
                self.block(f"decoder.up.{grid}.block.{block}", width, widths[grid])
                width = widths[grid]
                if grid in attention_grids:
                    self.attention(f"decoder.up.{grid}.attn.{block}", width)
            if grid:
                self.conv(f"decoder.up.{grid}.upsample.conv", width, width, 3)
        self.norm("decoder.norm_out", width)
        self.conv("decoder.conv_out", width, 3, 3)

    def conv(self, name, inputs, outputs, size):
        self.state[f"{name}.weight"] = self.fill(outputs, inputs, size, size)
        self.state[f"{name}.bias"] = self.fill(outputs)

    def norm(self, name, width):
        self.state[f"{name}.weight"] = self.fill(width)
        self.state[f"{name}.bias"] = self.fill(width)

    def block(self, name, width, wider):
        self.norm(f"{name}.norm1", width)
        self.conv(f"{name}.conv1", width, wider, 3)
        self.norm(f"{name}.norm2", wider)
        self.conv(f"{name}.conv2", wider, wider, 3)
        if width != wider:
            self.conv(f"{name}.nin_shortcut", width, wider, 1)

    def attention(self, name, width):
        self.norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", width, width, 1)

    def bottom(self, module, width):
        self.block(f"{module}.mid.block_1", width, width)
        self.attention(f"{module}.mid.attn_1", width)
        self.block(f"{module}.mid.block_2", width, width)


def small() -> State:
    generator = torch.Generator().manual_seed(0)

    def fill(*shape: int) -> torch.Tensor:
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5 if len(shape) == 4 else 0.5
        return torch.randn(*shape, generator=generator) * scale

    state = Layout(fill, 32, (1, 2, 2), 2, (2,), 24, 12, 40).state
    # A codebook where the vectors are, or one code would be nearest to them all.
    pixels = torch.rand(1, 3, 20, 32, generator=generator) * 2 - 1
    state["quantize.embedding.weight"] = encoded(state, pixels, 3, 2)[0].flatten(1).T.contiguous()
    return state


def conv(state: State, name: str, x: torch.Tensor, **how) -> torch.Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def block(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    hidden = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)), padding=1)
    hidden = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", hidden)), padding=1)
    if f"{name}.nin_shortcut.weight" in state:
        x = conv(state, f"{name}.nin_shortcut", x)
    return x + hidden


def attention(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    if f"{name}.q.weight" not in state:
        return x
    normed = norm(state, f"{name}.norm", x)
    query, key, value = (conv(state, f"{name}.{part}", normed).flatten(2) for part in "qkv")
    scores = torch.bmm(query.transpose(1, 2), key) * x.shape[1] ** -0.5
    seen = torch.bmm(value, torch.softmax(scores, dim=2).transpose(1, 2)).view(x.shape)
    return x + conv(state, f"{name}.proj_out", seen)


def bottom(state: State, module: str, x: torch.Tensor) -> torch.Tensor:
    x = attention(state, f"{module}.mid.attn_1", block(state, f"{module}.mid.block_1", x))
    return block(state, f"{module}.mid.block_2", x)


def encoded(state: State, images: torch.Tensor, num_grids: int, num_blocks: int) -> torch.Tensor:
    x = conv(state, "encoder.conv_in", images, padding=1)
    for grid in range(num_grids):
        for number in range(num_blocks):
            x = block(state, f"encoder.down.{grid}.block.{number}", x)
            x = attention(state, f"encoder.down.{grid}.attn.{number}", x)
        if grid < num_grids - 1:
            x = conv(state, f"encoder.down.{grid}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
    x = swish(norm(state, "encoder.norm_out", bottom(state, "encoder", x)))
    return conv(state, "quant_conv", conv(state, "encoder.conv_out", x, padding=1))


def decoded(state: State, codes: torch.Tensor, num_grids: int, num_blocks: int) -> torch.Tensor:
    x = state["quantize.embedding.weight"][codes].permute(0, 3, 1, 2)
    x = conv(state, "decoder.conv_in", conv(state, "post_quant_conv", x), padding=1)
    x = bottom(state, "decoder", x)
    for grid in reversed(range(num_grids)):
        for number in range(num_blocks + 1):
            x = block(state, f"decoder.up.{grid}.block.{number}", x)
            x = attention(state, f"decoder.up.{grid}.attn.{number}", x)
        if grid:
            x = conv(state, f"decoder.up.{grid}.upsample.conv", F.interpolate(x, scale_factor=2.0), padding=1)
    return conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)), padding=1)


@torch.no_grad()
@pytest.mark.slow
def test_codes_and_pixels_are_those_of_the_plain_layers(tmp_path: Path) -> None:
    state = small()
    extras = {"loss.discriminator.main.0.weight": torch.ones(3)}
    torch.save({"state_dict": state | extras, "epoch": 7}, tmp_path / "last.ckpt")
    assert main(["convert", str(tmp_path / "last.ckpt"), str(tmp_path / "tokenizer")]) == 0
    tokenizer = cogview.load_image_tokenizer(tmp_path / "tokenizer")
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    vectors = encoded(state, images, 3, 2).permute(0, 2, 3, 1)
    distances = torch.cdist(vectors.reshape(-1, 12).double(), state["quantize.embedding.weight"].double())
    expected = distances.argmin(1).view(2, 4, 6)
    codes = tokenizer.encode(images)
    assert torch.equal(codes, expected)
    assert len(codes.unique()) > 5, "codes that are all alike would prove nothing"
    pixels = decoded(state, codes, 3, 2)
    torch.testing.assert_close(tokenizer.decode(codes), pixels.clamp(-1, 1), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_published_shape_of_factor_16_and_16384_codes_is_read_whole() -> None:
    def empty(*shape: int) -> torch.Tensor:
        return torch.zeros(1).expand(shape)

    state = Layout(empty, 128, (1, 1, 2, 2, 4), 2, (4,), 256, 256, 16_384).state
    assert is_taming_vqgan(state)
    tokenizer = convert_taming_vqgan(state)
    assert tokenizer.config == VQGANConfig()
    assert (tokenizer.downsampling_factor, tokenizer.num_codes) == (16, 16_384)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.pop("encoder.conv_out.weight"), "encoder.conv_out.weight is missing"),
        (
            lambda state: state.update({"encoder.conv_in.weight": torch.tensor(1.0)}),
            r"encoder.conv_in.weight is \(\), wanted 4 axes",
        ),
        (lambda state: state.update({"quantize.embedding.weight": torch.zeros(3)}), "weight is .*, wanted 2"),
        (lambda state: state.pop("decoder.up.1.block.0.conv2.bias"), "decoder.grids.1.blocks.0.second.bias"),
        (
            lambda state: state.update({"decoder.mid.gate.weight": torch.zeros(1)}),
            "no tensor decoder.mid.gate",
        ),
        (lambda state: state.update({"quant_conv.bias": torch.full((12,), torch.inf)}), "infinite or NaN"),
    ],
)
def test_what_does_not_fit_is_refused(spoil, said: str) -> None:
    state = small()
    spoil(state)
    with pytest.raises(CogViewError, match=said):
        convert_taming_vqgan(state)
