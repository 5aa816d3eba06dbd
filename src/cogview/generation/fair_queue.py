"""Fair queue: free slots go to the client that has the fewest."""

from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")

Client: TypeAlias = tuple[str, ...]
"""An account, and perhaps one of its users. Slots are shared among accounts first, then among an account's users."""


class FairQueue(Generic[Item]):
    """Items of many clients that wait for a slot.

    Next is the oldest item of the client with the fewest slots; among equals, clients take turns. Some slots are
    reserved for clients that have none, so that a new client starts at once; half of them for accounts that have none.

    Args:
        num_slots: items that run at once; unlimited if None.
        num_reserved: of these slots, for clients that have none.
    """

    def __init__(self, num_slots: int | None = None, num_reserved: int = 0) -> None:
        assert num_slots is None or 0 <= num_reserved < num_slots, "some slots are for everybody"
        self._num_slots = num_slots
        self._num_reserved = num_reserved
        self._waiting: dict[Client, deque[Item]] = {}
        self._numbers = count()
        self._slots: Counter[Client] = Counter()  # in use, by account and by user
        self._num_waiting: Counter[Client] = Counter()
        self._turns: dict[Client, int] = {}  # number of the last turn, or of the arrival

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def num_held(self) -> int:
        """Number of slots in use."""
        return sum(num for client, num in self._slots.items() if len(client) == 1)

    def held_by(self, client: Client) -> int:
        """Return the number of slots that a client has."""
        return self._slots[client]

    def add(self, client: Client, item: Item, *, is_continuation: bool = False) -> None:
        """Queue an item; a continuation of begun work goes before the client's other items."""
        waiting = self._waiting.setdefault(client, deque())
        for level in _levels(client):
            self._num_waiting[level] += 1
            self._turns.setdefault(level, next(self._numbers))
        if is_continuation:
            waiting.appendleft(item)
        else:
            waiting.append(item)

    def take(self) -> Item | None:
        """Return the next item, and take a slot for it; None if no item may start."""
        eligible = [client for client in self._waiting if self._has_room(client)]
        if not eligible:
            return None
        client = min(eligible, key=self._rank)
        item = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        self.hold(client)
        for level in _levels(client):
            self._turns[level] = next(self._numbers)
        self._wait_less(client, 1)
        return item

    def hold(self, client: Client) -> None:
        """Take a slot for a client, even if none is free."""
        for level in _levels(client):
            self._slots[level] += 1

    def release(self, client: Client) -> None:
        """Give a slot back."""
        for level in _levels(client):
            self._slots[level] -= 1
            if not self._slots[level]:
                del self._slots[level]
        self._wait_less(client, 0)

    def remove(self, client: Client, is_unwanted: Callable[[Item], bool]) -> None:
        """Remove queued items of a client."""
        waiting = self._waiting.pop(client, deque())
        left = deque(item for item in waiting if not is_unwanted(item))
        if left:
            self._waiting[client] = left
        self._wait_less(client, len(waiting) - len(left))

    def _wait_less(self, client: Client, num: int) -> None:
        """Subtract from the count of waiting items, and forget clients that neither wait nor have a slot."""
        for level in _levels(client):
            self._num_waiting[level] -= num
            if not self._num_waiting[level]:
                del self._num_waiting[level]
                if not self._slots[level]:
                    self._turns.pop(level, None)

    def _has_room(self, client: Client) -> bool:
        if self._num_slots is None:
            return True
        num_reserved = self._num_reserved
        if not self._slots[client]:
            num_reserved = num_reserved // 2 if self._slots[client[:1]] else 0
        return self.num_held < self._num_slots - num_reserved

    def _rank(self, client: Client) -> tuple[int, ...]:
        """Return the sort key: slots and turn of the account, then of the user."""
        return tuple(num for level in _levels(client) for num in (self._slots[level], self._turns[level]))


def _levels(client: Client) -> list[Client]:
    """Return a client's account, and the client itself."""
    return [client[:end] for end in range(1, len(client) + 1)]
