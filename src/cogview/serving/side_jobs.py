"""Queue of jobs outside the batch: captions, ranking and upscaling. Does not import PyTorch."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cogview.generation.fair_queue import Client, FairQueue

Result = TypeVar("Result")


class SideJobs(Generic[Result]):
    """Fair queue of jobs for one worker thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue = FairQueue[tuple[int, Callable[[], Result]]](1)
        self._client_of: dict[int, Client] = {}
        self._current_client: Client | None = None

    def add(self, number: int, client: Client, work: Callable[[], Result]) -> None:
        """Queue a job."""
        with self._changed:
            self._client_of[number] = client
            self._queue.add(client, (number, work))
            self._changed.notify()

    def cancel(self, number: int) -> None:
        """Drop a queued job and its data; ignore one that was taken or is unknown."""
        with self._changed:
            client = self._client_of.pop(number, None)
            if client is not None:
                self._queue.remove(client, lambda job: job[0] == number)

    def take(self) -> tuple[int, Callable[[], Result]]:
        """Wait for a job and return its number and function; the previous one counts as done."""
        with self._changed:
            if self._current_client is not None:
                self._queue.release(self._current_client)
                self._current_client = None
            while (job := self._queue.take()) is None:
                self._changed.wait()
            self._current_client = self._client_of.pop(job[0])
            return job
