"""Quality of an image tokenizer's reconstructions, to detect pictures unlike its training data.

The mean over squares of their PSNR is used. The PSNR of a whole picture would not separate them: a drawing has edges
with large errors and flat ground without, a photograph small errors everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import UsageError

MAX_DB = 40.0
"""Upper bound of a square's PSNR: better ones look the same."""

BOUND_PERCENT = 1.0
"""Share of its own held-out pictures that are below the bound."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionQuality:
    """Distribution of `kept_db` over held-out pictures of a tokenizer's training data.

    Args:
        num_pictures: measured pictures.
        median_db: median.
        least_db: first percentile; pictures below it are not reproduced.

    Raises:
        UsageError: a number is out of range.
    """

    num_pictures: int
    median_db: float
    least_db: float

    def __post_init__(self) -> None:
        if self.num_pictures < 1 or not self.least_db <= self.median_db <= MAX_DB:
            raise UsageError(
                f"num_pictures must be 1 or more and least_db <= median_db <= {MAX_DB:g}, got {self.num_pictures}, "
                f"{self.least_db} and {self.median_db}"
            )

    @classmethod
    def of(cls, kept: Iterable[Float[Tensor, "_"]]) -> "ReconstructionQuality":
        """Summarize the `kept_db` of at least one picture."""
        values = torch.cat(list(kept)).double()
        least, median = torch.quantile(
            values, torch.tensor([BOUND_PERCENT / 100, 0.5], dtype=torch.float64)
        ).tolist()
        return cls(num_pictures=len(values), median_db=round(median, 2), least_db=round(least, 2))


@torch.no_grad()
def kept_db(
    images: Float[Tensor, "b c y x"], copies: Float[Tensor, "b c y x"], square_pixels: int
) -> Float[Tensor, "b"]:
    """Return the mean over squares of their PSNR in dB, at most 40 each.

    Args:
        images: in [-1, 1].
        copies: their reconstructions.
        square_pixels: side of the square that a code stands for.
    """
    squared = ((images - copies) / 2).square().mean(dim=1, keepdim=True)
    errors = F.avg_pool2d(squared, square_pixels).flatten(1)
    return (-10 * errors.clamp_min(10 ** (-MAX_DB / 10)).log10()).mean(dim=1).cpu()
