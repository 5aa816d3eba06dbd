"""VQGANs of other projects written plainly: their tensors by name, and what their layers compute.

Nothing of the package is used, so that a conversion is compared with something else than itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]
Fill = Callable[..., torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Style:
    """Words of a layout; `{}` is a number."""

    down: str = "encoder.down.{}"
    up: str = "decoder.up.{}"
    up_from_coarsest: bool = False
    block: str = "block"
    attention: str = "attn"
    halving: str = "downsample.conv"
    doubling: str = "upsample.conv"
    bottom: tuple[str, str, str] = ("mid.block_1", "mid.attn_1", "mid.block_2")
    decoder: str = "decoder"
    norm_out: str = "norm_out"
    shortcut: str = "nin_shortcut"
    group_norm: str = "norm"
    heads: tuple[str, str, str, str] = ("q", "k", "v", "proj_out")
    is_linear: bool = False
    after: str = "post_quant_conv"
    codebook: str = "quantize.embedding.weight"
    is_projected: bool = False
    is_normalised: bool = False

    def up_at(self, grid: int, shape: "Shape") -> str:
        """Name of the decoder's grid, 0 the finest."""
        return self.up.format(len(shape.factors) - 1 - grid if self.up_from_coarsest else grid)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A small VQGAN: two widths and a shortcut, attention at one grid, codes of several numbers."""

    channels: int = 32
    factors: tuple[int, ...] = (1, 2, 2)
    num_blocks: int = 2
    attention_grids: tuple[int, ...] = (2,)
    has_middle: bool = True
    inner: int = 24
    code_size: int = 12
    num_codes: int = 40
    outputs: int = 3
    groups: int = 32


TAMING = Style()
GUMBEL = Style(codebook="quantize.embed.weight", is_projected=True)
WAVELETS = Style(
    up="decoder.decoder.up.{}",
    decoder="decoder.decoder",
    after="decoder.post_quant_conv",
    codebook="quantize.embed.weight",
    is_projected=True,
)
LLAMAGEN = Style(
    down="encoder.conv_blocks.{}",
    up="decoder.conv_blocks.{}",
    up_from_coarsest=True,
    block="res",
    bottom=("mid.0", "mid.1", "mid.2"),
    is_normalised=True,
)
JANUS_OF_TRANSFORMERS = Style(up_from_coarsest=True, is_normalised=True)
DIFFUSERS = Style(
    down="encoder.down_blocks.{}",
    up="decoder.up_blocks.{}",
    up_from_coarsest=True,
    block="resnets",
    attention="attentions",
    halving="downsamplers.0.conv",
    doubling="upsamplers.0.conv",
    bottom=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm_out="conv_norm_out",
    shortcut="conv_shortcut",
    group_norm="group_norm",
    heads=("to_q", "to_k", "to_v", "to_out.0"),
    is_linear=True,
)
OLD_DIFFUSERS = Style(
    **{**DIFFUSERS.__dict__, "heads": ("query", "key", "value", "proj_attn")}  # before 0.17
)


def random_fill(seed: int = 0) -> Fill:
    """Random values of a size that layers keep."""
    generator = torch.Generator().manual_seed(seed)

    def fill(*shape: int) -> torch.Tensor:
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5 if len(shape) == 4 else 0.5
        return torch.randn(*shape, generator=generator) * scale

    return fill


def state_of(style: Style, shape: Shape, fill: Fill) -> State:
    """Return all tensors of a layout."""
    state: State = {}

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.weight"] = fill(outputs, inputs, size, size)
        state[f"{name}.bias"] = fill(outputs)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = fill(width)
        state[f"{name}.bias"] = fill(width)

    def block(name: str, width: int, wider: int) -> None:
        norm(f"{name}.norm1", width)
        conv(f"{name}.conv1", width, wider, 3)
        norm(f"{name}.norm2", wider)
        conv(f"{name}.conv2", wider, wider, 3)
        if width != wider:
            conv(f"{name}.{style.shortcut}", width, wider, 1)

    def attention(name: str, width: int) -> None:
        norm(f"{name}.{style.group_norm}", width)
        for part in style.heads:
            conv(f"{name}.{part}", width, width, 1)
            if style.is_linear:
                state[f"{name}.{part}.weight"] = state[f"{name}.{part}.weight"].flatten(1)

    def middle(half: str, width: int) -> None:
        block(f"{half}.{style.bottom[0]}", width, width)
        if shape.has_middle:
            attention(f"{half}.{style.bottom[1]}", width)
        block(f"{half}.{style.bottom[2]}", width, width)

    widths = [shape.channels * factor for factor in shape.factors]
    conv("encoder.conv_in", 3, shape.channels, 3)
    width = shape.channels
    for grid, wider in enumerate(widths):
        for number in range(shape.num_blocks):
            block(f"{style.down.format(grid)}.{style.block}.{number}", width, wider)
            if grid in shape.attention_grids:
                attention(f"{style.down.format(grid)}.{style.attention}.{number}", wider)
            width = wider
        if grid < len(widths) - 1:
            conv(f"{style.down.format(grid)}.{style.halving}", width, width, 3)
    middle("encoder", width)
    norm(f"encoder.{style.norm_out}", width)
    conv("encoder.conv_out", width, shape.inner, 3)
    conv("quant_conv", shape.inner, shape.code_size, 1)
    state[style.codebook] = fill(shape.num_codes, shape.code_size)
    if style.is_projected:
        conv("quantize.proj", shape.code_size, shape.num_codes, 1)
    conv(style.after, shape.code_size, shape.inner, 1)
    conv(f"{style.decoder}.conv_in", shape.inner, width, 3)
    middle(style.decoder, width)
    for grid in reversed(range(len(widths))):
        name = style.up_at(grid, shape)
        for number in range(shape.num_blocks + 1):
            block(f"{name}.{style.block}.{number}", width, widths[grid])
            width = widths[grid]
            if grid in shape.attention_grids:
                attention(f"{name}.{style.attention}.{number}", width)
        if grid:
            conv(f"{name}.{style.doubling}", width, width, 3)
    norm(f"{style.decoder}.{style.norm_out}", width)
    conv(f"{style.decoder}.conv_out", width, shape.outputs, 3)
    return state


@cache
def _random_state(style: Style, shape: Shape) -> State:
    return state_of(style, shape, random_fill())


def random_state(style: Style, shape: Shape) -> State:
    """Return tensors of random values, always the same."""
    return dict(_random_state(style, shape))


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What a VQGAN computes."""

    state: State
    style: Style
    shape: Shape

    def encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the encoder's vectors, in the style's own range of pixels."""
        x = self._conv("encoder.conv_in", pixels, padding=1)
        for grid in range(len(self.shape.factors)):
            name = self.style.down.format(grid)
            x = self._blocks(name, x, self.shape.num_blocks)
            if grid < len(self.shape.factors) - 1:
                x = self._conv(f"{name}.{self.style.halving}", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = _swish(self._norm(f"encoder.{self.style.norm_out}", self._middle("encoder", x)))
        return self._conv("quant_conv", self._conv("encoder.conv_out", x, padding=1))

    def codes(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the codes."""
        if not self.style.is_projected:
            return self.nearest(pixels)
        weight, bias = (self.state[f"quantize.proj.{kind}"].double() for kind in ("weight", "bias"))
        return (
            torch.einsum("bdrs,vd->brsv", self.encoded(pixels).double(), weight.flatten(1)) + bias
        ).argmax(3)

    def nearest(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the nearest codes."""
        vectors, table = self.encoded(pixels).permute(0, 2, 3, 1), self.table
        if self.style.is_normalised:
            vectors = vectors / vectors.norm(dim=3, keepdim=True)
        return torch.cdist(vectors.flatten(0, 2).double(), table.double()).argmin(1).view(vectors.shape[:3])

    @property
    def table(self) -> torch.Tensor:
        """The codes' vectors."""
        table = self.state[self.style.codebook]
        return table / table.norm(dim=1, keepdim=True) if self.style.is_normalised else table

    def decoded(self, codes: torch.Tensor) -> torch.Tensor:
        """Return pixels of codes, before any clamping."""
        half = self.style.decoder
        x = self._conv(self.style.after, self.table[codes].permute(0, 3, 1, 2))
        x = self._middle(half, self._conv(f"{half}.conv_in", x, padding=1))
        for grid in reversed(range(len(self.shape.factors))):
            name = self.style.up_at(grid, self.shape)
            x = self._blocks(name, x, self.shape.num_blocks + 1)
            if grid:
                twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self._conv(f"{name}.{self.style.doubling}", twice, padding=1)
        return self._conv(
            f"{half}.conv_out", _swish(self._norm(f"{half}.{self.style.norm_out}", x)), padding=1
        )

    def _blocks(self, name: str, x: torch.Tensor, count: int) -> torch.Tensor:
        for number in range(count):
            x = self._block(f"{name}.{self.style.block}.{number}", x)
            x = self._attention(f"{name}.{self.style.attention}.{number}", x)
        return x

    def _middle(self, half: str, x: torch.Tensor) -> torch.Tensor:
        first, attention, second = (f"{half}.{part}" for part in self.style.bottom)
        return self._block(second, self._attention(attention, self._block(first, x)))

    def _block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        hidden = self._conv(f"{name}.conv1", _swish(self._norm(f"{name}.norm1", x)), padding=1)
        hidden = self._conv(f"{name}.conv2", _swish(self._norm(f"{name}.norm2", hidden)), padding=1)
        shortcut = f"{name}.{self.style.shortcut}"
        return hidden + (self._conv(shortcut, x) if f"{shortcut}.weight" in self.state else x)

    def _attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if f"{name}.{self.style.heads[0]}.weight" not in self.state:
            return x
        normed = self._norm(f"{name}.{self.style.group_norm}", x).flatten(2).transpose(1, 2)
        query, key, value = (self._linear(f"{name}.{part}", normed) for part in self.style.heads[:3])
        shares = torch.softmax(query @ key.transpose(1, 2) * x.shape[1] ** -0.5, dim=2)
        seen = self._linear(f"{name}.{self.style.heads[3]}", shares @ value)
        return x + seen.transpose(1, 2).reshape(x.shape)

    def _conv(self, name: str, x: torch.Tensor, **how: int) -> torch.Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)  # type: ignore[arg-type]

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.state[f"{name}.weight"].flatten(1).T + self.state[f"{name}.bias"]

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.group_norm(x, self.shape.groups, weight, bias, 1e-6)


def _swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def plain(style: Style, shape: Shape = Shape(), seed: int = 0) -> Plain:
    """Return a VQGAN with random weights, whose pictures have many different codes."""
    state = state_of(style, shape, random_fill(seed))
    made = Plain(state=state, style=style, shape=shape)
    side = 2 ** (len(shape.factors) - 1)
    if shape.num_codes == 40:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.rand(1, 3, 5 * side, 8 * side, generator=generator) * 2 - 1
        rows = made.encoded(pixels)[0].flatten(1).T.contiguous()
        if style.is_projected:
            weight = state["quantize.proj.weight"].flatten(1)
            state["quantize.proj.bias"] = -weight @ rows.mean(0)
        elif style.is_normalised:
            # Where the directions are, but of any length.
            state[style.codebook] = rows * (0.5 + torch.rand(len(rows), 1, generator=generator) * 2)
        else:
            state[style.codebook] = rows
    return made


def images(height: int = 16, width: int = 24) -> torch.Tensor:
    """Return pictures in [-1, 1]."""
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
