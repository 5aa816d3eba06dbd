"""Token and position embeddings, with a scaled gradient."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from cogview.transformer.config import TransformerConfig


def shrink_gradient(x: Float[Tensor, "*n"], scale: float) -> Float[Tensor, "*n"]:
    """Return `x` unchanged, with its gradient multiplied by `scale`.

    A smaller gradient of the embedding allows a larger loss scale in fp16.

    Paper: 2.4, emb * a + emb.detach() * (1 - a) with a = 0.1.
    """
    return x if scale == 1.0 else x * scale + x.detach() * (1 - scale)


class Embedding(nn.Module):
    """Sum of a token's embedding and its position's; the token table is also the output head."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.positions = nn.Embedding(config.num_positions, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.gradient_scale = config.embedding_gradient_scale

    def forward(self, tokens: Int[Tensor, "b t"], positions: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed tokens at their positions."""
        embedded = self.dropout(self.tokens(tokens) + self.positions(positions))
        return shrink_gradient(embedded, self.gradient_scale)
