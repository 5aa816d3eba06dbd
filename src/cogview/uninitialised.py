"""Construction of modules without initialising their weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def uninitialised(device: torch.device | str) -> Iterator[None]:
    """Build modules on a device without initialising weights or advancing generators.

    On the meta device this saves time: to initialise there, PyTorch imports its compiler, which takes longer than
    drawing a picture.

    Args:
        device: "meta" for shapes only.
    """
    with torch.device(device), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """Skips the functions of `torch.nn.init`, and leaves random tensors empty."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in (torch.rand, torch.randn):
            func, kwargs = torch.empty, {name: value for name, value in kwargs.items() if name != "generator"}
        return func(*args, **kwargs)
