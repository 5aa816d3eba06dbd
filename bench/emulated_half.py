"""fp16 on machines that have none: every operation's result is rounded to fp16, the arithmetic stays fp32.

A CPU multiplies fp16 matrices a hundred times slower than fp32 ones. What decides whether a training overflows is the
range of what is stored between operations, and that is the same here: a kernel of a GPU, too, sums in fp32 and rounds
once at the end.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What these return after their first result are statistics that kernels keep in fp32.
_KEEP_STATISTICS = {
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def round_to_half(values: Tensor) -> Tensor:
    """Return fp32 values as fp16 would hold them, infinite beyond 65,504; others are returned as they are."""
    return values.half().float() if values.dtype == torch.float32 else values


class _FusedNorms(TorchFunctionMode):
    """Computes an RMSNorm as the one operation that it is on a GPU.

    On a CPU it is a row of operations, and what they would store in fp16 overflows where a kernel's own fp32 does not.
    In double precision nothing is rounded until the result is, and in the backward pass the gradient.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function."""
        given = kwargs or {}
        if func not in (F.rms_norm, torch.rms_norm):
            return func(*args, **given)
        return func(*map(_doubled, args), **{name: _doubled(each) for name, each in given.items()}).float()


def _doubled(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else value


class EmulatedHalf(TorchDispatchMode):
    """Round the result of each operation in the block to fp16, forward and backward.

    Parameters are not results: round them before. A loss that would be computed in fp32 belongs outside of the block.

    Paper: section 2.4, training in fp16.
    """

    def __init__(self) -> None:
        super().__init__()
        self._within = ExitStack()

    def __enter__(self) -> "EmulatedHalf":
        self._within.enter_context(_FusedNorms())
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._within.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and round what it returns."""
        returned = func(*args, **(kwargs or {}))
        if not isinstance(returned, tuple | list):
            return (
                _rounded(returned, func._schema.returns[0].alias_info) if func._schema.returns else returned
            )
        num_rounded = 1 if func in _KEEP_STATISTICS else len(returned)
        infos = [each.alias_info for each in func._schema.returns]
        infos += infos[-1:] * (len(returned) - len(infos))  # a list of tensors has one entry
        rounded = [
            _rounded(value, info) if index < num_rounded else value
            for index, (value, info) in enumerate(zip(returned, infos, strict=True))
        ]
        return type(returned)(rounded)


def _rounded(value: Any, alias: Any) -> Any:
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    if alias is None:
        return round_to_half(value)
    # A view shows what was rounded when it was written; what an operation writes to is rounded where it lies.
    return value.copy_(round_to_half(value)) if alias.is_write else value
