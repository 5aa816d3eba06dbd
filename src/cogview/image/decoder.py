"""Additional decoder for an image tokenizer's codes: sharper pictures at several sizes."""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.image.decoder_config import DecoderConfig
from cogview.image.vqvae import initialise_convolution

# Scales down the head's output: otherwise the first steps at usual learning rates do more harm than good.
_HEAD_GAIN = 0.1
# A picture has a ground if at least this share of its pixels is near one colour.
_LEAST_GROUND = 0.1


class RefiningDecoder(nn.Module):
    """Network that refines the pictures of a tokenizer's own decoder, at one or more sizes.

    Its inputs are codes, their vectors, and at each grid the squares of the first drawing that belong to each place.
    Residual blocks refine them at the grid of codes and after each doubling. The output, the pixels of the largest size
    or their means for a smaller one, is added to the enlarged first drawing. An untrained decoder only enlarges.

    Args:
        config: shape.
        num_codes: of the codebook.
        code_size: width of its vectors.
        downsampling_factor: side in pixels of the square that a code stands for.

    Raises:
        UsageError: the doublings do not fit the codes.
    """

    def __init__(
        self, config: DecoderConfig, num_codes: int, code_size: int, downsampling_factor: int
    ) -> None:
        super().__init__()
        config.check_codes(downsampling_factor)
        self.config = config
        self.num_codes, self.code_size, self.downsampling_factor = num_codes, code_size, downsampling_factor
        first = config.channels[0]
        self.from_vectors = initialise_convolution(nn.Conv2d(code_size, first, 1), gain=1.0)
        self.from_neighbourhood: CodeNeighbourhood | None = None
        if config.neighbourhood:
            self.from_neighbourhood = CodeNeighbourhood(
                num_codes, config.neighbourhood, config.neighbourhood_channels, first
            )
        self.from_drawing = nn.ModuleList()
        self.doublings = nn.ModuleList()
        self.blocks = nn.ModuleList()
        before = 0
        for doublings, (width, num_blocks) in enumerate(zip(config.channels, config.num_blocks, strict=True)):
            places = 2**doublings
            if downsampling_factor % places == 0:  # otherwise places are smaller than pixels
                pixels = nn.Conv2d(3 * (downsampling_factor // places) ** 2, width, 3, padding=1)
                self.from_drawing.append(initialise_convolution(pixels, gain=1.0))
            if before:
                self.doublings.append(initialise_convolution(nn.Conv2d(before, 4 * width, 1), gain=1.0))
            blocks = (NormalisedBlock(width, config.kernel_size) for _ in range(num_blocks))
            self.blocks.append(nn.Sequential(*blocks))
            before = width
        self._finest = 2 ** (len(config.channels) - 1)
        side = downsampling_factor * max(config.scales) // self._finest
        self.head = nn.Conv2d(before, 3 * side**2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(
        self,
        codes: Int64[Tensor, "b r s"],
        vectors: Float[Tensor, "b d r s"],
        drawing: Float[Tensor, "b c y x"],
        scales: Sequence[int] | None = None,
        even_ground: bool = True,
    ) -> dict[int, Float[Tensor, "b c _ _"]]:
        """Return pictures by scale, in [-1, 1] except for overshoot.

        Args:
            codes: of the pictures.
            vectors: of the codes.
            drawing: the own decoder's pictures, in [-1, 1].
            scales: to draw; all if None.
            even_ground: whether to apply `with_even_ground`; pixel losses use the raw output.
        """
        factor = self.downsampling_factor
        x = self.from_vectors(vectors)
        if self.from_neighbourhood is not None:
            x = x + self.from_neighbourhood(codes)
        for doublings, blocks in enumerate(self.blocks):
            if doublings:
                x = F.pixel_shuffle(self.doublings[doublings - 1](x), 2)
            if doublings < len(self.from_drawing):
                x = x + self.from_drawing[doublings](F.pixel_unshuffle(drawing, factor // 2**doublings))
            x = blocks(x)
        x = _normalise(x)
        pictures = {
            scale: _enlarge(drawing, scale) + self._pixels(x, scale)
            for scale in (self.config.scales if scales is None else scales)
        }
        if not even_ground:
            return pictures
        return {scale: self.with_even_ground(each, drawing) for scale, each in pictures.items()}

    def with_even_ground(
        self, pictures: Float[Tensor, "b c _ _"], drawing: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c _ _"]:
        """Make the ground of pictures a single colour, if configured.

        Args:
            pictures: in [-1, 1].
            drawing: the own decoder's pictures; their commonest colour is the ground's if enough pixels are near it.
        """
        levels = self.config.ground_levels
        if not levels:
            return pictures
        clamped = drawing.float().clamp(-1, 1)
        shifts = torch.tensor([16, 8, 0], device=drawing.device)
        colours = ((clamped + 1) * 127.5).round().long() << shifts[:, None, None]
        commonest = colours.sum(1).flatten(1).mode(1, keepdim=True).values
        ground = ((commonest >> shifts & 255) / 127.5 - 1)[:, :, None, None]

        def away(values: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b 1 _ _"]:
            return (values - ground).abs().amax(1, keepdim=True) * 127.5

        is_ground = (away(clamped) <= levels).float().mean((1, 2, 3), keepdim=True) >= _LEAST_GROUND
        distance = away(pictures)
        deviation = (distance / levels - 1).clamp(0, 1)
        return torch.where(is_ground, ground + deviation * (pictures - ground), pictures)

    @property
    def last_layer(self) -> Tensor:
        """Return the weight of the last layer."""
        return self.head.weight

    def _pixels(self, features: Float[Tensor, "b e p q"], scale: int) -> Float[Tensor, "b c _ _"]:
        """Return the pixels to add at a scale: means of those of the largest."""
        side = self.downsampling_factor * scale // self._finest
        factor = max(self.config.scales) // scale
        assert self.head.bias is not None
        weight = _average_rows(self.head.weight.flatten(1), factor)
        bias = _average_rows(self.head.bias[:, None], factor)
        return F.pixel_shuffle(_HEAD_GAIN * F.conv2d(features, weight[..., None, None], bias[:, 0]), side)


class CodeNeighbourhood(nn.Module):
    """Sum of learnt vectors of the codes around each place, one vector per code and relative position.

    Args:
        num_codes: of the codebook.
        side: of the square of codes, odd.
        width: of the vectors.
        channels: of the output.
    """

    def __init__(self, num_codes: int, side: int, width: int, channels: int) -> None:
        super().__init__()
        self.num_codes, self.side = num_codes, side
        self.vectors = nn.Embedding(side * side * (num_codes + 1), width)
        nn.init.normal_(self.vectors.weight, std=1.0 / side)
        self.project = initialise_convolution(nn.Conv2d(width, channels, 1), gain=1.0)

    def forward(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b e r s"]:
        """Return the projected sums."""
        rows, columns = codes.shape[1:]
        padded = F.pad(codes + 1, [self.side // 2] * 4)  # 0: outside the picture
        squares = padded.unfold(1, self.side, 1).unfold(2, self.side, 1).reshape(-1, self.side**2)
        starts = torch.arange(self.side**2, device=codes.device) * (self.num_codes + 1)
        table, bags = self.vectors.weight, squares + starts
        if table.dtype != torch.float32:
            used, bags = torch.unique(bags, return_inverse=True)
            table = table[used].float()
        sums = F.embedding_bag(bags, table, mode="sum")
        mapped: Tensor = self.project(sums.view(len(codes), rows, columns, -1).permute(0, 3, 1, 2))
        return mapped


class NormalisedBlock(nn.Module):
    """Residual block of two convolutions with RMS-normalised input.

    Args:
        channels: width in, between and out.
        kernel_size: of the first convolution, odd; the second is 1x1.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b e p q"]) -> Float[Tensor, "b e p q"]:
        """Apply the block."""
        return x + self.second(F.silu(self.first(_normalise(x))))


def _normalise(x: Float[Tensor, "b e p q"]) -> Float[Tensor, "b e p q"]:
    """Scale features to a root mean square of 1 at each place."""
    return x * (x.float().square().mean(1, keepdim=True) + 1e-4).rsqrt().to(x.dtype)


def _average_rows(rows: Float[Tensor, "n e"], factor: int) -> Float[Tensor, "m e"]:
    """Average a head's weights over squares of its output pixels.

    Args:
        rows: one for each pixel of a place, colour by colour.
        factor: side of the squares in pixels.
    """
    if factor == 1:
        return rows
    side = round((len(rows) // 3) ** 0.5)
    squares = rows.view(3, side // factor, factor, side // factor, factor, -1)
    # Summed plane by plane: PyTorch's sum over these axes is 25 times slower (torch 2.13, CPU).
    lines = sum(squares.unbind(2)[1:], squares.unbind(2)[0])
    added = sum(lines.unbind(3)[1:], lines.unbind(3)[0])
    return (added / factor**2).flatten(0, 2)


def _enlarge(drawing: Float[Tensor, "b c y x"], scale: int) -> Float[Tensor, "b c _ _"]:
    """Enlarge a drawing by a factor, by bicubic interpolation."""
    return drawing if scale == 1 else F.interpolate(drawing, scale_factor=float(scale), mode="bicubic")


def fingerprint_of_decoder(decoder: RefiningDecoder, dtype: torch.dtype = torch.float32) -> str:
    """Return 16 hexadecimal digits of shape and weights: equal ones mean equal pictures of equal codes.

    Args:
        decoder: the decoder.
        dtype: to which weights are rounded first.
    """
    config = decoder.config
    shape = [
        *(
            sorted(config.scales),
            config.neighbourhood,
            config.channels,
            config.num_blocks,
            config.kernel_size,
            config.ground_levels,
        ),
        *(decoder.num_codes, decoder.code_size, decoder.downsampling_factor),
    ]
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, weight in sorted(decoder.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        for part in weight.detach().contiguous().view(-1).split(1 << 20):  # avoids a copy of a large table
            digest.update(part.to("cpu", dtype).float().numpy().data)
    return digest.hexdigest()[:16]
