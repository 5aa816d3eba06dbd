"""Others' weights: are they plain numbers, and do they fit the model that their shapes told of?"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import AutoencoderConfig
from cogview.image.tokenizer import ImageTokenizer, autoencoder_of, check_fit
from cogview.tensors import MisfitError, as_weights


def shape_of(tensors: Mapping[str, Tensor], name: str, num_axes: int) -> tuple[int, ...]:
    """Return the shape of a tensor that others' sizes are told by.

    Args:
        tensors: by name.
        name: of one of them.
        num_axes: how many it must have.

    Raises:
        CogViewError: it is missing, has another number of axes, or nothing in it.
    """
    shape = tuple(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) != num_axes or not all(shape):
        raise CogViewError(
            f"{name} is {'missing' if shape is None else shape}, wanted {num_axes} axes; the file is incomplete or of "
            "another layout"
        )
    return shape


def as_float(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of others in float32.

    Raises:
        CogViewError: it is sparse, quantized or complex, holds whole numbers, or has no content.
    """
    return as_weights(name, tensor).float()


def image_tokenizer_of(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> ImageTokenizer:
    """Return the image tokenizer that others' weights are.

    Args:
        config: that their shapes told of.
        weights: by our names.

    Raises:
        CogViewError: one is missing, too many, of another shape, or not finite.
    """
    try:
        check_fit(config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    except MisfitError as error:
        raise CogViewError(
            f"the tensors do not fit together ({error}); the file is incomplete or of another layout"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise CogViewError(
            "the weights hold values that are infinite or NaN; the file is damaged, copy it again"
        )
    return ImageTokenizer(autoencoder_of(config, weights))
