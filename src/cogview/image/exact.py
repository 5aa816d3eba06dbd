"""Convolutions that compute float32 as float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Have GPUs keep all digits of float32 in convolutions, for a block.

    PyTorch lets cuDNN round their operands to TF32, to 10 bits behind the point, on GPUs since 2020; its matrix
    products it does not. Then a picture's codes would depend on the kind of GPU. bfloat16 is there for those who want
    speed. The setting is the whole process's, other threads included.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
