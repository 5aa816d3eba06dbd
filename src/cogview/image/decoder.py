"""A decoder for codes that stand: it draws an image tokenizer's pictures again, sharper and at several sizes."""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.image.decoder_config import DecoderConfig
from cogview.image.vqvae import ResidualBlock, initialise_convolution


class RefiningDecoder(nn.Module):
    """Draw over what a tokenizer's own decoder drew, at one or more sizes.

    At the grid of codes and after each doubling it looks at the codes' vectors and at the squares of the first drawing
    that belong to each place, and refines them by residual blocks. The last grid gives a head for each size, whose
    pixels are added to the enlarged first drawing. A new decoder changes nothing but the size.

    Args:
        config: shape.
        code_size: width of the codebook's vectors.
        downsampling_factor: pixels along one side of the square that one code stands for.

    Raises:
        UsageError: the doublings do not fit the codes.
    """

    def __init__(self, config: DecoderConfig, code_size: int, downsampling_factor: int) -> None:
        super().__init__()
        config.check_codes(downsampling_factor)
        self.config = config
        self.code_size, self.downsampling_factor = code_size, downsampling_factor
        self.from_vectors = initialise_convolution(
            nn.Conv2d(code_size, config.channels[0], 3, padding=1), gain=1.0
        )
        self.from_drawing = nn.ModuleList()
        self.doublings = nn.ModuleList()
        self.blocks = nn.ModuleList()
        before = 0
        for doublings, (width, num_blocks) in enumerate(zip(config.channels, config.num_blocks, strict=True)):
            places = 2**doublings
            if downsampling_factor % places == 0:  # else a place is less than a pixel of the drawing
                pixels = nn.Conv2d(3 * (downsampling_factor // places) ** 2, width, 3, padding=1)
                self.from_drawing.append(initialise_convolution(pixels, gain=1.0))
            if before:
                self.doublings.append(initialise_convolution(nn.Conv2d(before, 4 * width, 1), gain=1.0))
            self.blocks.append(nn.Sequential(*(ResidualBlock(width) for _ in range(num_blocks))))
            before = width
        finest = 2 ** (len(config.channels) - 1)
        self.heads = nn.ModuleDict()
        for scale in sorted(config.scales):
            head = nn.Conv2d(before, 3 * (downsampling_factor * scale // finest) ** 2, 3, padding=1)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
            self.heads[str(scale)] = head

    def forward(
        self,
        vectors: Float[Tensor, "b d r s"],
        drawing: Float[Tensor, "b c y x"],
        scales: Sequence[int] | None = None,
    ) -> dict[int, Float[Tensor, "b c _ _"]]:
        """Return pictures in [-1, 1], but for overshoot, by scale.

        Args:
            vectors: of the codes.
            drawing: what the tokenizer's own decoder makes of them, in [-1, 1].
            scales: wanted; all if None.
        """
        factor = self.downsampling_factor
        x = self.from_vectors(vectors)
        for doublings, blocks in enumerate(self.blocks):
            if doublings:
                x = F.pixel_shuffle(self.doublings[doublings - 1](x), 2)
            if doublings < len(self.from_drawing):
                x = x + self.from_drawing[doublings](F.pixel_unshuffle(drawing, factor // 2**doublings))
            x = blocks(x)
        x = F.relu(x)
        return {
            scale: _enlarged(drawing, scale) + self.pixels(x, scale)
            for scale in (self.config.scales if scales is None else scales)
        }

    def last_layer(self, scale: int) -> Tensor:
        """Return the weight that writes the pixels of a scale."""
        head = self.heads[str(scale)]
        assert isinstance(head, nn.Conv2d)
        return head.weight

    def pixels(self, features: Float[Tensor, "b e p q"], scale: int) -> Float[Tensor, "b c _ _"]:
        """Return what is added to the enlarged drawing at a scale."""
        head = self.heads[str(scale)]
        finest = 2 ** (len(self.config.channels) - 1)
        return F.pixel_shuffle(head(features), self.downsampling_factor * scale // finest)


def _enlarged(drawing: Float[Tensor, "b c y x"], scale: int) -> Float[Tensor, "b c _ _"]:
    """Return a drawing at a multiple of its size, by bicubic interpolation."""
    return drawing if scale == 1 else F.interpolate(drawing, scale_factor=float(scale), mode="bicubic")


def fingerprint_of_decoder(decoder: RefiningDecoder, dtype: torch.dtype = torch.float32) -> str:
    """Return 16 hexadecimal digits that name a decoder: equal means equal pictures of equal codes.

    Args:
        decoder: whose shape and weights count, not how it was trained.
        dtype: that the weights are rounded to first.
    """
    config = decoder.config
    shape = [sorted(config.scales), config.channels, config.num_blocks, decoder.downsampling_factor]
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, weight in sorted(decoder.state_dict().items()):
        values = weight.detach().to("cpu", dtype).float().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]
