"""Device and precision of a run."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from cogview.errors import UsageError
from cogview.training.config import ComputedPrecision


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a config; "auto" is CUDA if there is one.

    Raises:
        UsageError: CUDA was requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch sees no CUDA device here; use auto or cpu.")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions; a CPU without them is many times slower."""
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
    """Return the precision to compute in; "auto" is bfloat16 where it is fast.

    Raises:
        UsageError: the device does not support bfloat16.
    """
    if precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    if precision.startswith("bfloat16") and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(
            f"precision is {precision}, which this GPU cannot compute; use float16_o2 or float32."
        )
    return precision


def autocast(precision: ComputedPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context to compute the loss in; O2 needs none, since its weights are in half precision.

    bfloat16 has the range of float32, so it needs no loss scale. Weights, gradients, optimizer state and the operations
    that autocast excludes (norms, softmax, losses) stay float32.
    """
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def master_weights_dtype(precision: ComputedPrecision) -> torch.dtype | None:
    """Return the dtype computed in with float32 master weights; None if there are none."""
    return {"bfloat16_o2": torch.bfloat16, "float16_o2": torch.float16}.get(precision)


def compiler_failure(device: torch.device) -> str | None:
    """Compile a trivial function for the device and return the error in one line, or None if it works.

    torch.compile notices a missing compiler or missing Python headers only at the first call; this checks beforehand.
    """
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.zeros(8, device=device))
    except Exception as error:  # errors of a missing toolchain have no common class
        return str(error).strip().splitlines()[0]
    return None
