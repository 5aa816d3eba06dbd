"""The engine: requests come and go, and each step is one pass of the transformer for all that are being worked on."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock, RLock

import numpy as np
import torch
from torch import Tensor

from cogview.decoding.attention_fused import attend_by_fused_kernel
from cogview.decoding.attention_tables import attend_to_tables
from cogview.decoding.batch import Batch, Job
from cogview.decoding.config import LinearBackend, Resources, StepKind
from cogview.decoding.forward import extend
from cogview.decoding.graphs import StaticSteps, static_steps, takes_steps
from cogview.decoding.guess_table import GuessTable
from cogview.decoding.linear import padded_rows
from cogview.decoding.places import find_places
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import AnyRequest, Event, Failed, Finished, Progressed, Result
from cogview.decoding.scheduler import Scheduler
from cogview.decoding.threads import ThreadChoice, threads
from cogview.decoding.weights import Variant, Weights
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.model import Transformer
from cogview.transformer.stored import StoredTransformer


class Engine:
    """Works on any number of requests side by side: each step is one pass of the transformer.

    Requests of unlike text, order of tokens, adapter and settings run in one batch, more come at any step, and places
    that fall free are taken at once. What a request gives depends on nothing but itself: on CPU its tokens are the
    same, to the bit, whatever else is worked on at the same time, however wide windows are, with any number of threads
    and in whichever dtype. (Rows of the linear maps are padded where that keeps a row's sums the same in any company;
    on a processor where no padding does, `row_multiple` finds none, and this does not hold.) On CUDA, products of
    another batch size round differently, so there a draw that is all but a tie may turn out otherwise.

    It may be used by several threads at once.

    Args:
        weights: prepared.
        max_batch: requests worked on at once; more wait.
        resources: the same, with memory and the cache's dtype; in the place of `max_batch`.
        proposer: says how many guesses are checked in one pass; one that learns it by default.
        steps: how passes are run: kernel by kernel, or as steps of static shapes, which CUDA graphs can replay.

    Raises:
        UsageError: graphs are asked for where there is no CUDA.
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
        self._attend_to = attend_to_tables if weights.device.type == "cpu" else attend_by_fused_kernel
        self._threads: dict[int, ThreadChoice] = {}
        self._met: set[tuple[int, int]] = set()  # numbers of threads and rows of passes so far
        self._scheduler = Scheduler(
            weights,
            resources or Resources(max_batch=max_batch),
            num_spare_pages=int(takes_steps(steps, weights)),
        )
        self._stepping = RLock()
        self._telling = Lock()
        self._listeners: dict[int, list[Event]] = {}
        self._silenced: set[int] = set()

    def add(self, request: AnyRequest) -> int:
        """Take a request, and return the number by which it is told of.

        Raises:
            UsageError: it has tokens or positions that the transformer does not have.
        """
        return self._scheduler.add(request)

    def abort(self, number: int) -> None:
        """Stop working on a request; nothing more is told of it. One that is done or unknown is left alone."""
        with self._telling:
            self._listeners.pop(number, None)
            self._silenced.add(number)
        self._scheduler.abort(number)
        if self._stepping.acquire(blocking=False):  # else the next pass does it
            try:
                self._scheduler.drop_aborted()
            finally:
                self._stepping.release()

    def set_urgent(self, number: int, is_urgent: bool) -> None:
        """Let a request that is worked on be so before others, which wait meanwhile; or no longer.

        A pass for one request takes a small part of the time of a pass for many.
        """
        self._scheduler.set_urgent(number, is_urgent)

    @property
    def is_idle(self) -> bool:
        """Return whether no request is waiting or being worked on."""
        return self._scheduler.is_idle

    @property
    def max_batch(self) -> int:
        """Return how many requests are worked on at once; more wait."""
        return self._scheduler.max_batch

    def step(self) -> list[Event]:
        """Run one pass, and return what came of it for requests that `add` took.

        A request that cannot be carried out gives a `Failed`, and the others go on. If the whole pass fails, for want
        of memory perhaps, all that took part in it have failed, and the engine can be used as before.
        """
        with self._stepping, torch.inference_mode():
            return self._told(self._step())

    def run(self, requests: Sequence[AnyRequest]) -> list[Result]:
        """Carry out requests, beside those that others have added, and return what they give.

        Raises:
            CogViewError: one failed; the others are stopped.
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
        """Give what takes requests whose events go to nobody else; what is left at the end is stopped."""
        session = Session(self)
        try:
            yield session
        finally:
            session.close()

    def _add(self, request: AnyRequest, events: list[Event]) -> int:
        """Take a request whose events go into a list."""
        with self._telling:  # so that nothing is told before it is known to whom
            number = self._scheduler.add(request)
            self._listeners[number] = events
        return number

    def _step_for(self, events: list[Event]) -> list[Event]:
        """Take what is told in a session's list, after a pass if nothing is there yet."""
        with self._stepping, torch.inference_mode():
            if not events:
                self._told(self._step())
            told, events[:] = list(events), []
        return told

    def _drop_aborted(self) -> None:
        """Give back what stopped requests hold, which the next pass would do otherwise."""
        with self._stepping:
            self._scheduler.drop_aborted()

    def _told(self, events: list[Event]) -> list[Event]:
        """Give those who listen what is told of their requests, and return the rest."""
        rest = []
        with self._telling:
            for event in events:
                listener = self._listeners.get(event.number)
                if listener is not None:
                    listener.append(event)
                    if not isinstance(event, Progressed):
                        del self._listeners[event.number]
                elif event.number not in self._silenced:
                    rest.append(event)
            self._silenced.clear()
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
        """Run what the next tokens of some requests need, and guesses that are worth it."""
        started = time.perf_counter()
        choice = self._thread_choice()
        num_threads = choice.next()
        with threads(num_threads):
            batch = self._planned(jobs)
            steps = self._steps()
            chosen = None if steps is None else steps.draw_batch(batch)
            if chosen is None:
                events = batch.draw(self._states(batch), self.proposer)
            else:
                events = batch.take(chosen, self.proposer)
        self.num_passes += 1
        self._scheduler.end(event.number for event in events if not isinstance(event, Progressed))
        seconds = time.perf_counter() - started
        met = num_threads, int(padded_rows(np.array([len(batch.tokens)]))[0])
        if met not in self._met and num_threads == choice.best:
            self._met.add(met)  # kernels are compiled for it, which says nothing of later passes
            return events
        if num_threads == choice.best and not (steps is not None and steps.is_warming):
            self.proposer.learn_pass(len(batch.tokens), seconds)
        choice.learn(num_threads, self.proposer.fixed_tokens + len(batch.tokens), seconds)
        return events

    def _steps(self) -> StaticSteps | None:
        """Return what runs passes of static shapes, if anything does."""
        if self._static_steps is None:
            self._static_steps = static_steps(self._step_kind, self.weights, self._scheduler.pool)
        return self._static_steps

    def _states(self, batch: Batch) -> Tensor:
        """Run a pass as it is, and return the states that its requests ask for, [w d]."""
        pool, device = self._scheduler.pool, self.weights.device
        rows, nums = [run.row for run in batch.runs], [len(run.tokens) for run in batch.runs]
        attend = self._attend_to(pool, find_places(self.weights.config, rows, nums, device))
        tokens, positions = (torch.from_numpy(each).to(device) for each in (batch.tokens, batch.positions))
        return extend(self.weights, batch.parts, tokens, positions, attend, batch.wanted)

    def _thread_choice(self) -> ThreadChoice:
        """Return what is known of numbers of threads up to the one that PyTorch has now; on a GPU there is one."""
        most = torch.get_num_threads() if self.weights.device.type == "cpu" else 1
        return self._threads.setdefault(most, ThreadChoice(most))

    def _planned(self, jobs: Sequence[Job]) -> Batch:
        """Return what a pass runs."""
        works = [job.work for job in jobs]
        windows = self.proposer.windows(
            [work.reach(self.proposer) for work in works],
            [len(work.rows) for work in works],
            sum(work.num_known for work in works),
        )
        return Batch(
            [(job, job.work.plan(num)) for job, num in zip(jobs, windows, strict=True)], self.weights
        )


class Session:
    """Requests of one caller, beside those of others.

    Args:
        engine: that works on them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events: list[Event] = []
        self._pending: set[int] = set()

    def add(self, request: AnyRequest) -> int:
        """Take a request, also while `events` is read, and return the number by which it is told of."""
        number = self._engine._add(request, self._events)
        self._pending.add(number)
        return number

    def abort(self, number: int) -> None:
        """Stop working on a request; nothing more is told of it."""
        self._pending.discard(number)
        self._engine.abort(number)

    def events(self) -> Iterator[Event]:
        """Yield what is told of the requests until all are done, running passes as they are needed.

        Raises:
            CogViewError: one failed.
        """
        while self._pending or self._events:
            yield from self.step()

    @property
    def num_pending(self) -> int:
        """Return how many requests are waiting or being worked on."""
        return len(self._pending)

    def step(self) -> list[Event]:
        """Return what is told of the requests, after a pass if nothing is there yet.

        Raises:
            CogViewError: one failed.
        """
        told = self.told()
        for event in told:
            if isinstance(event, Failed):
                raise event.error
        return told

    def told(self) -> list[Event]:
        """Return the same, failures among it."""
        told = self._engine._step_for(self._events)
        self._pending.difference_update(event.number for event in told if not isinstance(event, Progressed))
        return told

    def close(self) -> None:
        """Stop what is left, and give back what it holds."""
        for number in self._pending:
            self._engine.abort(number)
        if self._pending:
            self._engine._drop_aborted()
        self._pending.clear()


@dataclass(frozen=True, kw_only=True, eq=False)
class Runner:
    """An engine, and those of its weights that a task's requests take.

    Args:
        engine: runs them.
        variant: the base, or an adapter.
        guess_table: of pictures that its model has learnt.
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
        backend: LinearBackend = "auto",
        batch_invariant: bool = True,
        max_batch: int = 16,
        resources: Resources | None = None,
        proposer: Proposer | None = None,
        steps: StepKind = "auto",
        guess_table: GuessTable | None = None,
    ) -> "Runner":
        """Return one for a transformer, alone or with an adapter; the arguments are those of `Weights` and `Engine`."""
        base = transformer.base if isinstance(transformer, AdaptedTransformer) else transformer
        weights = Weights(base, dtype=dtype, backend=backend, batch_invariant=batch_invariant)
        engine = Engine(weights, max_batch=max_batch, resources=resources, proposer=proposer, steps=steps)
        runner = cls(engine=engine, variant=weights.base, guess_table=guess_table)
        return runner.adapted(transformer) if isinstance(transformer, AdaptedTransformer) else runner

    def adapted(self, transformer: AdaptedTransformer) -> "Runner":
        """Return one for an adapter of this one's transformer; they share the engine, and what the model has learnt."""
        return replace(self, variant=self.engine.weights.variant(transformer))
