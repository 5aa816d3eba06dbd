"""How codes are drawn from the transformer's distribution, and with which matrix kernels."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from cogview.errors import UsageError
from cogview.numbers import whole_number

LinearBackend = Literal["auto", "packed", "plain"]
"""Kernels of the linear maps: `packed` has weights in the layout that oneDNN or FBGEMM prefers (CPU only), `plain` is
what PyTorch runs by itself, `auto` is packed wherever that is possible."""

DtypeName = Literal["float32", "bfloat16", "float16", "int8"]
"""What weights are rounded to: floats, or whole numbers of 8 bits with a step for each row (CPU only)."""

CacheName = Literal["auto", "float32", "float16"]
"""What keys and values are held in: on a CPU, by default as the weights are computed in, but never in bfloat16."""

StepKind = Literal["auto", "graphs", "static", "plain"]
"""How the engine runs a pass.

`plain` launches what the pass needs, one kernel after the other. `static` pads it to one of a few shapes, and reads
nothing from the device before its end. `graphs` captures such a step in a CUDA graph as well, and replays it. `auto` is
plain: graphs have not been measured on a GPU yet. Passes that no such step fits go the plain way in all of them.
"""

Sampler = Literal["gumbel", "inversion"]
"""How the random number of a place becomes a code.

`gumbel` takes the code with the largest sum of its logit and a number fixed by seed, place and code; `inversion`
looks up a single number, fixed by seed and place, in the cumulative distribution. Both draw from the same distribution.
A small change of the logits seldom changes what `gumbel` draws, so guesses hold more often. What was drawn before
there was a choice was drawn by `inversion`.
"""

MIN_TEMPERATURE = 1e-6
"""The least above 0: logits divided by less leave the range of float32."""

MAX_GUIDANCE = 100
"""Far beyond what is of use; logits that are guided by much more leave the range of float32."""

MIN_TOP_P = 1e-6
"""The least that a model's config may name."""

TOP_P = 0.8
"""What models draw with that name nothing else; found best for the bundled one."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which of the legal codes may be drawn, and how boldly.

    They are applied in the order of the fields: logits are guided, then divided by the temperature, the `top_k` most
    probable codes are kept, and of these the fewest whose share of the kept probability reaches `top_p`.

    Args:
        guidance: with 1 logits are the text's; above, they go further in the direction in which the text moves them
            away from those without a text: without + guidance * (with - without). Beyond the paper; it needs a model
            that was trained with some texts dropped, and computes twice the rows.
        temperature: below 1 prefers probable codes, above 1 levels them; 0 always takes the most probable.
        top_k: codes to draw from; all if None.
        top_p: share of the probability to draw from, over 0 and up to 1; all if 1.
        sampler: how random numbers become codes.

    Raises:
        UsageError: a number outside its range.
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
    """What drawing may take of the machine; none of it changes what is drawn, but for the rounding of `cache`.

    Args:
        max_batch: pictures, or other requests, that are worked on at once; more wait.
        memory_bytes: of the whole process, with all that it holds already. Fewer pictures are worked on at once where
            more would need more; nothing is limited if None.
        cache: float16 halves keys and values.

    Raises:
        UsageError: an impossible number.
    """

    max_batch: int = 16
    memory_bytes: int | None = None
    cache: CacheName = "auto"

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, got {self.max_batch}")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise UsageError(f"memory must be greater than 0, got {self.memory_bytes} bytes")
        if self.cache not in get_args(CacheName):
            raise UsageError(f"cache must be one of {', '.join(get_args(CacheName))}, got {self.cache!r}")


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
    """Return an amount of memory in bytes.

    Args:
        size: bytes, or a number with a unit: 6GiB is 6 * 2^30, 6GB is 6 * 10^9.

    Raises:
        UsageError: it is neither.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", str(size).lower())
    if found is None or found[2] not in _UNITS or not math.isfinite(float(found[1])):
        raise UsageError(f"an amount of memory is a number with a unit, like 6GiB or 800MB, got {size!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def shown_bytes(num_bytes: int) -> str:
    """Return bytes as people read them, in units of 2^20 or 2^30."""
    return f"{num_bytes / 2**30:.2f}GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f}MiB"
