"""Choice of device and dtype."""

import torch

from cogview.data.ranks import Ranks
from cogview.errors import UsageError


def device_of_rank(device: str | None, ranks: Ranks) -> str | None:
    """Return the requested device, or the rank's own GPU if several processes share a machine."""
    if ranks.num_ranks > 1 and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{ranks.local_rank}"
    return device


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return the requested device, or the best available.

    Raises:
        UsageError: the device is unknown or not available.
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
    """Return the requested dtype, or the default of the device; None on a CPU.

    None means float32, or int8 for weights that are stored as int8.

    Raises:
        UsageError: the transformer cannot compute in that dtype, or not on that device.
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
    resolved = known.get(dtype) if isinstance(dtype, str) else dtype
    if resolved not in known.values():
        raise UsageError(f"dtype {dtype} is not one of {', '.join(known)}")
    if resolved == torch.int8 and device.type != "cpu":
        raise UsageError(f"int8 weights are for the CPU, got device {device}: leave the dtype out")
    return resolved
