"""Limit on the memory that all requests hold together."""

from collections.abc import Iterator
from contextlib import contextmanager

from cogview.serving.http import ApiError


class MemoryBudget:
    """Bytes of bodies and decoded pictures of all open requests."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0

    @contextmanager
    def share(self) -> Iterator["RequestMemory"]:
        """Yield one request's account, and free its bytes at the end."""
        memory = RequestMemory(self)
        try:
            yield memory
        finally:
            self.num_bytes -= memory.num_bytes


class RequestMemory:
    """Bytes that one request holds."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Allocate bytes.

        Raises:
            ApiError: the request is too large, or the budget is used up.
        """
        self.num_bytes += num_bytes
        self._budget.num_bytes += num_bytes
        limit = self._budget.max_bytes
        if self.num_bytes > limit:
            raise ApiError(
                413, f"a request may hold {limit:,} bytes: send smaller pictures", code="request_too_large"
            )
        if self._budget.num_bytes > limit:
            raise ApiError(429, "too much is being uploaded: try again", retry_seconds=2, code="busy")
