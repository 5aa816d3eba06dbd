"""Convolutions that compute float32 as float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _Blocks:
    """How many blocks ask for it now, and what was set before the first of them; several threads may be in one each."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.num = 0
        self.before = ""


_blocks = _Blocks()


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Have GPUs keep all digits of float32 in convolutions, for a block.

    PyTorch lets cuDNN round their operands to TF32, to 10 bits behind the point, on GPUs since 2020; its matrix
    products it does not. Then a picture's codes would depend on the kind of GPU. bfloat16 is there for those who want
    speed. The setting is the whole process's, other threads included, until the last block ends.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    with _blocks.lock:
        if not _blocks.num:
            _blocks.before = convolutions.fp32_precision
            convolutions.fp32_precision = "ieee"
        _blocks.num += 1
    try:
        yield
    finally:
        with _blocks.lock:
            _blocks.num -= 1
            if not _blocks.num:
                convolutions.fp32_precision = _blocks.before
