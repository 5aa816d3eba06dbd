"""Where a run computes and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from cogview.errors import UsageError
from cogview.training.config import ComputedPrecision


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn the device of a config into one that exists here.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch sees no CUDA device here; use auto or cpu.")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def computes_bfloat16(device: torch.device) -> bool:
    """Say whether the device has instructions for bfloat16; a CPU without them computes it, but many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # newer than torch 2.11
    if capabilities is not None:
        known = capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))  # the last on ARM
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def resolve_precision(
    precision: Literal["auto", "float32", "bfloat16", "bfloat16_o2", "float16_o2"], device: torch.device
) -> ComputedPrecision:
    """Turn the precision of a config into one that is computed: with "auto", bfloat16 where it is fast.

    Raises:
        UsageError: the device does not know bfloat16.
    """
    if precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    if precision.startswith("bfloat16") and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(
            f"precision is {precision}, which this GPU cannot compute; use float16_o2 or float32."
        )
    return precision


def autocast(precision: ComputedPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the loss is computed; O2 needs none, since its weights are of half precision.

    bfloat16 has the range of float32, so it needs no loss scale; weights, gradients and optimizer state stay
    float32, and so do the operations that autocast lists as delicate (norms, softmax, losses).
    """
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def master_weights_dtype(precision: ComputedPrecision) -> torch.dtype | None:
    """Return in what everything is computed over float32 master weights; None if there are none."""
    return {"bfloat16_o2": torch.bfloat16, "float16_o2": torch.float16}.get(precision)


def compiler_failure(device: torch.device) -> str | None:
    """Compile a trifle for the device and return why that failed in one line, or None if it works.

    torch.compile finds out only at the first call whether the machine has a compiler and Python's headers; a
    trifle finds it out before the run begins.
    """
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.zeros(8, device=device))
    except Exception as error:  # torch documents no common class for what a missing toolchain raises
        return str(error).strip().splitlines()[0]
    return None
