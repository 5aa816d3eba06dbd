"""Interface of quantizers."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Quantized grid of vectors.

    Args:
        vectors: the codes' vectors, with a gradient to the encoder.
        codes: index of each vector's codebook entry.
        loss: added to the reconstruction loss.
    """

    vectors: Float[Tensor, "b d r s"]
    codes: Int64[Tensor, "b r s"]
    loss: Float[Tensor, ""]


@runtime_checkable
class Quantizer(Protocol):
    """Codebook with a training method.

    The training task calls `update` after each step, outside the forward pass, so that the forward pass can be
    compiled. All state is in buffers or parameters, and hence in checkpoints.

    Paper: section 2.1 and figure 2, which compare four.
    """

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by its code's, with a gradient."""

    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector."""

    def look_up(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b d r s"]:
        """Return the vectors of codes."""

    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Learn from one step's encoder outputs and return metrics."""
