"""Where a model lies and what it is computed in."""

import torch

from cogview.data.ranks import Ranks
from cogview.errors import UsageError


def device_of_rank(device: str | None, ranks: Ranks) -> str | None:
    """Return the device that was asked for; of several processes on a machine, each takes a GPU of its own."""
    if ranks.num_ranks > 1 and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{ranks.local_rank}"
    return device


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return the device that was asked for, or the best one here.

    Raises:
        UsageError: it is unknown or not to be had here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        if place.type not in ("cpu", "cuda"):
            raise RuntimeError("only the CPU and CUDA are supported")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"device {device!s} cannot be used here ({reason}); leave it out, or give cpu"
        ) from error
    return place


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """Return the dtype that was asked for, or the one that fits the device.

    On a CPU that is None unless one was asked for: float32, or int8 for weights that are stored as such.

    Raises:
        UsageError: it isn't one that the transformer computes with, or not on this device.
    """
    if dtype is None:
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if is_fast else torch.float32 if device.type == "cuda" else None
    known = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "int8": torch.int8,
    }
    found = known.get(dtype) if isinstance(dtype, str) else dtype
    if found not in known.values():
        raise UsageError(f"dtype {dtype} is not one of {', '.join(known)}")
    if found == torch.int8 and device.type != "cpu":
        raise UsageError(f"int8 weights are for the CPU, got device {device}: leave the dtype out there")
    return found
