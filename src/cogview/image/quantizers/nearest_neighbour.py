"""Method (a): codebook trained by gradient."""

from jaxtyping import Float
from torch import Tensor

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.codebook import Codebook


class NearestNeighbourQuantizer(Codebook):
    """Nearest-neighbour codes whose vectors the optimizer moves towards the encoder outputs assigned to them.

    Paper: section 2.1, method (a): straight-through gradient, codebook loss and commitment loss.
    """

    def __init__(self, config: CodebookConfig):
        super().__init__(config, is_learnt_by_gradient=True)

    def _loss(
        self, vectors: Float[Tensor, "b d r s"], nearest: Float[Tensor, "b d r s"]
    ) -> Float[Tensor, ""]:
        codebook = self.config.codebook_weight * (vectors.detach() - nearest).square().mean()
        return codebook + super()._loss(vectors, nearest)
