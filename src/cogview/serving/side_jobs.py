"""Jobs that draw nothing, one at a time, in turn by client. Nothing here needs PyTorch."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cogview.generation.fair_queue import Client, FairQueue

Result = TypeVar("Result")


class SideJobs(Generic[Result]):
    """Jobs that wait for the thread that carries them out. One that is cancelled lets go of what it was given."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue = FairQueue[tuple[int, Callable[[], Result]]](1)
        self._client_of: dict[int, Client] = {}
        self._served: Client | None = None

    def add(self, number: int, client: Client, work: Callable[[], Result]) -> None:
        """Let a job wait for its turn."""
        with self._changed:
            self._client_of[number] = client
            self._queue.add(client, (number, work))
            self._changed.notify()

    def cancel(self, number: int) -> None:
        """Forget a job; one that was taken or is unknown is left alone."""
        with self._changed:
            client = self._client_of.pop(number, None)
            if client is not None:
                self._queue.remove(client, lambda item: item[0] == number)

    def take(self) -> tuple[int, Callable[[], Result]]:
        """Wait for a job, and return its number and what carries it out; the one before it is done."""
        with self._changed:
            if self._served is not None:
                self._queue.release(self._served)
                self._served = None
            while (item := self._queue.take()) is None:
                self._changed.wait()
            self._served = self._client_of.pop(item[0])
            return item
