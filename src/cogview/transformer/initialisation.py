"""Initial weights of a new transformer.

Differs from the paper, which draws all matrices from N(0, 0.02) and starts all norms at one: that is the default here
too, but a small model with a small budget learns slowly from it. Measurements are in
`docs/decisions/transformer-initialisation.md`.

Differs from the paper, which draws all matrices from N(0, 0.02) and starts all norms at one: that is the default here
too, but it is slow to learn from for a small model on a small budget. What was measured stands in
`docs/decisions/transformer-initialisation.md`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.errors import UsageError
from cogview.transformer.model import Transformer

_SHORTEST_PERIOD, _LONGEST_PERIOD = 4.0, 256.0


def start_branches(transformer: Transformer, gain: float) -> None:
    """Set the weights of the norms that end the residual branches.

    At 1, a Sandwich-LN branch adds fifty times a token's own embedding, so that early layers see the mean of all
    earlier tokens and hardly the token itself. At the scale of the embeddings they see both.

    Args:
        transformer: of layer norm placement `sandwich`; with others no norm ends a branch.
        gain: weight of every channel.
    """
    if gain != 1 and transformer.config.layer_norm != "sandwich":
        raise UsageError(
            f"branch_gain {gain} needs layer_norm sandwich, got {transformer.config.layer_norm}: leave it at 1"
        )
    for name, parameter in transformer.named_parameters():
        if name.endswith("output_norm.weight"):
            nn.init.constant_(parameter, gain)


@torch.no_grad()
def start_positions(
    transformer: Transformer, code_positions: Int64[np.ndarray, "n"], grid_rows: int, grid_columns: int
) -> None:
    """Initialise the embeddings of the codes' positions as waves over row and column.

    Random positions say nothing about neighbourhood: the position above has to be learned for each one. Of these waves,
    one linear map finds the code above anywhere. They are trained like any others, and are no larger than random ones.

    Args:
        transformer: whose position table to change.
        code_positions: position of each code of a picture, row after row.
        grid_rows: rows of codes.
        grid_columns: codes of a row.
    """
    table = transformer.embedding.positions.weight
    width = table.shape[1]
    if width % 4:
        raise UsageError(
            f"positions rows_and_columns need a hidden_size that is a multiple of 4, got {width}"
        )
    rows, columns = _waves(grid_rows, width // 2), _waves(grid_columns, width // 2)
    waves = torch.cat([rows.repeat_interleave(grid_columns, dim=0), columns.repeat(grid_rows, 1)], dim=1)
    # Sines and cosines have a mean square of 1/2, the table 0.02 squared.
    table[torch.from_numpy(code_positions)] = (0.02 * math.sqrt(2) * waves).to(table)


def _waves(num: int, width: int) -> Float[Tensor, "n d"]:
    """Return sines and cosines of 0, 1, 2, ... at periods from a few to many steps."""
    exponents = torch.linspace(0, 1, width // 2)
    periods = _SHORTEST_PERIOD * (_LONGEST_PERIOD / _SHORTEST_PERIOD) ** exponents
    angles = torch.arange(num)[:, None] * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def super_resolution_positions(
    table: Float[Tensor, "p d"],
    low_positions: Int64[np.ndarray, "n"],
    high_positions: Int64[np.ndarray, "m"],
    low_grid: tuple[int, int],
    num_positions: int,
) -> Float[Tensor, "q d"]:
    """Return a position table extended for the codes of an upscaled picture.

    A high code starts between the low codes around its place, by bilinear interpolation. So what the base has learnt of
    rows, columns and neighbourhood holds for it, and it finds the low code to copy from the first step on. All other
    new rows start at zero.

    Args:
        table: the base's.
        low_positions: position of each low code, row after row.
        high_positions: position of each high code, row after row; beyond the base's table.
        low_grid: rows and columns of the low codes.
        num_positions: rows of the new table.
    """
    rows, columns = low_grid
    factor = math.isqrt(len(high_positions) // len(low_positions))
    low = table[torch.from_numpy(low_positions)].T.reshape(1, -1, rows, columns)
    high = F.interpolate(low.float(), scale_factor=factor, mode="bilinear").flatten(2)[0].T
    upscaled = table.new_zeros(num_positions, table.shape[1])
    upscaled[: len(table)] = table
    upscaled[torch.from_numpy(high_positions)] = high.to(table)
    return upscaled
