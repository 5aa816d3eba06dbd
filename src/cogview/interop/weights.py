"""Others' weights: are they plain numbers, and do they fit the model that their shapes told of?"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.autoencoder import Autoencoder
from cogview.image.tokenizer import inference_weights


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


def holds_real_numbers(tensor: Tensor) -> bool:
    """Return whether a tensor is dense and holds plain numbers: is neither quantized, complex nor without content."""
    is_odd = tensor.is_quantized or tensor.is_complex() or tensor.is_meta
    return tensor.layout == torch.strided and not is_odd


def as_float(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of others in float32.

    Raises:
        CogViewError: it is sparse, quantized, complex, or has no content.
    """
    if not holds_real_numbers(tensor):
        raise CogViewError(f"{name} holds no plain real numbers; have its owner save dense ones")
    return tensor.float()


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
