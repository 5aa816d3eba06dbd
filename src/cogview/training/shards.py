"""Sharded tensor files, written by several processes and read by any number of them.

The files are safetensors as PyTorch's distributed checkpoints write them, without pickles: each header says which part
of which tensor the file holds. They hold tensors only: with torch 2.13, a plain number makes a file that cannot be
read. Failures raise CheckpointException, which is not an Exception.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cogview.errors import CogViewError
from cogview.files import sha256_of
from cogview.training.processes import Processes


def write_shards(folder: Path, tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, str]:
    """Write sharded tensors, each part once, and return the SHA-256 of each file.

    Args:
        folder: empty, on a disk that all processes share.
        tensors: of the same names in all processes.
        processes: all of which call this.

    Raises:
        OSError: in all processes, if one could not write.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer, process_group=processes.agreement)
    except CheckpointException as error:
        raise next(cause for cause, _ in error.failures.values()) from error
    digests: dict[str, str] = {}
    failure: Exception | None = None
    try:
        own = folder.glob(f"shard-{processes.ranks.rank + 1:05d}-*")
        digests = {path.name: sha256_of(path) for path in own}
    except OSError as error:
        failure = error
    processes.agree(failure)
    return {name: digest for each in processes.gather(digests) for name, digest in each.items()}


def damage_of_shards(folder: Path, digests: Mapping[str, str], processes: Processes) -> str:
    """Return the damage in this process's share of the files, or "".

    Args:
        folder: holds the files.
        digests: the SHA-256 of each.
        processes: share the work.

    Raises:
        OSError: an existing file cannot be read.
    """
    for number, (name, digest) in enumerate(sorted(digests.items())):
        if processes.ranks.takes(number):
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256_of(folder / name) != digest:
                return f"{name} is not as it was written"
    return ""


def shapes_of_shards(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return the shape and dtype of each whole tensor.

    Raises:
        CogViewError: the headers claim more data than the files have.
    """
    metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    shapes = {
        name: (entry.size, entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    claimed = sum(shape.numel() * dtype.itemsize for shape, dtype in shapes.values())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if claimed > held:
        raise CogViewError(
            f"{folder} is damaged: its tensors would have {claimed:,} bytes, and its files have {held:,}; move it away "
            "to go on from the one before it."
        )
    return shapes


def read_shards(folder: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Read into tensors of any sharding.

    Args:
        folder: holds the files.
        tensors: to fill, with the stored names and shapes.
        processes: all of which call this.
    """
    with warnings.catch_warnings():
        # A single process reads without torch.distributed on purpose.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        load(
            dict(tensors),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            process_group=processes.agreement,
            no_dist=processes.mesh is None,
        )
