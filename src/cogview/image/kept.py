"""How much of a picture an image tokenizer keeps: by it a picture of another kind than the tokenizer learnt is told.

The PSNR of a whole picture does not tell them: a drawing is all edges, which cost much, and flat ground, which costs
nothing, while of a photograph everything is lost a little. So the PSNR is that of each square that a code stands for,
and their mean is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import UsageError

MAX_DB = 40.0
"""Of a square: what is kept better looks the same."""

TOLD_PERCENT = 1.0
"""Of its own held-out pictures, so many are kept worse than the bound."""


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """What a tokenizer keeps of pictures like those that it learnt from, in dB as `kept_db` measures it.

    Args:
        num_pictures: held-out pictures that were measured.
        median_db: of half of them more is kept.
        least_db: of 99 in 100 more is kept; of what is below, the tokenizer shows something else.

    Raises:
        UsageError: a number is impossible.
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
    def of(cls, kept: Iterable[Float[Tensor, "_"]]) -> "KeptPictures":
        """Sum up what was kept of pictures, one or more."""
        values = torch.cat(list(kept)).double()
        least, median = torch.quantile(
            values, torch.tensor([TOLD_PERCENT / 100, 0.5], dtype=torch.float64)
        ).tolist()
        return cls(num_pictures=len(values), median_db=round(median, 2), least_db=round(least, 2))


@torch.no_grad()
def kept_db(
    images: Float[Tensor, "b c y x"], copies: Float[Tensor, "b c y x"], square_pixels: int
) -> Float[Tensor, "b"]:
    """Return how like pictures their reconstructions are, in dB: the mean over squares of their PSNR, at most 40 each.

    Args:
        images: in [-1, 1].
        copies: what the tokenizer makes of them.
        square_pixels: side of the square that a code stands for.
    """
    squared = ((images - copies) / 2).square().mean(dim=1, keepdim=True)
    errors = F.avg_pool2d(squared, square_pixels).flatten(1)
    return (-10 * errors.clamp_min(10 ** (-MAX_DB / 10)).log10()).mean(dim=1).cpu()
