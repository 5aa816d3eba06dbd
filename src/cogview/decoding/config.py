"""Settings of decoding: sampling, kernels, memory."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from cogview.errors import UsageError
from cogview.numbers import whole_number

LinearBackend = Literal["auto", "packed", "plain"]
"""Kernels of the linear maps: `packed` uses the layout of oneDNN or FBGEMM (CPU only), `plain` is PyTorch's default,
`auto` is packed where possible.
"""

Backend = LinearBackend | Literal["native"]
"""Kernels of a pass: `native` ones run all blocks in one call, on a CPU, compiled by Numba; the others are those of the
linear maps.
"""

DtypeName = Literal["float32", "bfloat16", "float16", "int8"]
"""Dtype of the weights; int8 has a scale for each row (CPU only)."""

CacheName = Literal["auto", "float32", "float16"]
"""Dtype of keys and values; `auto` on a CPU is that of the computation, but never bfloat16."""

KernelsName = Literal["auto", "native"]
"""Kernels that a user can ask for, of `Backend`."""

StepKind = Literal["auto", "graphs", "static", "plain"]
"""How the engine runs a pass.

`plain` launches kernels one by one. `static` pads a pass to one of a few shapes and reads nothing from the device
before its end. `graphs` also captures such a step in a CUDA graph and replays it. `auto` is plain, until graphs
have been measured on a GPU. Passes that fit no such step run plainly.
"""

Sampler = Literal["gumbel", "inversion"]
"""How the random numbers of a place become a code.

`gumbel` takes the code with the largest sum of logit and a number fixed by seed, place and code; `inversion`
looks up one number, fixed by seed and place, in the cumulative distribution. Both sample the same distribution.
Small changes of the logits rarely change the choice of `gumbel`, so guesses are right more often. `inversion`
reproduces pictures from before there was a choice.
"""

MIN_TEMPERATURE = 1e-6
"""Smallest above 0: logits divided by less overflow float32."""

MAX_GUIDANCE = 100
"""Far beyond what is useful; much more overflows float32."""

MIN_TOP_P = 1e-6
"""Smallest that a model's config may have."""

TOP_P = 0.8
"""Default of models without their own; found best for the bundled one."""


MIN_MEMORY_BYTES = 10**6
"""No model fits into less: a unit was forgotten."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How to sample codes.

    Applied in the order of the fields: logits are guided, then divided by the temperature; the `top_k` most probable
    codes are kept, and of these the fewest whose share of the kept probability reaches `top_p`.

    Args:
        guidance: unconditional + guidance * (conditional - unconditional); 1 is no guidance. Beyond the paper; needs a
            model trained with dropped texts, and computes twice the rows.
        temperature: below 1 prefers probable codes, above 1 flattens the distribution; 0 is greedy.
        top_k: number of codes to sample from; all if None.
        top_p: share of the probability to sample from, over 0 and up to 1; all if 1.
        sampler: how random numbers become codes.

    Raises:
        UsageError: a number is out of range.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    sampler: Sampler = "gumbel"

    def __post_init__(self) -> None:
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise UsageError(f"guidance must be between 0 and {MAX_GUIDANCE}, got {self.guidance}")
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or more, got {self.temperature}")
        if 0 < self.temperature < MIN_TEMPERATURE:
            raise UsageError(
                f"temperature must be at least {MIN_TEMPERATURE} or 0, got {self.temperature}; "
                "0 always takes the most probable code"
            )
        if self.top_k is not None and whole_number("top_k", self.top_k) < 1:
            raise UsageError(
                f"top_k must be at least 1, got {self.top_k}; leave it out to draw from all codes"
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must lie over 0 and be at most 1, got {self.top_p}")
        if self.sampler not in get_args(Sampler):
            raise UsageError(f"sampler must be gumbel or inversion, got {self.sampler!r}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of decoding; results do not depend on them, except for the rounding by `cache` and `kernels`.

    Args:
        max_batch: maximum number of pictures, or other requests, that run at once.
        memory_bytes: limit for the whole process; batches get smaller to keep it. Unlimited if None.
        cache: dtype of keys and values; float16 halves their memory.
        kernels: `native` ones, of Numba, are faster where few pictures are drawn at once on a CPU.

    Raises:
        UsageError: a number is out of range.
    """

    max_batch: int = 16
    memory_bytes: int | None = None
    cache: CacheName = "auto"
    kernels: KernelsName = "auto"

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, got {self.max_batch}")
        if self.memory_bytes is not None and self.memory_bytes < MIN_MEMORY_BYTES:
            raise UsageError(
                f"memory must be at least {MIN_MEMORY_BYTES:,} bytes, got {self.memory_bytes}; with a unit, like 6GiB"
            )
        if self.cache not in get_args(CacheName):
            raise UsageError(f"cache must be one of {', '.join(get_args(CacheName))}, got {self.cache!r}")
        if self.kernels not in get_args(KernelsName):
            raise UsageError(
                f"kernels must be one of {', '.join(get_args(KernelsName))}, got {self.kernels!r}"
            )


_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def bytes_of(size: str | int) -> int:
    """Parse an amount of memory.

    Args:
        size: bytes, or a number with a unit: 6GiB is 6 * 2^30, 6GB is 6 * 10^9.

    Raises:
        UsageError: it is no amount of memory.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", str(size).lower())
    if match is None or match[2] not in _UNITS or not math.isfinite(float(match[1])):
        raise UsageError(f"an amount of memory is a number with a unit, like 6GiB or 800MB, got {size!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def shown_bytes(num_bytes: int) -> str:
    """Format bytes in units of 2^20 or 2^30."""
    return f"{num_bytes / 2**30:.2f}GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f}MiB"
