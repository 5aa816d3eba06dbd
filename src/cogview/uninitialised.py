"""Modules whose weights come from elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def uninitialised(device: torch.device | str) -> Iterator[None]:
    """Build modules on a device and leave their weights as they come: no generator moves.

    On the meta device there is nothing to draw, but trying to is slow: PyTorch imports its compiler to draw from a
    normal distribution there, which takes longer than to draw a picture.

    Args:
        device: "meta" for shapes alone.
    """
    with torch.device(device), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """Pass over the functions of `torch.nn.init`, and draw no random tensors."""

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
