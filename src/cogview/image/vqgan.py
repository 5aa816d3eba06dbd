"""VQGAN: autoencoder of residual convolutions and attention.

`cogview.interop.vqgan_names` maps the names of weights to those of published checkpoints.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.image.autoencoder import Autoencoder
from cogview.image.config import VQGANConfig
from cogview.image.vqvae import initialise_convolution


class VQGAN(Autoencoder):
    """Deep convolutional autoencoder with a codebook, trained with a discriminator for sharp textures.

    Differs from the published initialisation, PyTorch's default: residual branches start at zero and the rest keeps the
    variance, so that colours are right from the start. See `docs/decisions/vqgan-initialisation.md`.

    Args:
        config: shapes and training constants.

    Paper: section 3.4.
    """

    config: VQGANConfig

    def __init__(self, config: VQGANConfig):
        super().__init__(config, VQGANEncoder(config), VQGANDecoder(config))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise_convolution(module, gain=1.0)
        for module in self.modules():
            if isinstance(module, VQGANBlock):
                initialise_convolution(module.first)
                nn.init.zeros_(module.second.weight)
            elif isinstance(module, GridAttention):
                nn.init.zeros_(module.output.weight)

    @property
    def last_layer(self) -> Tensor:
        """Return the weight of the last layer, for `adversary.adaptive_weight`."""
        assert isinstance(self.decoder, VQGANDecoder)
        return self.decoder.to_pixels.weight


class VQGANEncoder(nn.Module):
    """Encoder: residual blocks and a halving at each grid; attention at the bottom."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.channels * factor for factor in config.channel_factors]
        self.from_pixels = nn.Conv2d(3, config.channels, 3, padding=1)
        self.grids = nn.ModuleList()
        width = config.channels
        for grid, wider in enumerate(widths):
            is_last = grid == len(widths) - 1
            self.grids.append(
                _Grid(width, wider, config.num_blocks, config, grid, None if is_last else Halving(wider))
            )
            width = wider
        self.bottom = _bottom(width, config)
        self.norm = _norm(width, config)
        self.to_inner = nn.Conv2d(width, config.inner_size, 3, padding=1)
        self.to_vectors = nn.Conv2d(config.inner_size, config.code_size, 1)

    def forward(self, pixels: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d r s"]:
        """Encode normalised pixels."""
        x = self.from_pixels(pixels)
        for grid in self.grids:
            x = grid(x)
        x = F.silu(self.norm(self.bottom(x)))
        return self.to_vectors(self.to_inner(x))


class VQGANDecoder(nn.Module):
    """Decoder: the mirrored encoder with one more block at each grid."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.channels * factor for factor in config.channel_factors]
        width = widths[-1]
        self.from_vectors = nn.Conv2d(config.code_size, config.inner_size, 1)
        self.from_inner = nn.Conv2d(config.inner_size, width, 3, padding=1)
        self.bottom = _bottom(width, config)
        self.grids = nn.ModuleList()  # coarsest first
        for grid in reversed(range(len(widths))):
            doubling = Doubling(widths[grid]) if grid else None
            self.grids.append(_Grid(width, widths[grid], config.num_blocks + 1, config, grid, doubling))
            width = widths[grid]
        self.norm = _norm(width, config)
        self.has_wavelets = config.decoder_output == "wavelets"
        self.to_pixels = nn.Conv2d(width, 12 if self.has_wavelets else 3, 3, padding=1)

    def forward(self, vectors: Float[Tensor, "b d r s"], scale: int = 1) -> Float[Tensor, "b c y x"]:
        """Decode codebook vectors to normalised pixels.

        Args:
            vectors: of the codes.
            scale: size of the pictures in units of the encoded size: 1, or with wavelets 2.
        """
        x = self.bottom(self.from_inner(self.from_vectors(vectors)))
        for grid in self.grids:
            x = grid(x)
        pixels = self.to_pixels(F.silu(self.norm(x)))
        if not self.has_wavelets:
            return pixels
        return pixels[:, :3] / 2 if scale == 1 else inverse_haar(pixels)


def inverse_haar(bands: Float[Tensor, "b 12 y x"]) -> Float[Tensor, "b 3 _ _"]:
    """Return pictures of twice the size by one step of the inverse Haar transform.

    Args:
        bands: the low bands of the three colours, each twice the mean of a square of 2 x 2 pixels; then for each colour
            the differences between the square's rows, between its columns, and of both.
    """
    low = bands[:, :3]
    rows, columns, both = (bands[:, 3 + band :: 3] for band in range(3))
    squares = [low + s * rows + t * columns + s * t * both for s in (1, -1) for t in (1, -1)]
    return F.pixel_shuffle(torch.stack(squares, 2).flatten(1, 2) / 2, 2)


class _Grid(nn.Module):
    """Residual blocks at one resolution, optionally with attention, and a change of resolution."""

    def __init__(
        self,
        width: int,
        wider: int,
        num_blocks: int,
        config: VQGANConfig,
        grid: int,
        resample: nn.Module | None,
    ):
        super().__init__()
        widths = [width] + [wider] * num_blocks
        self.blocks = nn.ModuleList(VQGANBlock(before, after, config) for before, after in pairwise(widths))
        attends = grid in config.attention_grids
        self.attentions = nn.ModuleList(
            GridAttention(wider, config) for _ in range(num_blocks if attends else 0)
        )
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[index](x)
        return self.resample(x)


class VQGANBlock(nn.Module):
    """Residual block of two normalised 3x3 convolutions; a 1x1 convolution changes the width if necessary.

    Args:
        width: channels in.
        wider: channels out.
        config: of the VQGAN.
    """

    def __init__(self, width: int, wider: int, config: VQGANConfig):
        super().__init__()
        self.first_norm = _norm(width, config)
        self.first = nn.Conv2d(width, wider, 3, padding=1)
        self.second_norm = _norm(wider, config)
        self.dropout = nn.Dropout(config.dropout)
        self.second = nn.Conv2d(wider, wider, 3, padding=1)
        self.shortcut = nn.Conv2d(width, wider, 1) if width != wider else nn.Identity()

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b e y x"]:
        """Apply the block."""
        hidden = self.first(F.silu(self.first_norm(x)))
        hidden = self.second(self.dropout(F.silu(self.second_norm(hidden))))
        return self.shortcut(x) + hidden


class GridAttention(nn.Module):
    """Residual self-attention over a grid, with one head."""

    def __init__(self, width: int, config: VQGANConfig):
        super().__init__()
        self.norm = _norm(width, config)
        self.query = nn.Conv2d(width, width, 1)
        self.key = nn.Conv2d(width, width, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.output = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        """Attend within each picture."""
        normed = self.norm(x)
        query, key, value = (
            part(normed).flatten(2).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        return x + self.output(attended.transpose(1, 2).reshape(x.shape))


class Halving(nn.Module):
    """Halving of a grid by a 3x3 convolution of stride 2, padded below and on the right as published."""

    def __init__(self, width: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c r s"]:
        """Halve the grid."""
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Doubling of a grid by repeating each place, then a 3x3 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c r s"]) -> Float[Tensor, "b c y x"]:
        """Double the grid."""
        return self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _bottom(width: int, config: VQGANConfig) -> nn.Sequential:
    """Build the blocks at the coarsest grid, and what attention is between them."""
    return nn.Sequential(
        VQGANBlock(width, width, config),
        GridAttention(width, config) if config.bottom_attentions else nn.Identity(),
        VQGANBlock(width, width, config),
    )


def _norm(width: int, config: VQGANConfig) -> nn.GroupNorm:
    """Build a norm over groups of channels."""
    return nn.GroupNorm(config.norm_groups, width, eps=1e-6)
