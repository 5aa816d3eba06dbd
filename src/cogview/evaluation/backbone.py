"""What sees pictures for the distances that are about more than pixels."""

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
    """What a backbone sees in pictures.

    Args:
        pooled: one vector a picture, for distances between sets.
        maps: feature maps of several layers, finest first, for distances between two pictures.
        logits: what the network takes each picture for, for scores of a set; None if it names no classes.
    """

    pooled: Float[Tensor, "b d"]
    maps: tuple[Float[Tensor, "b _ _ _"], ...]
    logits: Float[Tensor, "b v"] | None = None


@runtime_checkable
class Backbone(Protocol):
    """A trained network that turns pictures into features; the figures made from them carry its name."""

    @property
    def name(self) -> str:
        """Return the name of the network, as a part of a figure's name: `efficientnet_lite0`."""
        ...

    def __call__(self, images: Float[Tensor, "b c y x"], /) -> Features:
        """Return the features of images in [-1, 1], on whatever device they are."""
        ...


UNFITTING = (ImportError, RuntimeError, OSError, AttributeError)
"""What importing a package raises that needs torchvision, where that is absent or made for another torch."""


def unfitting(need: str, package: str, error: Exception) -> UsageError:
    """Return the error of a package that cannot be imported.

    Args:
        need: what needs which package.
        package: what pip calls it.
        error: what importing it raised.
    """
    release = torch.__version__.partition("+")[0]
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UsageError(
        f"{need}, and that a torchvision made for torch {release} ({reason}): "
        f"pip install torch=={release} torchvision {package}"
    )


def weights_in(path: Path) -> Any:
    """Return the content of a file of weights, of safetensors by its ending and else of PyTorch."""
    if path.suffix == ".safetensors":
        return load_file(regular_file(path))
    return torch.load(regular_file(path), map_location="cpu", weights_only=True)


@contextmanager
def reading_weights(path: Path, network: str, wanted: str) -> Iterator[None]:
    """Tell whatever is raised within, where damaged files raise nearly anything, as an error of the file.

    Args:
        path: the file.
        network: whose weights they should be.
        wanted: the file to give instead.

    Raises:
        CogViewError: it is missing, or something was raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CogViewError(f"{path}: no such file; check the path") from error
    except Exception as error:
        raise CogViewError(
            f"{path}: not the weights of {network} ({type(error).__name__}); give {wanted}"
        ) from error
