"""Codes by a learnt projection; not in the paper."""

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.gumbel import GumbelQuantizer
from cogview.image.quantizers.nearest_code import as_rows, in_parts


class ProjectedQuantizer(GumbelQuantizer):
    """Codes sampled by Gumbel-softmax, with the logits of a learnt linear map of the encoder's outputs.

    Outside training the code is the argmax of the logits. It need not be the nearest entry. The map starts as the one
    whose argmax is.

    Differs from the paper: from the Gumbel VQGAN of taming-transformers, which ruDALL-E uses.
    """

    def __init__(self, config: CodebookConfig):
        super().__init__(config)
        self.projection = nn.Linear(config.code_size, config.num_codes)
        self._sync_moved(torch.arange(config.num_codes))

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "b d r s"]) -> Int64[Tensor, "b r s"]:
        """Return the code of the largest logit of each vector, the lowest index of equally large ones."""
        b, _, r, s = vectors.shape
        with torch.autocast(vectors.device.type, enabled=False):
            parts = in_parts(as_rows(self._prepared(vectors)), self.config.num_codes)
            return torch.cat([self._distances(rows).argmin(1) for rows in parts]).view(b, r, s)

    @torch.no_grad()
    def mark_initialised(self) -> None:
        """Mark the codebook as initialised; the map has weights of its own."""
        self.is_initialised.fill_(True)

    def _distances(self, rows: Float32[Tensor, "n d"]) -> Float32[Tensor, "n v"]:
        return -self.projection(rows)

    @torch.no_grad()
    def _sync_moved(self, codes: Int64[Tensor, " k"]) -> None:
        embed = self.embed[codes]
        self.projection.weight[codes] = 2.0 * embed
        self.projection.bias[codes] = -embed.square().sum(1)
