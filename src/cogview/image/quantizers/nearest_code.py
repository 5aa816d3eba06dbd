"""The search for nearest codes, and what is summed over each code's vectors."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# So many distances are held at a time (16 MiB in fp32): small enough for a processor's cache.
DISTANCES_AT_A_TIME = 2**22


def as_rows(vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "n d"]:
    """Return the vectors of a batch of grids as rows, in the order of the codes."""
    return vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1])


def as_grid(rows: Float[Tensor, "n d"], like: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
    """Return rows as a batch of grids of the shape of `like`: what `as_rows` undid."""
    b, d, r, s = like.shape
    return rows.view(b, r, s, d).permute(0, 3, 1, 2)


def nearest_codes(rows: Float[Tensor, "n d"], embed: Float[Tensor, "v d"]) -> Int64[Tensor, " n"]:
    """Return the index of the nearest entry of `embed` for each row, the lowest where two are equally near.

    |x - e|^2 without |x|^2, which is the same for all codes: one matrix product and one argmin.
    """
    norms = embed.square().sum(1)
    return torch.cat(
        [torch.addmm(norms, part, embed.T, alpha=-2.0).argmin(1) for part in in_parts(rows, len(embed))]
    )


def in_parts(rows: Float[Tensor, "n d"], num_codes: int) -> tuple[Tensor, ...]:
    """Return the rows in parts whose distances from all codes can be held at a time."""
    return torch.split(rows, max(1, DISTANCES_AT_A_TIME // num_codes))


def cluster_sums(
    rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], num_codes: int
) -> tuple[Float[Tensor, " v"], Float[Tensor, "v d"]]:
    """Return how many rows each code has and their sum; no one-hot matrix of rows x codes is made."""
    sizes = torch.bincount(codes, minlength=num_codes).to(rows.dtype)
    sums = rows.new_zeros(num_codes, rows.shape[1]).index_add_(0, codes, rows)
    return sizes, sums
