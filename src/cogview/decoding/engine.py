"""Decoding engine: each step is one forward pass for all running requests."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock, RLock

import numpy as np
import torch
from torch import Tensor

from cogview.decoding.attention_fused import attend_by_fused_kernel
from cogview.decoding.attention_layout import Attend, plan_layout
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.batch import Batch, Job
from cogview.decoding.config import Backend, Resources, StepKind
from cogview.decoding.forward import extend
from cogview.decoding.graphs import StaticSteps, static_steps, takes_steps
from cogview.decoding.guess_table import GuessTable
from cogview.decoding.linear import padded_rows
from cogview.decoding.pool import PagePool, Row
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import AnyRequest, Event, Failed, Finished, Progressed, Result
from cogview.decoding.scheduler import Scheduler
from cogview.decoding.threads import ThreadChoice, threads
from cogview.decoding.weights import Variant, Weights
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.model import Transformer
from cogview.transformer.stored import StoredTransformer


class Engine:
    """Runs any number of requests concurrently, with continuous batching.

    Requests may differ in text, token order, adapter and settings; they join at any step. On CPU, the tokens of a
    request are the same to the bit whatever else runs, with any window, number of threads or dtype. (Rows of the linear
    maps are padded where that keeps a row's sums the same in any batch; on a processor where `row_multiple` finds no
    such padding, this does not hold.) On CUDA, products of other batch sizes round differently, so a near tie may be
    sampled otherwise.

    Thread-safe.

    Args:
        weights: prepared.
        max_batch: requests that run at once.
        resources: `max_batch` together with memory and the cache's dtype.
        proposer: chooses the number of guesses to verify in a pass.
        steps: how to run passes: kernel by kernel, or as steps of static shapes, which CUDA graphs can replay.

    Raises:
        UsageError: graphs were requested without CUDA.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        max_batch: int = 16,
        resources: Resources | None = None,
        proposer: Proposer | None = None,
        steps: StepKind = "auto",
    ) -> None:
        self.weights = weights
        self._step_kind: StepKind = steps
        self._static_steps: StaticSteps | None = None
        self.proposer = proposer or Proposer()
        self.num_passes = 0
        self._threads: dict[int, ThreadChoice] = {}
        self._warm_passes: set[tuple[int, int]] = set()  # (threads, rows) of passes so far
        self._scheduler = Scheduler(
            weights,
            resources or Resources(max_batch=max_batch),
            num_spare_pages=int(takes_steps(steps, weights)),
        )
        self._step_lock = RLock()
        self._listener_lock = Lock()
        self._listeners: dict[int, list[Event]] = {}
        self._aborted: set[int] = set()

    def add(self, request: AnyRequest) -> int:
        """Submit a request, and return its number.

        Raises:
            UsageError: the transformer does not have its tokens or positions.
        """
        return self._scheduler.add(request)

    def abort(self, number: int) -> None:
        """Stop a request without another event; do nothing if it is done or unknown."""
        with self._listener_lock:
            self._listeners.pop(number, None)
            self._aborted.add(number)
        self._scheduler.abort(number)
        if self._step_lock.acquire(blocking=False):  # else the next pass does it
            try:
                self._scheduler.drop_aborted()
            finally:
                self._step_lock.release()

    def set_urgent(self, number: int, is_urgent: bool) -> None:
        """Give a request priority, so that others wait; or take it back.

        A pass for one request takes a small part of the time of a pass for many.
        """
        self._scheduler.set_urgent(number, is_urgent)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return self._scheduler.is_idle

    @property
    def max_batch(self) -> int:
        """Maximum number of requests that run at once."""
        return self._scheduler.max_batch

    def step(self) -> list[Event]:
        """Run one pass, and return the events of requests from `add`.

        A request that cannot run yields a `Failed`, and the others go on. If a whole pass fails, for instance out of
        memory, all its requests fail, and the engine stays usable.
        """
        with self._step_lock, torch.inference_mode():
            return self._dispatch(self._step())

    def run(self, requests: Sequence[AnyRequest]) -> list[Result]:
        """Run requests beside those of other callers, and return their results.

        Raises:
            CogViewError: a request failed; the others are stopped.
        """
        results: dict[int, Result] = {}
        with self.session() as session:
            numbers = [session.add(request) for request in requests]
            for event in session.events():
                if isinstance(event, Finished):
                    results[event.number] = event.result
        return [results[number] for number in numbers]

    @contextmanager
    def session(self) -> Iterator["Session"]:
        """Open a session; requests left at its end are stopped."""
        session = Session(self)
        try:
            yield session
        finally:
            session.close()

    def _add(self, request: AnyRequest, events: list[Event]) -> int:
        """Submit a request whose events go into a list."""
        with self._listener_lock:  # no event may come before the listener is known
            number = self._scheduler.add(request)
            self._listeners[number] = events
        return number

    def _step_for(self, events: list[Event]) -> list[Event]:
        """Take a session's events, after a pass if there are none yet."""
        with self._step_lock, torch.inference_mode():
            if not events:
                self._dispatch(self._step())
            pending, events[:] = list(events), []
        return pending

    def _drop_aborted(self) -> None:
        """Free the pages of aborted requests now."""
        with self._step_lock:
            self._scheduler.drop_aborted()

    def _dispatch(self, events: list[Event]) -> list[Event]:
        """Append events to their listeners' lists, and return those without a listener."""
        rest = []
        with self._listener_lock:
            for event in events:
                listener = self._listeners.get(event.number)
                if listener is not None:
                    listener.append(event)
                    if not isinstance(event, Progressed):
                        del self._listeners[event.number]
                elif event.number not in self._aborted:
                    rest.append(event)
            self._aborted.clear()
        return rest

    def _step(self) -> list[Event]:
        events: list[Event] = []
        try:
            jobs = self._scheduler.next_jobs()
            if jobs:
                events += self._pass(jobs)
        except Exception as error:
            events += [Failed(number=number, error=error) for number in self._scheduler.end_all()]
        failed, self._scheduler.failed = self._scheduler.failed, []
        return events + [Failed(number=number, error=error) for number, error in failed]

    def _pass(self, jobs: Sequence[Job]) -> list[Event]:
        """Run one pass for some jobs, with guesses that are worth it."""
        started = time.perf_counter()
        choice = self._thread_choice()
        num_threads = choice.next()
        with threads(num_threads):
            batch = self._plan(jobs)
            steps = self._steps()
            sampled = None if steps is None else steps.draw_batch(batch)
            if sampled is None:
                events = batch.draw(self._states(batch), self.proposer)
            else:
                events = batch.take(sampled, self.proposer)
        self.num_passes += 1
        self._scheduler.end(event.number for event in events if not isinstance(event, Progressed))
        seconds = time.perf_counter() - started
        kind = num_threads, int(padded_rows(np.array([len(batch.tokens)]))[0])
        if kind not in self._warm_passes and num_threads == choice.best:
            self._warm_passes.add(kind)  # compiling its kernels took part of the time
            return events
        if num_threads == choice.best and not (steps is not None and steps.is_warming):
            self.proposer.learn_pass(len(batch.tokens), seconds)
        choice.learn(num_threads, self.proposer.fixed_tokens + len(batch.tokens), seconds)
        return events

    def _steps(self) -> StaticSteps | None:
        """Return the runner of static steps, if enabled."""
        if self._static_steps is None:
            self._static_steps = static_steps(self._step_kind, self.weights, self._scheduler.pool)
        return self._static_steps

    def _states(self, batch: Batch) -> Tensor:
        """Run a plain pass, and return the states that its requests need, [w d]."""
        pool, device = self._scheduler.pool, self.weights.device
        rows, nums = [run.row for run in batch.runs], [len(run.tokens) for run in batch.runs]
        attend = attention_of(self.weights, pool, rows, nums)
        tokens, positions = (torch.from_numpy(each).to(device) for each in (batch.tokens, batch.positions))
        return extend(self.weights, batch.parts, tokens, positions, attend, batch.wanted)

    def _thread_choice(self) -> ThreadChoice:
        """Return the choice among thread counts up to PyTorch's current one; on a GPU always one."""
        most = torch.get_num_threads() if self.weights.device.type == "cpu" else 1
        return self._threads.setdefault(most, ThreadChoice(most))

    def _plan(self, jobs: Sequence[Job]) -> Batch:
        works = [job.work for job in jobs]
        windows = self.proposer.windows(
            [work.propose(self.proposer) for work in works],
            [len(work.rows) for work in works],
            sum(work.num_known for work in works),
        )
        return Batch(
            [(job, job.work.plan(num)) for job, num in zip(jobs, windows, strict=True)], self.weights
        )


def attention_of(weights: Weights, pool: PagePool, rows: Sequence[Row], nums_new: Sequence[int]) -> Attend:
    """Return the attention of a pass that adds so many tokens to each row."""
    is_cpu = weights.device.type == "cpu"
    layout = plan_layout(weights.config, rows, nums_new, weights.device, reads_units=is_cpu)
    if weights.native is not None:
        return weights.native.attention(pool, layout)
    return (attend_to_tables if is_cpu else attend_by_fused_kernel)(pool, layout)


class Session:
    """Requests of one caller.

    Args:
        engine: that runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events: list[Event] = []
        self._pending: set[int] = set()

    def add(self, request: AnyRequest) -> int:
        """Submit a request, also while `events` is iterated, and return its number."""
        number = self._engine._add(request, self._events)
        self._pending.add(number)
        return number

    def abort(self, number: int) -> None:
        """Stop a request without another event."""
        self._pending.discard(number)
        self._engine.abort(number)

    def events(self) -> Iterator[Event]:
        """Yield events until all requests are done, running passes as needed.

        Raises:
            CogViewError: a request failed.
        """
        while self._pending or self._events:
            yield from self.step()

    @property
    def num_pending(self) -> int:
        """Number of requests that wait or run."""
        return len(self._pending)

    def step(self) -> list[Event]:
        """Return the next events, after a pass if there are none yet.

        Raises:
            CogViewError: a request failed.
        """
        events = self.poll()
        for event in events:
            if isinstance(event, Failed):
                raise event.error
        return events

    def poll(self) -> list[Event]:
        """Return the next events, including failures, after a pass if there are none yet."""
        events = self._engine._step_for(self._events)
        self._pending.difference_update(event.number for event in events if not isinstance(event, Progressed))
        return events

    def close(self) -> None:
        """Stop all requests, and free their pages."""
        for number in self._pending:
            self._engine.abort(number)
        if self._pending:
            self._engine._drop_aborted()
        self._pending.clear()


@dataclass(frozen=True, kw_only=True, eq=False)
class Runner:
    """Engine together with the weights that a task's requests use.

    Args:
        engine: that runs the requests.
        variant: base or adapter.
        guess_table: of the model.
    """

    engine: Engine
    variant: Variant
    guess_table: GuessTable | None = None

    @classmethod
    def of(
        cls,
        transformer: Transformer | StoredTransformer,
        *,
        dtype: torch.dtype | None = None,
        backend: Backend = "auto",
        batch_invariant: bool = True,
        max_batch: int = 16,
        resources: Resources | None = None,
        proposer: Proposer | None = None,
        steps: StepKind = "auto",
        guess_table: GuessTable | None = None,
    ) -> "Runner":
        """Return the runner of a transformer, alone or with an adapter; arguments as for `Weights` and `Engine`."""
        base = transformer.base if isinstance(transformer, AdaptedTransformer) else transformer
        weights = Weights(base, dtype=dtype, backend=backend, batch_invariant=batch_invariant)
        engine = Engine(weights, max_batch=max_batch, resources=resources, proposer=proposer, steps=steps)
        runner = cls(engine=engine, variant=weights.base, guess_table=guess_table)
        return runner.adapted(transformer) if isinstance(transformer, AdaptedTransformer) else runner

    def adapted(self, transformer: AdaptedTransformer) -> "Runner":
        """Return the runner of an adapter of this transformer; it shares the engine and the guess table."""
        return replace(self, variant=self.engine.weights.variant(transformer))
