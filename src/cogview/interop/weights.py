"""Do converted weights fit the model that their shapes told of?"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.autoencoder import Autoencoder
from cogview.image.tokenizer import inference_weights


def check_weights(autoencoder: Autoencoder, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that an image tokenizer cannot work with.

    Args:
        autoencoder: what they are for.
        weights: by our names.

    Raises:
        CogViewError: one is missing, too many, of another shape, or not finite.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in inference_weights(autoencoder).items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if differing := sorted(name for name, _ in expected.items() ^ found.items()):
        name = differing[0]
        raise CogViewError(
            f"{name} of the image tokenizer is {found.get(name, 'missing')}, wanted {expected.get(name, 'none')}; "
            "the file is incomplete or of another layout"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise CogViewError(
            "the weights hold values that are infinite or NaN; the file is damaged, copy it again"
        )
