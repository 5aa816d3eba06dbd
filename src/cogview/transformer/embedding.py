"""Token and position embeddings, with a scaled gradient."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.transformer.config import TransformerConfig


def shrink_gradient(x: Float[Tensor, "*n"], scale: float) -> Float[Tensor, "*n"]:
    """Return `x` unchanged, with its gradient multiplied by `scale`.

    A smaller gradient of the embedding allows a larger loss scale in fp16.

    Paper: 2.4, emb * a + emb.detach() * (1 - a) with a = 0.1.
    """
    return x if scale == 1.0 else x * scale + x.detach() * (1 - scale)


class Embedding(nn.Module):
    """Sum of a token's embedding and its position's; the token table may also be the output head.

    With positions by `rows_and_columns`, `positions` has the rows of all positions but the codes'.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.by_row_and_column = config.position_table == "rows_and_columns"
        num_positions = config.num_positions
        if self.by_row_and_column:
            num_positions -= config.grid.num_cells
            self.grid_rows = nn.Embedding(config.grid.num_rows, config.hidden_size)
            self.grid_columns = nn.Embedding(config.grid.num_columns, config.hidden_size)
        self.first_code_position = config.grid.first_position
        self.positions = nn.Embedding(num_positions, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.gradient_scale = config.embedding_gradient_scale

    def forward(self, tokens: Int[Tensor, "b t"], positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed tokens at their positions."""
        of_positions = (
            F.embedding(positions, self.position_table())
            if self.by_row_and_column
            else self.positions(positions)
        )
        return shrink_gradient(self.dropout(self.tokens(tokens) + of_positions), self.gradient_scale)

    def position_table(self) -> Float[Tensor, "p d"]:
        """Return the embedding of each position."""
        table = self.positions.weight
        if not self.by_row_and_column:
            return table
        cells = self.grid_rows.weight[:, None] + self.grid_columns.weight
        first = self.first_code_position
        return torch.cat([table[:first], cells.flatten(0, 1), table[first:]])

    def replace_positions(self, table: Float[Tensor, "p d"]) -> None:
        """Replace the embeddings of all positions by the rows of a table."""
        self.positions = nn.Embedding(*table.shape, _weight=table)
        if self.by_row_and_column:
            del self.grid_rows, self.grid_columns
        self.by_row_and_column = False
