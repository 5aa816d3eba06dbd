"""Beyond the paper: few dimensions, and only directions count."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cogview.image.quantizers.nearest_neighbour import NearestNeighbourQuantizer


class NormalisedQuantizer(NearestNeighbourQuantizer):
    """Nearest-neighbour codes on the unit sphere: encoder outputs and codebook are divided by their lengths.

    Distances are then cosines, no code is out of reach for its length, and with a `code_size` of 8 or so nearly all
    codes come into use. Trained by gradient like `NearestNeighbourQuantizer`.

    Args:
        config: the codebook's part of a tokenizer's configuration.

    Differs from the paper: it is not in it; ViT-VQGAN and LlamaGen train so.
    """

    def _prepared(self, vectors: Float[Tensor, "b d r s"]) -> Float[Tensor, "b d r s"]:
        return F.normalize(vectors.float(), dim=1)

    def _entries(self) -> Float[Tensor, "v d"]:
        return F.normalize(self.embed, dim=1)
