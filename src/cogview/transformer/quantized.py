"""Matrices of weights as whole numbers of 8 bits with a step for each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

LARGEST = 127
"""Magnitude of the numbers; -128 is left out, so that they are symmetric."""

SCALE_SUFFIX = "_scale"
"""What the name of a matrix's steps has behind the matrix's own in a file."""

_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class QuantizedRows:
    """Rows of weights: a whole number times the step of its row.

    Steps have 16 significant bits, so that number times step is exact in fp32, and rows that were quantized once come
    out the same when they are quantized again.

    Args:
        numbers: -127 to 127.
        steps: of each row.
    """

    numbers: Int8[Tensor, "o i"]
    steps: Float[Tensor, "o"]

    @classmethod
    def of(cls, weight: Float[Tensor, "o i"]) -> "QuantizedRows":
        """Round weights of any floating dtype to the nearest, the largest of each row to 127."""
        rows, weight = max(1, _CHUNK // max(1, weight.shape[1])), weight.detach()
        starts = range(0, max(1, len(weight)), rows)
        parts = [_quantized(weight[start : start + rows].float()) for start in starts]
        return cls(torch.cat([numbers for numbers, _ in parts]), torch.cat([steps for _, steps in parts]))

    def __getitem__(self, rows: slice) -> "QuantizedRows":
        """Return some of the rows, without copying them."""
        return QuantizedRows(self.numbers[rows], self.steps[rows])

    def floats(self) -> Float[Tensor, "o i"]:
        """Return what the rows stand for, in fp32."""
        return self.numbers.float() * self.steps[:, None]

    def embedded(self, tokens: Int64[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Return the rows of some tokens, in fp32."""
        return self.numbers[tokens].float() * self.steps[tokens, None]


def is_quantized(name: str) -> bool:
    """Return whether a transformer's tensor is quantized: the maps of its blocks and its token table are."""
    return name == "embedding.tokens.weight" or (
        name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name
    )


def _quantized(weight: Float[Tensor, "o i"]) -> tuple[Int8[Tensor, "o i"], Float[Tensor, "o"]]:
    largest = weight.abs().amax(dim=1) if weight.shape[1] else weight.new_zeros(len(weight))
    steps = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    # Upwards to 16 significant bits: the largest then is 127 steps to the bit.
    steps = ((steps.view(torch.int32) + 0xFF) & ~0xFF).view(torch.float32)
    return (weight / steps[:, None]).round_().to(torch.int8), steps
