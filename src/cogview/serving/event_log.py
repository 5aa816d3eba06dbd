"""Log of a job's events for any number of readers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Generic, TypeVar

Event = TypeVar("Event")


class EventLog(Generic[Event]):
    """Numbered events. Slow readers miss outdated events instead of filling a queue.

    Args:
        is_last: whether no event follows this one.
    """

    def __init__(self, is_last: Callable[[Event], bool]) -> None:
        self._is_last = is_last
        self._events: list[tuple[int, Event]] = []
        self._next = 0
        self._changed = asyncio.Event()
        self.num_readers = 0

    def __iter__(self) -> Iterator[Event]:
        return (event for _, event in self._events)

    def add(self, event: Event) -> None:
        """Append an event and wake the readers."""
        self._events.append((self._next, event))
        self._next += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def forget(self, is_outdated: Callable[[Event], bool]) -> None:
        """Drop outdated events."""
        self._events = [each for each in self._events if not is_outdated(each[1])]

    async def read(
        self, after: int = -1, quiet_seconds: float | None = None
    ) -> AsyncGenerator[tuple[int, Event] | None, None]:
        """Yield events with their numbers, until the last.

        Args:
            after: number of the last event that the reader has.
            quiet_seconds: yield None after so long without an event; never if None.
        """
        self.num_readers += 1
        try:
            while True:
                changed = self._changed
                for number, event in [each for each in self._events if each[0] > after]:
                    after = number
                    yield number, event
                    if self._is_last(event):
                        return
                try:
                    async with asyncio.timeout(quiet_seconds):
                        await changed.wait()
                except TimeoutError:
                    yield None
        finally:
            self.num_readers -= 1
