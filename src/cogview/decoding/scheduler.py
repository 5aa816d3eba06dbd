"""Scheduler: which requests run, and which take part in the next pass."""

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Int64

from cogview.decoding.batch import Job, PrefixKey
from cogview.decoding.beam_search import BeamSearch
from cogview.decoding.config import Resources
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
from cogview.decoding.running_sequence import RunningSequence
from cogview.decoding.weights import Variant, Weights
from cogview.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class _QueuedRequest:
    """Request that has not started."""

    number: int
    request: AnyRequest
    variant: Variant
    prefix_keys: Sequence[PrefixKey]


class Scheduler:
    """Queued and running requests, and their rows of the pool.

    Equal prefixes are prefilled once: other requests share the first one's pages, which are cached while a queued
    request needs them. Thread-safe are only `add`, `abort`, `set_urgent` and `is_idle`.

    Args:
        weights: of the base.
        resources: batch size and memory limit.
        num_spare_pages: pages of the pool beside those of requests.

    Attributes:
        running: running jobs.
        failed: requests that could not start, and their errors, until the engine reports them.
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
        self._waiting: deque[_QueuedRequest] = deque()
        self._aborted: set[int] = set()
        self._urgent: set[int] = set()
        self._prefix_uses: Counter[PrefixKey] = Counter()
        self._cached_prefixes: dict[PrefixKey, Row] = {}

    @property
    def max_batch(self) -> int:
        """Maximum number of requests that run at once."""
        return self._max_batch

    @property
    def pool(self) -> PagePool:
        """Pool of keys and values; created for the first request."""
        assert self._pool is not None, "a request has begun"
        return self._pool

    @property
    def num_held_pages(self) -> int:
        """Number of pages that rows hold."""
        return 0 if self._pool is None else self._pool.num_pages - self._pool.num_free

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return not self._waiting and not self.running

    def add(self, request: AnyRequest) -> int:
        """Queue a request, and return its number.

        Raises:
            UsageError: the transformer does not have its tokens or positions.
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
            prefix_keys = _prefix_keys(request.contexts, variant)
            queued = _QueuedRequest(
                number=next(self._numbers), request=request, variant=variant, prefix_keys=prefix_keys
            )
            self._prefix_uses.update(prefix_keys)
            self._waiting.append(queued)
        return queued.number

    def abort(self, number: int) -> None:
        """Drop a request before the next pass; do nothing if it is done or unknown."""
        with self._lock:
            queued = [each for each in self._waiting if each.number == number]
            for each in queued:
                self._waiting.remove(each)
                self._release_prefixes(each.prefix_keys)
            if not queued:
                self._aborted.add(number)

    def set_urgent(self, number: int, is_urgent: bool) -> None:
        """Run a request alone with other urgent ones, or no longer."""
        with self._lock:
            (self._urgent.add if is_urgent else self._urgent.discard)(number)

    def next_jobs(self) -> list[Job]:
        """Return the jobs of the next pass, with their pages allocated, up to `MAX_TOKENS`."""
        self.drop_aborted()
        self._admit()
        jobs: list[Job] = []
        num_tokens = 0
        ready = self._ready_jobs()
        with self._lock:
            self._urgent.intersection_update(self._numbers_in_use())
            urgent = [job for job in ready if job.number in self._urgent]
        for job in urgent or ready:
            num_known = job.work.num_known
            if not jobs or num_tokens + num_known <= MAX_TOKENS:
                jobs.append(job)
                num_tokens += num_known
        return jobs

    def _numbers_in_use(self) -> set[int]:
        return {each.number for each in self._waiting} | {job.number for job in self.running}

    def end(self, numbers: Iterable[int]) -> None:
        """Remove requests that are done or have failed."""
        ended = set(numbers)
        for job in [job for job in self.running if job.number in ended]:
            self._end(job)

    def end_all(self) -> list[int]:
        """Remove all running requests after a failed pass, and return their numbers."""
        numbers = [job.number for job in self.running]
        self._prefix_uses.clear()
        with self._lock:
            for each in self._waiting:
                self._prefix_uses.update(each.prefix_keys)
        for job in list(self.running):
            job.free()
        self.running.clear()
        self._free_unused_prefixes()
        return numbers

    def drop_aborted(self) -> None:
        """Remove aborted requests."""
        with self._lock:
            aborted, self._aborted = self._aborted, set()
        self.end(aborted)
        self._free_unused_prefixes()

    def _admit(self) -> None:
        """Start queued requests in order, while there is room."""
        while True:
            room = self._max_batch - sum(job.work.request.cost for job in self.running)
            with self._lock:
                if not self._waiting or (self.running and not self._fits(self._waiting[0].request, room)):
                    return
                queued = self._waiting.popleft()
            try:
                self.running.append(self._start(queued))
            except Exception as error:
                with self._lock:
                    self._release_prefixes(queued.prefix_keys)
                self.failed.append((queued.number, error))

    def _start(self, queued: _QueuedRequest) -> Job:
        request, variant = queued.request, queued.variant
        if self._pool is None:
            self._pool = self._new_pool(request)
        work = (
            BeamSearch(request, variant, self._pool)
            if isinstance(request, BeamRequest)
            else RunningSequence(request, variant, self._pool)
        )
        return Job(number=queued.number, work=work, variant=variant, prefix_keys=queued.prefix_keys)

    def _fits(self, request: AnyRequest, room: int) -> bool:
        """Return whether a request may join the running ones."""
        running = [job.work.request for job in self.running]
        return request.cost <= room and self._budget.has_room(self._bytes_of([*running, request]))

    def _bytes_of(self, requests: Sequence[AnyRequest]) -> int:
        contexts = [
            context
            for request in requests
            for context in request.contexts * (request.cost if isinstance(request, BeamRequest) else 1)
        ]
        lengths = [len(context.tokens) + len(context.next_positions) for context in contexts]
        config, num_legal = self._weights.config, max(len(request.legal) for request in requests)
        num_new = sum(len(context.tokens) for context in contexts)
        cache_bytes = rows_bytes(config, lengths, self._cache_dtype)
        if self._pool is not None and cache_bytes > self._pool.num_bytes:
            cache_bytes += self._pool.num_bytes  # growing copies the pool
        return cache_bytes + pass_bytes(config, num_legal, len(lengths), num_new, max(lengths))

    def _new_pool(self, first: AnyRequest) -> PagePool:
        """Return a pool for the queued requests that can run together; it grows if others need more.

        No larger: where huge pages are used, keys that lie apart take one each.
        """
        with self._lock:
            # One more than run at once: a prefix is cached until the next request has started.
            requests = [first, *(each.request for each in self._waiting)][: self._max_batch + 1]
        config = self._weights.config
        num_pages = sum(
            num_pages_for(config, len(context.tokens) + len(context.next_positions))
            for request in requests
            for context in request.contexts
        )
        num_pages += self._num_spare_pages
        return PagePool(config, num_pages, self._cache_dtype, self._weights.device)

    def _ready_jobs(self) -> list[Job]:
        """Return running jobs with their pages allocated, except those that wait for another's prefill."""
        row_of = dict(self._cached_prefixes)
        for job in self.running:
            for row, key in _first_rows(job):
                if row.length:
                    row_of.setdefault(key, row)
        ready: list[Job] = []
        for job in self.running:
            new = [(row, key) for row, key in _first_rows(job) if not row.pages]
            # Another prefills the same prefix in this pass, and this job shares it in the next.
            if any(key in row_of and not row_of[key].length for _, key in new):
                continue
            for row, key in new:
                if key in row_of and row_of[key].length:  # not the job's own other row, which starts now too
                    num_tokens = len(np.frombuffer(key[1], dtype=np.int64))
                    row.share_prefix(row_of[key], num_tokens - 1)  # the last runs again, for its state
                else:
                    row.reserve()
                    row_of[key] = row
            if new:
                with self._lock:
                    self._release_prefixes(key for _, key in new)
            ready.append(job)
        self._free_unused_prefixes()
        return ready

    def _release_prefixes(self, prefix_keys: Iterable[PrefixKey]) -> None:
        """Count down the rows that will still start with a prefix; call with the lock held."""
        for key in prefix_keys:
            self._prefix_uses[key] -= 1
            if self._prefix_uses[key] <= 0:
                del self._prefix_uses[key]

    def _end(self, job: Job) -> None:
        """Free a job's rows, except prefixes that a queued request needs."""
        self.running.remove(job)
        first_rows = dict(zip(map(id, job.work.rows), _first_rows(job), strict=False))
        with self._lock:
            self._release_prefixes(key for row, key in first_rows.values() if not row.pages)
        for row in job.work.rows:
            _, key = first_rows.get(id(row), (row, None))
            if (
                key is not None
                and row.length
                and self._prefix_uses[key] > 0
                and key not in self._cached_prefixes
            ):
                self._cached_prefixes[key] = row
            else:
                row.free()

    def _free_unused_prefixes(self) -> None:
        """Free cached prefixes that no request needs any more."""
        for key in [key for key in self._cached_prefixes if self._prefix_uses[key] <= 0]:
            self._cached_prefixes.pop(key).free()
        if self.is_idle:
            self._prefix_uses.clear()


def _prefix_keys(contexts: Iterable[Context], variant: Variant) -> list[PrefixKey]:
    return [(id(variant), context.tokens.tobytes(), context.positions.tobytes()) for context in contexts]


def _first_rows(job: Job) -> list[tuple[Row, PrefixKey]]:
    """Return the rows of a job's contexts with their prefix keys."""
    return list(zip(job.work.rows, job.prefix_keys, strict=False))


def _check(ids: Int64[np.ndarray, "_"], limit: int, noun: str) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < limit:
        raise UsageError(
            f"a request has the {noun} {ids.max() if ids.min() >= 0 else ids.min()}, and the transformer has those "
            f"from 0 to {limit - 1}: use the model that it was made for"
        )
