"""Folders of weights as the packages diffusers and transformers write them."""

from collections.abc import Callable, Collection
from pathlib import Path

from torch import Tensor

from cogview.errors import CogViewError
from cogview.files import read_json
from cogview.interop.checkpoint_file import read_named_tensors

_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Of files of weights; the first that a folder has are read."""

_INDEX = ".index.json"


def find_weights(folder: Path) -> Path:
    """Return the only file of weights in a folder, or the index of several.

    Raises:
        CogViewError: there is none, or there are several and no index.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return folder / (choose_index(names) or choose_file(names, str(folder)))


def is_index(path: Path) -> bool:
    """Return whether a file names the files of tensors."""
    return path.name.endswith(_INDEX)


def read_shards(
    index: Path, prefix_of: Callable[[Collection[str]], str]
) -> tuple[dict[str, Tensor], list[Path]]:
    """Return the tensors whose names have a prefix, memory-mapped, and the files that hold them.

    Args:
        index: of the files.
        prefix_of: returns the prefix among all names.

    Raises:
        CogViewError: the index is damaged; a file is missing or damaged, or lacks a tensor that the index names.
    """
    places = read_index(index)
    prefix = prefix_of(places.keys())
    wanted = {name: place for name, place in places.items() if name.startswith(prefix)}
    paths = [index.parent / place for place in sorted(set(wanted.values()))]
    tensors: dict[str, Tensor] = {}
    for path in paths:
        stored = read_named_tensors(path)
        for name in (name for name, place in wanted.items() if place == path.name):
            if name not in stored:
                raise CogViewError(f"{path} lacks {name}, which the index names; copy the folder again")
            tensors[name] = stored[name]
    return tensors, paths


def has_weights(folder: Path) -> bool:
    """Return whether a folder has a file of weights or an index of some."""
    return any(path.suffix in _ENDINGS or is_index(path) for path in folder.iterdir())


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
    indices = sorted(name for name in names if name.endswith(_INDEX))
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
