"""Factory of quantizers."""

from collections.abc import Callable

from cogview.image.config import CodebookConfig, CodebookMethod
from cogview.image.quantizers.codebook import Codebook
from cogview.image.quantizers.fixed import FixedQuantizer
from cogview.image.quantizers.gumbel import GumbelQuantizer
from cogview.image.quantizers.moving_average import MovingAverageQuantizer
from cogview.image.quantizers.nearest_neighbour import NearestNeighbourQuantizer
from cogview.image.quantizers.normalised import NormalisedQuantizer
from cogview.image.quantizers.projected import ProjectedQuantizer

_CLASSES: dict[CodebookMethod, Callable[[CodebookConfig], Codebook]] = {
    "nearest_neighbour": NearestNeighbourQuantizer,
    "gumbel": GumbelQuantizer,
    "moving_average": MovingAverageQuantizer,
    "fixed": FixedQuantizer,
    "normalised": NormalisedQuantizer,
    "projected": ProjectedQuantizer,
}


def build_quantizer(config: CodebookConfig) -> Codebook:
    """Create the quantizer of `config.codebook`."""
    return _CLASSES[config.codebook](config)
