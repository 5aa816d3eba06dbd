"""Method (c): codebook of moving averages."""

from jaxtyping import Float, Int64
from torch import Tensor

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.codebook import Codebook
from cogview.image.quantizers.nearest_code import cluster_sums


class MovingAverageQuantizer(Codebook):
    """Nearest-neighbour codes whose vectors are moving averages of the encoder outputs assigned to them.

    Paper: section 2.1, method (c), which pretraining uses.
    """

    embed_avg: Float[Tensor, "v d"]

    def __init__(self, config: CodebookConfig):
        super().__init__(config, is_learnt_by_gradient=False)
        self.register_buffer("embed_avg", self.embed.clone())

    def _learn(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        sizes, sums = cluster_sums(rows, codes, self.config.num_codes)
        self.cluster_size.lerp_(sizes, 1.0 - self.config.decay)
        self.embed_avg.lerp_(sums, 1.0 - self.config.decay)
        total, epsilon = self.cluster_size.sum(), self.config.smoothing_epsilon
        smoothed = (self.cluster_size + epsilon) / (total + self.config.num_codes * epsilon) * total
        self.embed.copy_(self.embed_avg / smoothed[:, None])

    def _sync_moved(self, codes: Int64[Tensor, " k"]) -> None:
        self.embed_avg[codes] = self.embed[codes] * self.cluster_size[codes, None]
