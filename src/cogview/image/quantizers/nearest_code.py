"""Nearest-code search and sums over clusters."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Distances computed at a time: 16 MiB in fp32, to fit into a CPU cache.
DISTANCES_AT_A_TIME = 2**22


def as_rows(vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "n d"]:
    """Reshape grids to rows, in the order of the codes."""
    return vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1])


def as_grid(rows: Float[Tensor, "n d"], like: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
    """Reshape rows to grids in the shape of `like`, the inverse of `as_rows`."""
    b, d, r, s = like.shape
    return rows.view(b, r, s, d).permute(0, 3, 1, 2)


def nearest_codes(rows: Float[Tensor, "n d"], embed: Float[Tensor, "v d"]) -> Int64[Tensor, " n"]:
    """Return the index of the nearest entry of `embed` for each row, the lowest of equally near ones.

    Compares |x - e|^2 without |x|^2, which is equal for all codes: one matrix product and one argmin.
    """
    norms = embed.square().sum(1)
    return torch.cat(
        [torch.addmm(norms, part, embed.T, alpha=-2.0).argmin(1) for part in in_parts(rows, len(embed))]
    )


def in_parts(rows: Float[Tensor, "n d"], num_codes: int) -> tuple[Tensor, ...]:
    """Split rows so that the distances of a part from all codes fit into the cache."""
    return torch.split(rows, max(1, DISTANCES_AT_A_TIME // num_codes))


def cluster_sums(
    rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"], num_codes: int
) -> tuple[Float[Tensor, " v"], Float[Tensor, "v d"]]:
    """Return the number and sum of each code's rows, without a one-hot matrix."""
    sizes = torch.bincount(codes, minlength=num_codes).to(rows.dtype)
    sums = rows.new_zeros(num_codes, rows.shape[1]).index_add_(0, codes, rows)
    return sizes, sums
