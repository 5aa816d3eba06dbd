"""Steps of static shapes that CUDA graphs replay: one launch for all kernels of a pass.

A small pass is little work and many kernels, each of which the host has to launch, and a host that reads a value waits
for all of them. So a graph is captured once for a bucket of passes (`static_step.py`), and replayed from then on.

Steps draw pictures' codes, by Gumbel numbers, with dense attention. All else, and what would be padded too much, goes
the plain way (`Batch.draw`), which is the slow twin of this one.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from cogview.decoding.batch import Batch, Chosen, Planned
from cogview.decoding.config import StepKind
from cogview.decoding.drawing import Drawing
from cogview.decoding.pool import PagePool
from cogview.decoding.static_step import Bucket, Graph, Share, Step, bucket_of
from cogview.decoding.weights import Variant, Weights
from cogview.errors import UsageError

MAX_STEPS = 64
"""Buckets whose buffers and graphs are kept: those that were met last."""

_MAX_GROUPS = 2
"""Steps that a pass is made of at most: each reads the weights anew, for requests of one variant and one head."""

_CAPTURING = Lock()
"""PyTorch captures one graph at a time in a process."""


@runtime_checkable
class Recorder(Protocol):
    """What captures work."""

    def record(self, work: Callable[[], None]) -> Graph:
        """Return what repeats some work; the work is done at least once before."""
        ...


class CudaRecorder:
    """Captures CUDA graphs, all in one pool of memory: one runs at a time, and what it gives is copied out.

    Args:
        device: on which they run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Graph:
        """Return a graph of some work, which must read nothing from the device.

        Raises:
            RuntimeError: it cannot be captured.
        """
        # The outer context puts the stream back where the capture fails, which `torch.cuda.graph` does not (2.13).
        with _CAPTURING, torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream()):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                work()  # libraries take their workspaces for this stream before the capture
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, which decode pictures, go on meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                work()
        return graph


class StaticSteps:
    """Runs passes as steps of static shapes, and by graphs from the second time that a bucket is met.

    Args:
        weights: of the base.
        pool: of the rows; a page of it is taken.
        recorder: captures steps; they are computed anew each time without one.

    Attributes:
        num_passes: that went this way.
        num_captured: graphs that were captured.
        is_warming: whether the last pass was one of those that take longer since their bucket is new.
    """

    def __init__(self, weights: Weights, pool: PagePool, recorder: Recorder | None) -> None:
        self._weights, self._pool, self._recorder = weights, pool, recorder
        self._steps: OrderedDict[Bucket, Step] = OrderedDict()
        (self._spare_page,) = pool.allocate(1)
        self._keys = pool.keys
        self.num_passes = self.num_captured = 0
        self.is_warming = False

    def draw_batch(self, batch: Batch) -> list[Chosen] | None:
        """Draw for all requests of a pass, in their order; None if it is not one for steps."""
        self.is_warming = False
        groups: dict[tuple[Variant, range], list[int]] = {}
        shares = []
        for number, planned in enumerate(batch.jobs):
            work = planned.job.work
            if not isinstance(work, Drawing) or not _is_plain_picture(work):
                return None
            groups.setdefault((planned.job.variant, work.request.legal), []).append(number)
            shares.append(_share_of(planned, work))
        if len(groups) > _MAX_GROUPS:
            return None
        buckets = [
            bucket_of(variant, legal, [shares[number] for number in members])
            for (variant, legal), members in groups.items()
        ]
        found: dict[int, Chosen] = {}
        for bucket, members in zip(buckets, groups.values(), strict=True):
            if bucket is None or None in buckets:
                return None
            chosen = self.draw(bucket, [shares[number] for number in members])
            found |= zip(members, chosen, strict=True)
        self.num_passes += 1
        return [found[number] for number in range(len(shares))]

    def draw(self, bucket: Bucket, shares: Sequence[Share]) -> list[Chosen]:
        """Run the tokens of some requests, and draw at the places that they ask for.

        Args:
            bucket: that has room for them.
            shares: of the requests.
        """
        step, is_new = self._step_of(bucket)
        step.fill(shares, self._spare_page)
        if self._recorder is not None and step.graph is None:
            self.is_warming = True
            if not is_new:
                self._capture(step, self._recorder)
        if step.graph is None:
            step.compute()
        else:
            step.graph.replay()
        drawn = step.drawn
        chosen = []
        for number, share in enumerate(shares):
            start = number * bucket.num_new
            tokens, confidence, is_finite = drawn[:, start : start + len(share.places)]
            chosen.append(
                Chosen(tokens=tokens.astype(np.int64), confidence=confidence, is_finite=bool(is_finite.all()))
            )
        return chosen

    def _step_of(self, bucket: Bucket) -> tuple[Step, bool]:
        """Return a bucket's step, and whether it is new."""
        if self._keys is not self._pool.keys:  # the pool has grown, to another place
            self._steps.clear()
            self._keys = self._pool.keys
        is_new = bucket not in self._steps
        if is_new:
            self._steps[bucket] = Step(bucket, self._weights, self._pool)
            if len(self._steps) > MAX_STEPS:
                self._steps.popitem(last=False)
        self._steps.move_to_end(bucket)
        return self._steps[bucket], is_new

    def _capture(self, step: Step, recorder: Recorder) -> None:
        """Give a step a graph; where that cannot be, steps are computed from now on."""
        try:
            step.graph = recorder.record(step.compute)
            self.num_captured += 1
        except RuntimeError as error:
            self._recorder = None
            warnings.warn(
                f"a step could not be captured in a CUDA graph, so kernels are launched one by one: {error}",
                stacklevel=1,
            )


def _share_of(planned: Planned, work: Drawing) -> Share:
    return Share(
        runs=planned.runs,
        places=planned.places,
        states=[work.states_of(planned.places, which) for which in range(len(planned.runs))],
        sampling=work.request.sampling,
        key=work.key,
    )


def _is_plain_picture(work: Drawing) -> bool:
    """Return whether a request asks for nothing that a step leaves out."""
    request = work.request
    is_free = request.allowed is None and request.end is None
    return is_free and not request.is_scored and work.uniforms is None


def takes_steps(kind: StepKind, weights: Weights) -> bool:
    """Return whether passes are run as steps of static shapes where they can be.

    Args:
        kind: `auto` is plain, until graphs have been measured on a GPU.
        weights: of the base.

    Raises:
        UsageError: graphs are asked for where there is no CUDA.
    """
    device = weights.device.type
    if kind == "graphs" and device != "cuda":
        raise UsageError(f"graphs need CUDA, got {device}: take plain steps")
    return kind in ("static", "graphs") and weights.config.attention_pattern == "dense"


def static_steps(kind: StepKind, weights: Weights, pool: PagePool) -> StaticSteps | None:
    """Return what runs steps of static shapes, or None where none are to be run.

    Args:
        kind: `static` computes them, others capture them.
        weights: of the base.
        pool: of the rows, with a spare page.
    """
    if not takes_steps(kind, weights):
        return None
    return StaticSteps(weights, pool, None if kind == "static" else CudaRecorder(weights.device))
