"""Protocol of feature networks for distances between pictures, and loading of their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import regular_file


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a batch of pictures.

    Args:
        pooled: one vector per picture, for distances between sets.
        maps: feature maps of several layers, finest first, for distances between two pictures.
        logits: class logits, for scores of a set; None if the network has no classes.
    """

    pooled: Float[Tensor, "b d"]
    maps: tuple[Float[Tensor, "b _ _ _"], ...]
    logits: Float[Tensor, "b v"] | None = None


@runtime_checkable
class Backbone(Protocol):
    """Trained network from pictures to features."""

    @property
    def name(self) -> str:
        """Return the name of the network, which becomes part of its figures' names: `efficientnet_lite0`."""
        ...

    def __call__(self, images: Float[Tensor, "b c y x"], /) -> Features:
        """Return the features of images in [-1, 1], on any device."""
        ...


IMPORT_ERRORS = (ImportError, RuntimeError, OSError, AttributeError)
"""Errors of importing a package that needs torchvision, if that is missing or made for another torch."""


def import_failure(need: str, package: str, error: Exception) -> UsageError:
    """Return the error of a package that cannot be imported.

    Args:
        need: message that names the feature and the package.
        package: the package's name for pip.
        error: error of the import.
    """
    release = torch.__version__.partition("+")[0]
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UsageError(
        f"{need}, and that a torchvision made for torch {release} ({reason}): "
        f"pip install torch=={release} torchvision {package}"
    )


def weights_in(path: Path) -> Any:
    """Load a file of weights: safetensors if so named, else PyTorch."""
    if path.suffix == ".safetensors":
        return load_file(regular_file(path))
    return torch.load(regular_file(path), map_location="cpu", weights_only=True)


@contextmanager
def reading_weights(path: Path, network: str, wanted: str) -> Iterator[None]:
    """Turn any error inside the block into one about the file, since damaged files raise nearly anything.

    Args:
        path: the file.
        network: the network of the weights.
        wanted: the file to give instead.

    Raises:
        CogViewError: the file is missing, or the block raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CogViewError(f"{path}: no such file; check the path") from error
    except Exception as error:
        raise CogViewError(
            f"{path}: not the weights of {network} ({type(error).__name__}); give {wanted}"
        ) from error
