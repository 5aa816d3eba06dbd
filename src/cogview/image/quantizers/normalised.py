"""Codebook on the unit sphere; not in the paper."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cogview.image.quantizers.nearest_neighbour import NearestNeighbourQuantizer


class NormalisedQuantizer(NearestNeighbourQuantizer):
    """Nearest-neighbour codes with normalised encoder outputs and codebook.

    Distances become cosine distances, and with a `code_size` of about 8 nearly all codes are used. Trained by gradient
    like `NearestNeighbourQuantizer`.

    Differs from the paper: from ViT-VQGAN and LlamaGen.
    """

    def _prepared(self, vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
        return F.normalize(vectors.float(), dim=1)

    def _entries(self) -> Float[Tensor, "v d"]:
        return F.normalize(self.embed, dim=1)
