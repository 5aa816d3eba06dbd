"""Memory that drawing takes, estimated from sizes; used by `--memory` and `cogview plan`."""

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from cogview.decoding.config import Resources, shown_bytes
from cogview.decoding.linear import BLOCKS
from cogview.decoding.pool import num_pages_for, page_bytes
from cogview.errors import UsageError
from cogview.transformer.config import TransformerConfig

MAX_TOKENS = 4096
"""Maximum of new tokens in a pass, unless a single request needs more."""

PICTURE_BYTES = 24 * 2**20
"""Decoding a picture to pixels and writing it; as many run at a time as there are cores."""

_TOKENS_A_PASS = 128
"""Maximum of tokens in a pass of few rows, filled up by guesses."""

_BYTES_A_LOGIT = 36
"""Logits, probabilities and Gumbel numbers: bytes for each legal token."""


def rows_bytes(config: TransformerConfig, lengths: Sequence[int], dtype: torch.dtype) -> int:
    """Return the bytes of keys and values of rows, in whole pages.

    Args:
        config: of the transformer.
        lengths: maximum tokens of each row.
        dtype: of the cache.
    """
    return page_bytes(config, dtype) * sum(num_pages_for(config, length) for length in lengths)


def pass_bytes(
    config: TransformerConfig, num_legal: int, num_rows: int, num_new: int, max_tokens: int
) -> int:
    """Return the temporary bytes of a pass on a CPU.

    Args:
        config: of the transformer.
        num_legal: legal tokens.
        num_rows: rows that sample.
        num_new: tokens of the first pass.
        max_tokens: of a row.
    """
    d, num_pages = config.hidden_size, num_pages_for(config, max_tokens)
    num_drawn = max(num_rows, _TOKENS_A_PASS)
    # Activations; which rows of the tables of keys and values are weighed, and by what.
    a_token = 4 * (8 + config.mlp_factor) * d + 12 * num_pages * d + 16 * max_tokens * config.num_heads
    return num_drawn * _BYTES_A_LOGIT * num_legal + max(num_drawn, min(num_new, MAX_TOKENS)) * a_token


def decoding_bytes(num_pictures: int) -> int:
    """Return the bytes for decoding pictures to pixels concurrently, on a CPU."""
    return PICTURE_BYTES * min(num_pictures, os.cpu_count() or 1)


def code_bytes(dtype: torch.dtype) -> int:
    """Return the maximum bytes of code that oneDNN generates for a transformer's maps, on a CPU.

    For five shapes, one of them with and without GELU, and each number of rows: two buffers of 2^18 bytes, and more for
    many rows and outputs. FBGEMM's float16 products and those of int8 take next to none.

    Args:
        dtype: of the maps.
    """
    return 6 * len(BLOCKS) * 5 * 2**17 if dtype in (torch.float32, torch.bfloat16) else 0


def resident_bytes() -> int:
    """Return the memory of this process, or 0 where the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def peak_resident_bytes() -> int:
    """Return the most memory that this process had, or 0 where the system does not report it.

    On Linux not by `getrusage`, where a started process begins with the peak of the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows has no peak
        return resident_bytes()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def return_freed_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Budget:
    """Memory limit of a process.

    Args:
        resources: with the limit; no limit if it has none.
        held_bytes: memory of the process apart from requests.
    """

    def __init__(self, resources: Resources, held_bytes: int) -> None:
        self._resources = resources
        self._held_bytes = held_bytes

    def has_room(self, num_bytes: int) -> bool:
        """Return whether so many bytes fit beside the process."""
        limit = self._resources.memory_bytes
        return limit is None or self._held_bytes + num_bytes <= limit

    def check(self, num_bytes: int) -> None:
        """Refuse a request that does not fit even alone.

        Raises:
            UsageError: it does not fit; says which limit it needs.
        """
        limit = self._resources.memory_bytes
        if limit is not None and not self.has_room(num_bytes):
            min_bytes = self._held_bytes + num_bytes
            raise UsageError(
                f"{shown_bytes(limit)} of memory are too little: the process and its weights take "
                f"{shown_bytes(self._held_bytes)}, and this request {shown_bytes(num_bytes)} more; give "
                f"{shown_bytes(min_bytes + 2**20)}, or try int8 weights or a float16 cache"
            )
