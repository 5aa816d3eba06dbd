"""Convolutions on GPUs in full float32 precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _Setting:
    """Number of active contexts, in any thread, and the setting before the first of them."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.num = 0
        self.before = ""


_setting = _Setting()


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Disable TF32 in cuDNN's convolutions within the context.

    PyTorch enables TF32, with 10 bits of mantissa, for convolutions by default; a picture's codes would then depend on
    the type of GPU. The setting applies to all threads until the last context ends.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    with _setting.lock:
        if not _setting.num:
            _setting.before = convolutions.fp32_precision
            convolutions.fp32_precision = "ieee"
        _setting.num += 1
    try:
        yield
    finally:
        with _setting.lock:
            _setting.num -= 1
            if not _setting.num:
                convolutions.fp32_precision = _setting.before
