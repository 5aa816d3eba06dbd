"""Initialisation of a codebook from the encoder's outputs."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.image.quantizers.nearest_code import cluster_sums, nearest_codes

SEEDING_ROUNDS = 32
LLOYD_STEPS = 5


def initial_codebook(
    rows: Float[Tensor, "n d"], num_codes: int
) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"]]:
    """Return a codebook by k-means, and the number of rows of each code, at least 1.

    Starts from rows far from each other, then takes a few Lloyd steps.
    """
    embed = sample_spread_rows(rows, num_codes)
    for _ in range(LLOYD_STEPS):
        sizes, sums = cluster_sums(rows, nearest_codes(rows, embed), num_codes)
        means = sums / sizes.clamp_min(1.0)[:, None]
        embed = torch.where(sizes[:, None] > 0, means, embed)
    return embed, sizes.clamp_min(1.0)


def sample_indices(weights: Float[Tensor, " n"], num: int) -> Int64[Tensor, " k"]:
    """Sample different indices in proportion to their weights.

    NaN and infinity count as zero: after divergence the training loop reports it at its next reading of the losses, and
    no error of PyTorch may come before that.

    Args:
        weights: not negative; if all are zero, they count as equal.
        num: at most the number of weights.
    """
    return torch.multinomial(weights.nan_to_num(nan=0.0, posinf=0.0) + 1e-12, num)


def sample_spread_rows(rows: Float[Tensor, "n d"], num_codes: int) -> Float[Tensor, "v d"]:
    """Sample rows far from each other, in rounds, in proportion to the squared distance from the rows so far.

    With fewer rows than codes, rows are repeated with noise of a hundredth of the standard deviation, so that all codes
    differ.
    """
    num_chosen = min(num_codes, len(rows))
    per_round = -(-num_chosen // SEEDING_ROUNDS)
    distances = (rows - rows.mean(0)).square().sum(1)
    chosen = rows[:0]
    while len(chosen) < num_chosen:
        indices = sample_indices(distances, min(per_round, num_chosen - len(chosen)))
        chosen = torch.cat([chosen, rows[indices]])
        distances = (rows - chosen[nearest_codes(rows, chosen)]).square().sum(1)
    repeated = chosen[torch.arange(num_codes - num_chosen, device=rows.device) % num_chosen]
    noise = torch.randn_like(repeated) * (0.01 * rows.std() + 1e-6)
    return torch.cat([chosen, repeated + noise])
