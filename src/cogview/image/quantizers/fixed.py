"""Method (d): fixed codebook."""

from jaxtyping import Float, Int64
from torch import Tensor

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.codebook import Codebook


class FixedQuantizer(Codebook):
    """Nearest-neighbour codes of a codebook that is fixed after initialisation; the encoder adapts to it.

    Args:
        config: of the codebook; its settings of revival are ignored.

    Paper: section 2.1, method (d).
    """

    def __init__(self, config: CodebookConfig):
        super().__init__(config, is_learnt_by_gradient=False)

    def _revive(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Do not move unused codes."""
