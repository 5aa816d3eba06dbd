"""Passes of static shapes, replayed by CUDA graphs: one launch for all kernels of a pass.

A small pass has little work and many kernels, each launched by the host. So a graph is captured once for each bucket of
passes (`static_step.py`) and replayed from then on.

Such passes sample pictures' codes by Gumbel numbers, with dense attention. All others, and those that would be padded
too much, run plainly (`Batch.draw`), the slow twin of this module.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from cogview.decoding.batch import Batch, JobShare, Sampled
from cogview.decoding.config import StepKind
from cogview.decoding.pool import PagePool
from cogview.decoding.running_sequence import RunningSequence
from cogview.decoding.static_step import Bucket, Graph, Step, StepInput, bucket_of
from cogview.decoding.weights import Variant, Weights
from cogview.errors import UsageError

MAX_STEPS = 64
"""Buckets whose buffers and graphs are cached, least recently used dropped first."""

_MAX_GROUPS = 2
"""Maximum steps in a pass, one per variant and head: each reads the weights anew."""

_CAPTURING = Lock()
"""PyTorch captures one graph at a time in a process."""


@runtime_checkable
class Recorder(Protocol):
    """Captures graphs."""

    def record(self, work: Callable[[], None]) -> Graph:
        """Return a graph that repeats some work; the work is done at least once before."""
        ...


class CudaRecorder:
    """Captures CUDA graphs in one memory pool: only one runs at a time, and its results are copied out.

    Args:
        device: to run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Graph:
        """Capture some work, which must read nothing from the device.

        Raises:
            RuntimeError: the capture failed.
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
    """Runs passes as steps of static shapes, by graphs from the second time that a bucket occurs.

    Args:
        weights: of the base.
        pool: of the rows; one of its pages is reserved.
        recorder: captures steps; without one they are computed each time.

    Attributes:
        num_passes: passes run this way.
        num_captured: graphs captured.
        is_warming: whether the last pass was slower since its bucket is new.
    """

    def __init__(self, weights: Weights, pool: PagePool, recorder: Recorder | None) -> None:
        self._weights, self._pool, self._recorder = weights, pool, recorder
        self._steps: OrderedDict[Bucket, Step] = OrderedDict()
        (self._spare_page,) = pool.allocate(1)
        self._keys = pool.keys
        self.num_passes = self.num_captured = 0
        self.is_warming = False

    def draw_batch(self, batch: Batch) -> list[Sampled] | None:
        """Sample for all requests of a pass, in order; None if the pass does not fit."""
        self.is_warming = False
        groups: dict[tuple[Variant, range], list[int]] = {}
        inputs = []
        for number, share in enumerate(batch.jobs):
            work = share.job.work
            if not isinstance(work, RunningSequence) or not _is_plain_picture(work):
                return None
            groups.setdefault((share.job.variant, work.request.legal), []).append(number)
            inputs.append(_step_input(share, work))
        if len(groups) > _MAX_GROUPS:
            return None
        buckets = [
            bucket_of(variant, legal, [inputs[number] for number in members])
            for (variant, legal), members in groups.items()
        ]
        results: dict[int, Sampled] = {}
        for bucket, members in zip(buckets, groups.values(), strict=True):
            if bucket is None or None in buckets:
                return None
            sampled = self.draw(bucket, [inputs[number] for number in members])
            results |= zip(members, sampled, strict=True)
        self.num_passes += 1
        return [results[number] for number in range(len(inputs))]

    def draw(self, bucket: Bucket, inputs: Sequence[StepInput]) -> list[Sampled]:
        """Run and sample requests of one bucket.

        Args:
            bucket: large enough for them.
            inputs: of the requests.
        """
        step, is_new = self._step_of(bucket)
        step.fill(inputs, self._spare_page)
        if self._recorder is not None and step.graph is None:
            self.is_warming = True
            if not is_new:
                self._capture(step, self._recorder)
        if step.graph is None:
            step.compute()
        else:
            step.graph.replay()
        sampled = step.sampled
        results = []
        for number, request in enumerate(inputs):
            start = number * bucket.num_new
            tokens, confidence, is_finite = sampled[:, start : start + len(request.places)]
            results.append(
                Sampled(
                    tokens=tokens.astype(np.int64), confidence=confidence, is_finite=bool(is_finite.all())
                )
            )
        return results

    def _step_of(self, bucket: Bucket) -> tuple[Step, bool]:
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
        """Capture a step; if that fails, stop capturing."""
        try:
            step.graph = recorder.record(step.compute)
            self.num_captured += 1
        except RuntimeError as error:
            self._recorder = None
            warnings.warn(
                f"a step could not be captured in a CUDA graph, so kernels are launched one by one: {error}",
                stacklevel=1,
            )


def _step_input(share: JobShare, work: RunningSequence) -> StepInput:
    return StepInput(
        runs=share.runs,
        places=share.places,
        states=[work.states_of(share.places, which) for which in range(len(share.runs))],
        sampling=work.request.sampling,
        key=work.key,
    )


def _is_plain_picture(work: RunningSequence) -> bool:
    """Return whether a request needs nothing that a static step lacks."""
    request = work.request
    is_free = request.allowed is None and request.end is None
    return is_free and not request.is_scored and work.uniforms is None


def takes_steps(kind: StepKind, weights: Weights) -> bool:
    """Return whether passes run as static steps where possible.

    Args:
        kind: `auto` is plain, until graphs have been measured on a GPU.
        weights: of the base.

    Raises:
        UsageError: graphs were requested without CUDA.
    """
    device = weights.device.type
    if kind == "graphs" and device != "cuda":
        raise UsageError(f"graphs need CUDA, got {device}: take plain steps")
    return kind in ("static", "graphs") and weights.config.attention_pattern == "dense"


def static_steps(kind: StepKind, weights: Weights, pool: PagePool) -> StaticSteps | None:
    """Return the runner of static steps, or None if disabled.

    Args:
        kind: `static` computes steps, `graphs` captures them.
        weights: of the base.
        pool: of the rows, with a spare page.
    """
    if not takes_steps(kind, weights):
        return None
    return StaticSteps(weights, pool, None if kind == "static" else CudaRecorder(weights.device))
