"""A decoder for codes that stand: it draws an image tokenizer's pictures again, sharper and at several sizes."""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.image.decoder_config import DecoderConfig
from cogview.image.vqvae import initialise_convolution

# What the head adds is small beside the drawing: without it, the first steps of a usual rate spoil more than is learnt.
_HEAD_GAIN = 0.1
# A picture has a ground if at least this share of its pixels is near one colour.
_LEAST_GROUND = 0.1


class RefiningDecoder(nn.Module):
    """Draw over what a tokenizer's own decoder drew, at one or more sizes.

    At the grid of codes and after each doubling it looks at the codes, their vectors, and the squares of the first
    drawing that belong to each place, and refines them by residual blocks. The last grid writes the pixels of the
    largest size, or their means for a smaller one, which are added to the enlarged first drawing. A new decoder changes
    nothing but the size.

    Args:
        config: shape.
        num_codes: of the codebook.
        code_size: width of its vectors.
        downsampling_factor: pixels along one side of the square that one code stands for.

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
            if downsampling_factor % places == 0:  # else a place is less than a pixel of the drawing
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
        """Return pictures in [-1, 1], but for overshoot, by scale.

        Args:
            codes: of the pictures.
            vectors: of the codes.
            drawing: what the tokenizer's own decoder makes of them, in [-1, 1].
            scales: wanted; all if None.
            even_ground: without it they are as the layers write them, which the losses of pixels see.
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
        x = _normalised(x)
        drawn = {
            scale: _enlarged(drawing, scale) + self._pixels(x, scale)
            for scale in (self.config.scales if scales is None else scales)
        }
        if not even_ground:
            return drawn
        return {scale: self.with_even_ground(each, drawing) for scale, each in drawn.items()}

    def with_even_ground(
        self, pictures: Float[Tensor, "b c _ _"], drawing: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c _ _"]:
        """Return pictures whose ground is of one colour, if the configuration says so.

        Args:
            pictures: in [-1, 1].
            drawing: the first one of each, whose commonest colour is the ground's if enough pixels are near it.
        """
        levels = self.config.ground_levels
        if not levels:
            return pictures
        shown = drawing.float().clamp(-1, 1)
        shifts = torch.tensor([16, 8, 0], device=drawing.device)
        colours = ((shown + 1) * 127.5).round().long() << shifts[:, None, None]
        commonest = colours.sum(1).flatten(1).mode(1, keepdim=True).values
        ground = ((commonest >> shifts & 255) / 127.5 - 1)[:, :, None, None]

        def away(values: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b 1 _ _"]:
            return (values - ground).abs().amax(1, keepdim=True) * 127.5

        is_ground = (away(shown) <= levels).float().mean((1, 2, 3), keepdim=True) >= _LEAST_GROUND
        distance = away(pictures)
        kept = (distance / levels - 1).clamp(0, 1)
        return torch.where(is_ground, ground + kept * (pictures - ground), pictures)

    @property
    def last_layer(self) -> Tensor:
        """The weight that writes the pixels."""
        return self.head.weight

    def _pixels(self, features: Float[Tensor, "b e p q"], scale: int) -> Float[Tensor, "b c _ _"]:
        """Return what is added to the enlarged drawing at a scale: the mean over those of the largest."""
        side = self.downsampling_factor * scale // self._finest
        factor = max(self.config.scales) // scale
        assert self.head.bias is not None
        weight = _averaged(self.head.weight.flatten(1), factor)
        bias = _averaged(self.head.bias[:, None], factor)
        return F.pixel_shuffle(_HEAD_GAIN * F.conv2d(features, weight[..., None, None], bias[:, 0]), side)


class CodeNeighbourhood(nn.Module):
    """Add up a vector for each code around a place, by which code it is and where; nothing lies beyond the border.

    Args:
        num_codes: of the codebook.
        side: of the square of codes, odd.
        width: of the vectors.
        channels: that they are mapped to.
    """

    def __init__(self, num_codes: int, side: int, width: int, channels: int) -> None:
        super().__init__()
        self.num_codes, self.side = num_codes, side
        self.vectors = nn.Embedding(side * side * (num_codes + 1), width)
        nn.init.normal_(self.vectors.weight, std=1.0 / side)
        self.project = initialise_convolution(nn.Conv2d(width, channels, 1), gain=1.0)

    def forward(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b e r s"]:
        """Return the mapped sums."""
        rows, columns = codes.shape[1:]
        padded = F.pad(codes + 1, [self.side // 2] * 4)  # 0 is beyond the border
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
    """Add two convolutions of the normalised input to the input.

    Args:
        channels: width in, between and out.
        kernel_size: of the first convolution, odd; the second looks at one place.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b e p q"]) -> Float[Tensor, "b e p q"]:
        """Refine features at one resolution."""
        return x + self.second(F.silu(self.first(_normalised(x))))


def _normalised(x: Float[Tensor, "b e p q"]) -> Float[Tensor, "b e p q"]:
    """Return features whose root mean square at each place is 1."""
    return x * (x.float().square().mean(1, keepdim=True) + 1e-4).rsqrt().to(x.dtype)


def _averaged(rows: Float[Tensor, "n e"], factor: int) -> Float[Tensor, "m e"]:
    """Return the rows of a head that writes the means of squares of pixels.

    Args:
        rows: one for each pixel of a place, colour by colour.
        factor: pixels along one side of the squares.
    """
    if factor == 1:
        return rows
    side = round((len(rows) // 3) ** 0.5)
    squares = rows.view(3, side // factor, factor, side // factor, factor, -1)
    # Added up plane by plane: PyTorch's sum over such axes takes 25 times as long (torch 2.13, CPU).
    lines = sum(squares.unbind(2)[1:], squares.unbind(2)[0])
    added = sum(lines.unbind(3)[1:], lines.unbind(3)[0])
    return (added / factor**2).flatten(0, 2)


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
        for part in weight.detach().contiguous().view(-1).split(1 << 20):  # no second copy of a large table
            digest.update(part.to("cpu", dtype).float().numpy().data)
    return digest.hexdigest()[:16]
