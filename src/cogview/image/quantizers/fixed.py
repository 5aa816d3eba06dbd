"""Method (d): the codebook stays where it was initialised."""

from jaxtyping import Float, Int64
from torch import Tensor

from cogview.image.config import CodebookConfig
from cogview.image.quantizers.codebook import Codebook


class FixedQuantizer(Codebook):
    """Nearest-neighbour codes of a codebook that never moves after its initialisation; the encoder moves to it.

    Args:
        config: the codebook's part of a tokenizer's configuration; nothing is revived, whatever it says.

    Paper: section 2.1, method (d).
    """

    def __init__(self, config: CodebookConfig):
        super().__init__(config, is_learnt_by_gradient=False)

    def _revive(self, rows: Float[Tensor, "n d"], codes: Int64[Tensor, " n"]) -> None:
        """Leave unused codes where they are."""
