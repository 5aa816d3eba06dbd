"""Int8 weight matrices with a scale for each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

LARGEST = 127
"""Largest magnitude; -128 is left out for symmetry."""

SCALE_SUFFIX = "_scale"
"""Suffix of the scales' name in a file."""

_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class QuantizedRows:
    """Weight rows as int8 values times a scale for each row.

    Scales have 16 significant bits, so that value times scale is exact in fp32, and quantizing again changes nothing.

    Args:
        values: -127 to 127.
        scales: of each row.
    """

    values: Int8[Tensor, "o i"]
    scales: Float[Tensor, "o"]

    @classmethod
    def of(cls, weight: Float[Tensor, "o i"]) -> "QuantizedRows":
        """Quantize weights of any floating dtype, the largest of each row to 127."""
        rows, weight = max(1, _CHUNK // max(1, weight.shape[1])), weight.detach()
        starts = range(0, max(1, len(weight)), rows)
        parts = [_quantized(weight[start : start + rows].float()) for start in starts]
        return cls(torch.cat([values for values, _ in parts]), torch.cat([scales for _, scales in parts]))

    def __getitem__(self, rows: slice) -> "QuantizedRows":
        """Return some of the rows, without a copy."""
        return QuantizedRows(self.values[rows], self.scales[rows])

    def floats(self) -> Float[Tensor, "o i"]:
        """Return the weights in fp32."""
        return self.values.float() * self.scales[:, None]

    def embedded(self, tokens: Int64[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Return the rows of some tokens, in fp32."""
        return self.values[tokens].float() * self.scales[tokens, None]


def is_quantized(name: str) -> bool:
    """Return whether a transformer's tensor is quantized: linear maps of blocks, token table and head."""
    return name in ("embedding.tokens.weight", "own_head.weight") or (
        name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name
    )


def _quantized(weight: Float[Tensor, "o i"]) -> tuple[Int8[Tensor, "o i"], Float[Tensor, "o"]]:
    largest = weight.abs().amax(dim=1) if weight.shape[1] else weight.new_zeros(len(weight))
    scales = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    # Rounded up to 16 significant bits, so that the largest is exactly 127 scales.
    scales = ((scales.view(torch.int32) + 0xFF) & ~0xFF).view(torch.float32)
    return (weight / scales[:, None]).round_().to(torch.int8), scales
