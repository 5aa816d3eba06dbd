"""Step of static shapes: a small pass padded to a bucket, without a read by the host.

Buckets are powers of two of requests, of a row's new tokens and of its pages. Inputs are copied to fixed buffers, and
results are read once, at the end. Padding is stored in a spare page, and its results are dropped.

Letters of the shapes: q requests, r rows, t new tokens of a row, j pages of a row, a places, w states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.decoding.attention_fused import attend_to_pages
from cogview.decoding.attention_layout import SlotMapping
from cogview.decoding.config import SamplingConfig
from cogview.decoding.forward import Part, run_blocks
from cogview.decoding.gumbel import draw_by_sorting
from cogview.decoding.pool import PAGE, PagePool
from cogview.decoding.proposer import MAX_WINDOW
from cogview.decoding.running_sequence import Run
from cogview.decoding.weights import Variant, Weights

MAX_STEP_TOKENS = 1024
"""Tokens above which kernels have so much work that launching them costs little."""

_FEW_TOKENS = 256
"""Tokens that cost a GPU no more than one, since the weights have to be read anyway."""

_MOST_PADDED = 4
"""Maximum ratio of padded to requested tokens, above `_FEW_TOKENS`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepInput:
    """Input of one request to a step.

    Args:
        runs: tokens of its row and, with guidance, of its unconditional row.
        places: to sample.
        states: for each row, index of the token with the state of each place.
        sampling: guidance, temperature, top-k and top-p.
        key: of its seed.
    """

    runs: Sequence[Run]
    places: Int64[np.ndarray, "a"]
    states: Sequence[Int64[np.ndarray, "a"]]
    sampling: SamplingConfig
    key: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Shapes and weights of the passes that one step can run.

    Args:
        variant: to run with.
        legal: tokens to sample from.
        num_requests: maximum requests.
        num_new: maximum new tokens of a row.
        num_pages: maximum pages of a row that its tokens see.
        is_guided: whether requests have an unconditional row.
        is_cut: whether a request has a top-k or top-p.
    """

    variant: Variant
    legal: range
    num_requests: int
    num_new: int
    num_pages: int
    is_guided: bool
    is_cut: bool

    @property
    def num_rows(self) -> int:
        """Number of rows of a step: the unconditional ones come last."""
        return self.num_requests * (2 if self.is_guided else 1)

    @property
    def num_places(self) -> int:
        """Number of places that a step samples."""
        return self.num_requests * self.num_new


def bucket_of(variant: Variant, legal: range, inputs: Sequence[StepInput]) -> Bucket | None:
    """Return the smallest bucket for a pass; None if it is too large or would be mostly padding."""
    runs = [run for request in inputs for run in request.runs]
    num_tokens = sum(len(run.tokens) for run in runs)
    num_new = _power_of_two(max(len(run.tokens) for run in runs))
    num_seen = max(-(-(run.row.length + len(run.tokens)) // PAGE) for run in runs)
    samplings = [request.sampling for request in inputs]
    bucket = Bucket(
        variant=variant,
        legal=legal,
        num_requests=_power_of_two(len(inputs)),
        num_new=num_new,
        num_pages=min(_power_of_two(num_seen), max(len(run.row.pages) for run in runs)),
        is_guided=any(len(request.runs) == 2 for request in inputs),
        is_cut=any(
            each.temperature > 0 and (each.top_p < 1 or (each.top_k or len(legal)) < len(legal))
            for each in samplings
        ),
    )
    num_run = bucket.num_rows * num_new
    is_wasteful = num_run > _FEW_TOKENS and num_run > _MOST_PADDED * num_tokens
    if num_new > MAX_WINDOW or num_run > MAX_STEP_TOKENS or is_wasteful:
        return None
    return bucket


def _power_of_two(num: int) -> int:
    return 1 << max(num - 1, 0).bit_length()


class _Buffers:
    """Host arrays and their device twins, with fixed addresses and one copy for all.

    Args:
        shapes: of each array.
        dtype: of all arrays.
        device: of the twins.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device
    ) -> None:
        num = sum(int(np.prod(shape)) for shape in shapes.values())
        self._host = torch.zeros(num, dtype=dtype, pin_memory=device.type == "cuda")
        self._device = torch.zeros(num, dtype=dtype, device=device)
        self.host: dict[str, np.ndarray] = {}
        self.device: dict[str, Tensor] = {}
        start = 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            self.host[name] = self._host[start:stop].view(shape).numpy()
            self.device[name] = self._device[start:stop].view(shape)
            start = stop

    def send(self) -> None:
        """Copy the host's arrays to the device; do not refill them before the device has read them."""
        self._device.copy_(self._host, non_blocking=True)


@runtime_checkable
class Graph(Protocol):
    """Captured graph."""

    def replay(self) -> None:
        """Run the graph again."""
        ...


class Step:
    """Buffers, computation and graph of a bucket.

    Args:
        bucket: fixes the shapes.
        weights: of the base.
        pool: of the rows.
    """

    def __init__(self, bucket: Bucket, weights: Weights, pool: PagePool) -> None:
        self.bucket = bucket
        self.graph: Graph | None = None
        self._weights, self._pool = weights, pool
        rows, new, places = bucket.num_rows, bucket.num_new, bucket.num_places
        counts: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("tokens", "positions", "last", "pages", "offsets"), (rows, new)
        )
        counts |= {"seen_pages": (rows, bucket.num_pages), "wanted": (rows * new,), "keys": (places, 2)}
        counts |= dict.fromkeys(("places", "top_k", "is_guided"), (places,))
        numbers = dict.fromkeys(("temperature", "top_p", "guidance"), (places,))
        self._counts = _Buffers(counts, torch.int64, weights.device)
        self._numbers = _Buffers(numbers, torch.float64, weights.device)
        self._sampled = torch.zeros(3, places, dtype=torch.float64, device=weights.device)

    def fill(self, inputs: Sequence[StepInput], spare_page: int) -> None:
        """Send the inputs of requests.

        Args:
            inputs: of the requests.
            spare_page: page of the pool for padding.
        """
        bucket, counts, numbers = self.bucket, self._counts.host, self._numbers.host
        for array in (*counts.values(), *numbers.values()):
            array.fill(0)  # at temperature 0 nothing is drawn
        counts["pages"].fill(spare_page)
        counts["seen_pages"].fill(spare_page)
        for number, request in enumerate(inputs):
            first = number * bucket.num_new
            span = slice(first, first + len(request.places))
            for which, (run, states) in enumerate(zip(request.runs, request.states, strict=True)):
                row = number + which * bucket.num_requests
                self._fill_row(row, run)
                behind = which * bucket.num_places
                counts["wanted"][behind + span.start : behind + span.stop] = row * bucket.num_new + states
            sampling, num_legal = request.sampling, len(bucket.legal)
            counts["places"][span] = request.places
            counts["keys"][span] = request.key
            counts["top_k"][span] = min(sampling.top_k or num_legal, num_legal)
            counts["is_guided"][span] = len(request.runs) - 1
            numbers["temperature"][span] = sampling.temperature
            numbers["top_p"][span] = sampling.top_p
            numbers["guidance"][span] = sampling.guidance
        self._counts.send()
        self._numbers.send()

    def _fill_row(self, row: int, run: Run) -> None:
        counts, num = self._counts.host, len(run.tokens)
        places = run.row.length + np.arange(num)
        pages = np.array(run.row.pages)
        counts["tokens"][row, :num] = run.tokens
        counts["positions"][row, :num] = run.positions
        counts["last"][row, :num] = places
        counts["pages"][row, :num] = pages[places // PAGE]
        counts["offsets"][row, :num] = places % PAGE
        # Not the spare page: what is not a number there would be seen through the mask.
        counts["seen_pages"][row] = pages[0]
        num_pages = min(len(pages), self.bucket.num_pages)
        counts["seen_pages"][row, :num_pages] = pages[:num_pages]

    @property
    def sampled(self) -> Float[np.ndarray, "3 a"]:
        """Tokens at each place, their confidence, and whether their logits are finite."""
        return self._sampled.cpu().numpy()

    def compute(self) -> None:
        """Compute from the buffers, without a read by the host and with shapes independent of values."""
        bucket, counts, numbers = self.bucket, self._counts.device, self._numbers.device
        variant, num_tokens = bucket.variant, bucket.num_rows * bucket.num_new
        x = run_blocks(
            self._weights,
            [Part(variant=variant, start=0, stop=num_tokens)],
            counts["tokens"].view(-1),
            counts["positions"].view(-1),
            self._attend_by(counts),
        )
        logits = variant.head(bucket.legal)(variant.final_norm(x[counts["wanted"]]))
        if bucket.is_guided:
            conditional, unconditional = logits.float().chunk(2)
            guided = (conditional - unconditional) * numbers["guidance"].float()[:, None] + unconditional
            logits = torch.where((counts["is_guided"] > 0)[:, None], guided, conditional)
        is_finite = torch.isfinite(logits.sum(dim=1, dtype=torch.float32))
        tokens, confidence = draw_by_sorting(
            logits.masked_fill(~is_finite[:, None], 0.0),
            numbers["temperature"],
            counts["top_k"],
            numbers["top_p"],
            counts["keys"],
            counts["places"],
            is_cut=bucket.is_cut,
        )
        self._sampled.copy_(torch.stack([tokens.double(), confidence.double(), is_finite.double()]))

    def _attend_by(self, counts: Mapping[str, Tensor]) -> Callable[[int, Tensor], Tensor]:
        bucket, pool = self.bucket, self._pool
        config, dtype, device = pool.config, pool.keys.dtype, pool.keys.device
        num_rows, num_new, width = bucket.num_rows, bucket.num_new, bucket.num_pages * PAGE
        slot_mapping = SlotMapping(
            tokens=None, pages=counts["pages"].view(-1), offsets=counts["offsets"].view(-1)
        )
        is_unseen = torch.arange(width, device=device) > counts["last"][:, None, :, None]
        biases = torch.zeros(num_rows, 1, num_new, width, dtype=dtype, device=device)
        biases.masked_fill_(is_unseen, -torch.inf)

        def attend(layer: int, query_key_value: Tensor) -> Tensor:
            heads = query_key_value.to(dtype).view(-1, 3, config.num_heads, config.head_size)
            query, key, value = heads.unbind(1)
            slot_mapping.write(pool.keys[layer], pool.values[layer], key, value)
            queries = query.view(num_rows, num_new, config.num_heads, config.head_size).transpose(1, 2)
            attended = attend_to_pages(
                queries, pool.keys[layer], pool.values[layer], counts["seen_pages"], biases
            )
            return attended.flatten(0, 1)

        return attend
