"""Which requests are worked on, and which take part in the next pass."""

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Int64

from cogview.decoding.batch import Beginning, Job
from cogview.decoding.config import Resources
from cogview.decoding.drawing import Drawing
from cogview.decoding.memory import (
    MAX_TOKENS,
    Budget,
    code_bytes,
    decoding_bytes,
    pass_bytes,
    resident_bytes,
    rows_bytes,
)
from cogview.decoding.pool import PagePool, Row, cache_dtype, num_pages_for
from cogview.decoding.request import AnyRequest, BeamRequest, Context
from cogview.decoding.searching import Searching
from cogview.decoding.weights import Variant, Weights
from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    """A request that nothing was done for yet."""

    number: int
    request: AnyRequest
    variant: Variant
    beginnings: Sequence[Beginning]


class Scheduler:
    """The requests that wait and those that are worked on, with their rows of the pool.

    Contexts that begin alike are run once: the first request runs them, others take them over, and they are kept for as
    long as a request that waits will begin so. Only `add`, `abort`, `set_urgent` and `is_idle` may be called
    by any thread.

    Args:
        weights: of the base.
        resources: requests worked on at once, and the memory for them; more wait.
        num_spare_pages: of the pool, that no request takes.

    Attributes:
        running: what is worked on.
        failed: requests that could not be begun, and why; whoever tells of them takes them out.
    """

    def __init__(self, weights: Weights, resources: Resources, num_spare_pages: int = 0) -> None:
        self.running: list[Job] = []
        self.failed: list[tuple[int, Exception]] = []
        self._weights = weights
        self._num_spare_pages = num_spare_pages
        self._max_batch = resources.max_batch
        self._cache_dtype = cache_dtype(weights.config, weights.dtype, weights.device.type, resources.cache)
        held_bytes = resident_bytes() + code_bytes(weights.dtype) + decoding_bytes(resources.max_batch)
        self._budget = Budget(resources, held_bytes)
        self._pool: PagePool | None = None
        self._numbers = itertools.count()
        self._lock = Lock()
        self._waiting: deque[_Waiting] = deque()
        self._aborted: set[int] = set()
        self._urgent: set[int] = set()
        self._num_to_begin: Counter[Beginning] = Counter()
        self._kept: dict[Beginning, Row] = {}

    @property
    def max_batch(self) -> int:
        """Return how many requests are worked on at once."""
        return self._max_batch

    @property
    def pool(self) -> PagePool:
        """Return where keys and values lie; it is made for the first request."""
        assert self._pool is not None, "a request has begun"
        return self._pool

    @property
    def num_held_pages(self) -> int:
        """Return how many pages rows hold."""
        return 0 if self._pool is None else self._pool.num_pages - self._pool.num_free

    @property
    def is_idle(self) -> bool:
        """Return whether no request is waiting or being worked on."""
        return not self._waiting and not self.running

    def add(self, request: AnyRequest) -> int:
        """Take a request, and return its number.

        Raises:
            UsageError: it has tokens or positions that the transformer does not have.
        """
        variant = request.variant or self._weights.base
        if request.legal.stop > variant.config.vocabulary_size:
            raise UsageError(
                f"legal tokens must lie in the vocabulary of {variant.config.vocabulary_size}, got {request.legal}"
            )
        for context in request.contexts:
            _check(context.tokens, variant.config.vocabulary_size, "token")
            for positions in (context.positions, context.next_positions):
                _check(positions, variant.config.num_positions, "position")
        self._budget.check(self._bytes_of([request]))
        with self._lock:
            beginnings = _beginnings(request.contexts, variant)
            waiting = _Waiting(
                number=next(self._numbers), request=request, variant=variant, beginnings=beginnings
            )
            self._num_to_begin.update(beginnings)
            self._waiting.append(waiting)
        return waiting.number

    def abort(self, number: int) -> None:
        """Forget a request before the next pass; one that is done or unknown is left alone."""
        with self._lock:
            left = [each for each in self._waiting if each.number == number]
            for each in left:
                self._waiting.remove(each)
                self._count_begun(each.beginnings)
            if not left:
                self._aborted.add(number)

    def set_urgent(self, number: int, is_urgent: bool) -> None:
        """Work on a request alone, with others that are urgent, or no longer so."""
        with self._lock:
            (self._urgent.add if is_urgent else self._urgent.discard)(number)

    def next_jobs(self) -> list[Job]:
        """Return what takes part in the next pass, whose rows have all pages they need: as much as a pass may run."""
        self.drop_aborted()
        self._admit()
        jobs: list[Job] = []
        num_tokens = 0
        begun = self._begun()
        with self._lock:
            self._urgent.intersection_update(self._known())
            urgent = [job for job in begun if job.number in self._urgent]
        for job in urgent or begun:
            num_known = job.work.num_known
            if not jobs or num_tokens + num_known <= MAX_TOKENS:
                jobs.append(job)
                num_tokens += num_known
        return jobs

    def _known(self) -> set[int]:
        return {each.number for each in self._waiting} | {job.number for job in self.running}

    def end(self, numbers: Iterable[int]) -> None:
        """Take requests that are done or have failed out of what is worked on."""
        over = set(numbers)
        for job in [job for job in self.running if job.number in over]:
            self._end(job)

    def end_all(self) -> list[int]:
        """Take out all that is worked on after a pass that failed, keep nothing of it, and return the numbers."""
        numbers = [job.number for job in self.running]
        self._num_to_begin.clear()
        with self._lock:
            for each in self._waiting:
                self._num_to_begin.update(each.beginnings)
        for job in list(self.running):
            job.free()
        self.running.clear()
        self._free_kept()
        return numbers

    def drop_aborted(self) -> None:
        """Take requests that were aborted out of what is worked on."""
        with self._lock:
            aborted, self._aborted = self._aborted, set()
        self.end(aborted)
        self._free_kept()

    def _admit(self) -> None:
        """Begin with requests that wait, in their order, as far as there is room."""
        while True:
            room = self._max_batch - sum(job.work.request.cost for job in self.running)
            with self._lock:
                if not self._waiting or (self.running and not self._fits(self._waiting[0].request, room)):
                    return
                waiting = self._waiting.popleft()
            try:
                self.running.append(self._begin(waiting))
            except Exception as error:
                with self._lock:
                    self._count_begun(waiting.beginnings)
                self.failed.append((waiting.number, error))

    def _begin(self, waiting: _Waiting) -> Job:
        """Return a request as what is worked on."""
        request, variant = waiting.request, waiting.variant
        if self._pool is None:
            self._pool = self._new_pool(request)
        work = (
            Searching(request, variant, self._pool)
            if isinstance(request, BeamRequest)
            else Drawing(request, variant, self._pool)
        )
        return Job(number=waiting.number, work=work, variant=variant, beginnings=waiting.beginnings)

    def _fits(self, request: AnyRequest, room: int) -> bool:
        """Return whether a request may join those that are worked on."""
        running = [job.work.request for job in self.running]
        return request.cost <= room and self._budget.has_room(self._bytes_of([*running, request]))

    def _bytes_of(self, requests: Sequence[AnyRequest]) -> int:
        """Return what requests need that are worked on at once."""
        contexts = [
            context
            for request in requests
            for context in request.contexts * (request.cost if isinstance(request, BeamRequest) else 1)
        ]
        lengths = [len(context.tokens) + len(context.next_positions) for context in contexts]
        config, num_legal = self._weights.config, max(len(request.legal) for request in requests)
        num_new = sum(len(context.tokens) for context in contexts)
        held = rows_bytes(config, lengths, self._cache_dtype)
        if self._pool is not None and held > self._pool.num_bytes:
            held += self._pool.num_bytes  # which is copied when it grows
        return held + pass_bytes(config, num_legal, len(lengths), num_new, max(lengths))

    def _new_pool(self, first: AnyRequest) -> PagePool:
        """Return a pool for those that wait, as far as they are worked on at once; it grows if others need more.

        No larger: where large pages of memory are asked for, pages of keys that lie apart take one each.
        """
        with self._lock:
            # One more than are worked on at once: what begins alike is kept for the next until it has begun.
            requests = [first, *(each.request for each in self._waiting)][: self._max_batch + 1]
        config = self._weights.config
        num_pages = sum(
            num_pages_for(config, len(context.tokens) + len(context.next_positions))
            for request in requests
            for context in request.contexts
        )
        num_pages += self._num_spare_pages
        return PagePool(config, num_pages, self._cache_dtype, self._weights.device)

    def _begun(self) -> list[Job]:
        """Return what is worked on, its pages taken; the rest waits for another that begins alike."""
        held = dict(self._kept)
        for job in self.running:
            for row, key in _first_rows(job):
                if row.length:
                    held.setdefault(key, row)
        begun: list[Job] = []
        for job in self.running:
            new = [(row, key) for row, key in _first_rows(job) if not row.pages]
            # Another runs the same beginning in this pass, and this one takes it over in the next.
            if any(key in held and not held[key].length for _, key in new):
                continue
            for row, key in new:
                if key in held and held[key].length:  # not its own twin, which begins now too
                    num_tokens = len(np.frombuffer(key[1], dtype=np.int64))
                    row.begin_as(held[key], num_tokens - 1)  # the last is run again, for its state
                else:
                    row.reserve()
                    held[key] = row
            if new:
                with self._lock:
                    self._count_begun(key for _, key in new)
            begun.append(job)
        self._free_kept()
        return begun

    def _count_begun(self, beginnings: Iterable[Beginning]) -> None:
        """Count rows that will not begin any more; called under the lock."""
        for key in beginnings:
            self._num_to_begin[key] -= 1
            if self._num_to_begin[key] <= 0:
                del self._num_to_begin[key]

    def _end(self, job: Job) -> None:
        """Free a job's rows, but for beginnings that a request which waits will take over."""
        self.running.remove(job)
        first_rows = dict(zip(map(id, job.work.rows), _first_rows(job), strict=False))
        with self._lock:
            self._count_begun(key for row, key in first_rows.values() if not row.pages)
        for row in job.work.rows:
            _, key = first_rows.get(id(row), (row, None))
            if key is not None and row.length and self._num_to_begin[key] > 0 and key not in self._kept:
                self._kept[key] = row
            else:
                row.free()

    def _free_kept(self) -> None:
        """Free beginnings that nobody will take over any more."""
        for key in [key for key in self._kept if self._num_to_begin[key] <= 0]:
            self._kept.pop(key).free()
        if self.is_idle:
            self._num_to_begin.clear()


def _beginnings(contexts: Iterable[Context], variant: Variant) -> list[Beginning]:
    return [(id(variant), context.tokens.tobytes(), context.positions.tobytes()) for context in contexts]


def _first_rows(job: Job) -> list[tuple[Row, Beginning]]:
    """Return the rows that begin with a job's contexts, each with what tells which others begin alike."""
    return list(zip(job.work.rows, job.beginnings, strict=False))


def _check(ids: Int64[np.ndarray, "_"], limit: int, noun: str) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < limit:
        raise UsageError(
            f"a request has the {noun} {ids.max() if ids.min() >= 0 else ids.min()}, and the transformer has those "
            f"from 0 to {limit - 1}: use the model that it was made for"
        )
