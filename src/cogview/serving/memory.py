"""What requests hold in memory, within a bound for all of them together."""

from collections.abc import Iterator
from contextlib import contextmanager

from cogview.serving.wire import WireError


class Memory:
    """Bytes that requests hold: bodies as they come, and pictures once they are decoded.

    Args:
        max_bytes: of all requests.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0

    @contextmanager
    def share(self) -> Iterator["Held"]:
        """Yield what one request holds; at its end it holds nothing."""
        held = Held(self)
        try:
            yield held
        finally:
            self.num_bytes -= held.num_bytes


class Held:
    """Bytes that one request holds.

    Args:
        memory: of all requests.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Hold so many more.

        Raises:
            WireError: there is no room for them, now or ever.
        """
        self.num_bytes += num_bytes
        self._memory.num_bytes += num_bytes
        limit = self._memory.max_bytes
        if self.num_bytes > limit:
            raise WireError(
                413, f"a request may hold {limit:,} bytes: send smaller pictures", code="request_too_large"
            )
        if self._memory.num_bytes > limit:
            raise WireError(429, "too much is being uploaded: try again", retry_seconds=2, code="busy")
