"""Folders of weights as the packages diffusers and transformers write them."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from cogview.errors import CogViewError
from cogview.files import read_json
from cogview.interop.checkpoint_file import read_named_tensors, read_state_dict

_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Of files of weights; the first that a folder has are read."""


class CheckpointFolder:
    """Folder with one file of weights, or with several and an index, which are memory-mapped.

    Args:
        folder: of the weights.

    Attributes:
        names: of all tensors; without the prefixes of wrappers if there is one file.
        used: files that were read.

    Raises:
        CogViewError: the folder or its file is damaged, or has several files of weights and no index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[Path] = []
        self._places: dict[str, str] = {}
        self._tensors: dict[str, Tensor] = {}
        names = [path.name for path in folder.iterdir() if path.is_file()]
        index = choose_index(names)
        if index is not None:
            self._places = read_index(folder / index)
        else:
            self.used = [folder / choose_file(names, str(folder))]
            self._tensors = read_state_dict(self.used[0])
        self.names: Collection[str] = self._tensors.keys() if index is None else self._places.keys()

    def read(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names have a prefix, from the files that hold them.

        Raises:
            CogViewError: a file is missing or damaged, or lacks a tensor that the index names.
        """
        if not self._places:
            return {name: each for name, each in self._tensors.items() if name.startswith(prefix)}
        wanted = {name: place for name, place in self._places.items() if name.startswith(prefix)}
        self.used = [self.folder / place for place in sorted(set(wanted.values()))]
        tensors: dict[str, Tensor] = {}
        for path in self.used:
            stored = read_named_tensors(path)
            for name in (name for name, place in wanted.items() if place == path.name):
                if name not in stored:
                    raise CogViewError(f"{path} lacks {name}, which the index names; copy the folder again")
                tensors[name] = stored[name]
        return tensors


def has_weights(folder: Path) -> bool:
    """Return whether a folder has a file of weights or an index of some."""
    return any(path.suffix in _ENDINGS or path.name.endswith(".index.json") for path in folder.iterdir())


def read_index(path: Path) -> dict[str, str]:
    """Return the name of the file of each tensor.

    Raises:
        CogViewError: the index is damaged, or names a file elsewhere.
    """
    content = read_json(path, "checkpoint")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(each, str) and each and each == Path(each).name for each in places.values())
    ):
        raise CogViewError(f"{path}: wanted a weight_map of files beside it; copy the folder again")
    return places


def choose_index(names: Collection[str]) -> str | None:
    """Return the index of several files of weights, that of safetensors first; None if there is none."""
    indices = sorted(name for name in names if name.endswith(".index.json"))
    return min(indices, key=lambda name: ".safetensors." not in name, default=None)


def choose_file(names: Collection[str], folder: str) -> str:
    """Return the file of weights; of several kinds the first of `_ENDINGS`, and whole rather than half precision.

    Args:
        names: of a folder's files.
        folder: for messages.

    Raises:
        CogViewError: there is none, or several of one kind.
    """
    for ending in _ENDINGS:
        found = sorted(name for name in names if name.endswith(ending))
        # "diffusion_pytorch_model.fp16.safetensors" lies beside the whole one.
        found = [name for name in found if "." not in name.removesuffix(ending)] or found
        if len(found) == 1:
            return found[0]
        if found:
            raise CogViewError(
                f"{folder} has several files of weights, {', '.join(found[:3])}: give one of them"
            )
    raise CogViewError(f"{folder} has no file of weights: check the path")
