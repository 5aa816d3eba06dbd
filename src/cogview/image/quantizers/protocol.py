"""What a model and the training loop ask of a codebook, however it learns."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What quantizing a grid of vectors gives.

    Args:
        vectors: the codes' vectors; gradients pass to the encoder as the quantizer lets them.
        codes: index of each vector's codebook entry.
        loss: what the quantizer adds to the reconstruction loss.
    """

    vectors: Float[Tensor, "b d r s"]
    codes: Int64[Tensor, "b r s"]
    loss: Float[Tensor, ""]


@runtime_checkable
class Quantizer(Protocol):
    """One of the ways to train a codebook.

    A quantizer owns its codebook. The model asks it for codes and vectors; the training task tells it about each step's
    vectors through `update`, outside the forward pass, so that the forward pass stays a function that can be compiled.
    Everything a quantizer learns lies in buffers or parameters, hence in checkpoints.

    Paper: section 2.1 and figure 2, which compare four.
    """

    def quantize(self, vectors: Float[Tensor, "b d r s"]) -> Quantized:
        """Replace each vector by its code's, for training."""

    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the nearest code of each vector."""

    def look_up(self, codes: Int64[Tensor, "b r s"]) -> Float[Tensor, "b d r s"]:
        """Return the vectors of codes."""

    def update(
        self, vectors: Float[Tensor, "b d r s"], codes: Int64[Tensor, "b r s"], step: int
    ) -> dict[str, Tensor]:
        """Learn from one step's encoder outputs and return metrics."""
