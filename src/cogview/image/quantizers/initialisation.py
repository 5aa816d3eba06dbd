"""Where a codebook starts: laid into the encoder's outputs."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.image.quantizers.nearest_code import cluster_sums, nearest_codes

SEEDING_ROUNDS = 32
LLOYD_STEPS = 5


def lay_into(rows: Float[Tensor, "n d"], num_codes: int) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"]]:
    """Return a codebook spread over the rows, and how many rows each code has, at least 1.

    A draw of rows far from each other, then a few of Lloyd's steps (k-means).
    """
    embed = spread_draw(rows, num_codes)
    for _ in range(LLOYD_STEPS):
        sizes, sums = cluster_sums(rows, nearest_codes(rows, embed), num_codes)
        means = sums / sizes.clamp_min(1.0)[:, None]
        embed = torch.where(sizes[:, None] > 0, means, embed)
    return embed, sizes.clamp_min(1.0)


def draw_in_proportion(weights: Float[Tensor, " n"], num: int) -> Int64[Tensor, " k"]:
    """Draw different indices in proportion to their weights.

    Weights that are NaN or infinite count as zero. When training has failed, the loop says so at its next reading of
    the losses, in words that help; no draw before that may end the run with an error of PyTorch's.

    Args:
        weights: not negative; all may be zero, and are equal then.
        num: how many, at most as many as there are weights.
    """
    return torch.multinomial(weights.nan_to_num(nan=0.0, posinf=0.0) + 1e-12, num)


def spread_draw(rows: Float[Tensor, "n d"], num_codes: int) -> Float[Tensor, "v d"]:
    """Draw rows far from each other: in rounds, each in proportion to the squared distance from those drawn before.

    With fewer rows than codes, the rest are the same rows with a little noise (a hundredth of the deviation), so that
    no two codes are equal.
    """
    num_drawn = min(num_codes, len(rows))
    per_round = -(-num_drawn // SEEDING_ROUNDS)
    distances = (rows - rows.mean(0)).square().sum(1)
    drawn = rows[:0]
    while len(drawn) < num_drawn:
        indices = draw_in_proportion(distances, min(per_round, num_drawn - len(drawn)))
        drawn = torch.cat([drawn, rows[indices]])
        distances = (rows - drawn[nearest_codes(rows, drawn)]).square().sum(1)
    repeated = drawn[torch.arange(num_codes - num_drawn, device=rows.device) % num_drawn]
    noise = torch.randn_like(repeated) * (0.01 * rows.std() + 1e-6)
    return torch.cat([drawn, repeated + noise])
