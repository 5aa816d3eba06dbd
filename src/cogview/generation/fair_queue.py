"""Whose turn it is: places go to the client with the fewest, so that nobody waits for another's long list."""

from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")

Client: TypeAlias = tuple[str, ...]
"""Who asks: an account, and perhaps one of its users. Accounts are treated alike first, then users of one account."""


class FairQueue(Generic[Item]):
    """Items that wait for a place, each of a client.

    The next is the oldest of the client who has the fewest places; among those who have equally many, clients take
    turns. A few places are kept for clients who have none, so that one who comes new begins at once, while another's
    long list is worked on: half of them for accounts that have none, whatever users others have.

    Args:
        num_places: that are worked on at once; without end if None.
        num_reserved: of them, for clients who have none.
    """

    def __init__(self, num_places: int | None = None, num_reserved: int = 0) -> None:
        assert num_places is None or 0 <= num_reserved < num_places, "some places are for everybody"
        self._num_places = num_places
        self._num_reserved = num_reserved
        self._waiting: dict[Client, deque[Item]] = {}
        self._numbers = count()
        self._held: Counter[Client] = Counter()  # places of accounts, and of their users
        self._num_waiting: Counter[Client] = Counter()
        self._turns: dict[Client, int] = {}  # when they came, or were last given a place

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def num_held(self) -> int:
        """Return how many places are taken."""
        return sum(num for client, num in self._held.items() if len(client) == 1)

    def held_by(self, client: Client) -> int:
        """Return how many places a client has."""
        return self._held[client]

    def add(self, client: Client, item: Item, *, goes_on: bool = False) -> None:
        """Let an item wait for a place: before all others of its client, if it goes on with what was begun."""
        waiting = self._waiting.setdefault(client, deque())
        for each in _levels(client):
            self._num_waiting[each] += 1
            self._turns.setdefault(each, next(self._numbers))
        if goes_on:
            waiting.appendleft(item)
        else:
            waiting.append(item)

    def take(self) -> Item | None:
        """Return the item whose turn it is, with a place taken for it; None if none may begin."""
        able = [client for client in self._waiting if self._has_room(client)]
        if not able:
            return None
        client = min(able, key=self._rank)
        item = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        self.hold(client)
        for each in _levels(client):
            self._turns[each] = next(self._numbers)
        self._wait_less(client, 1)
        return item

    def hold(self, client: Client) -> None:
        """Take one more place for a client, without asking whether there is one."""
        for each in _levels(client):
            self._held[each] += 1

    def release(self, client: Client) -> None:
        """Give a place back."""
        for each in _levels(client):
            self._held[each] -= 1
            if not self._held[each]:
                del self._held[each]
        self._wait_less(client, 0)

    def remove(self, client: Client, is_unwanted: Callable[[Item], bool]) -> None:
        """Let items of a client wait no longer."""
        waiting = self._waiting.pop(client, deque())
        left = deque(each for each in waiting if not is_unwanted(each))
        if left:
            self._waiting[client] = left
        self._wait_less(client, len(waiting) - len(left))

    def _wait_less(self, client: Client, num: int) -> None:
        """Count items that wait no longer, and forget who neither waits nor has a place."""
        for each in _levels(client):
            self._num_waiting[each] -= num
            if not self._num_waiting[each]:
                del self._num_waiting[each]
                if not self._held[each]:
                    self._turns.pop(each, None)

    def _has_room(self, client: Client) -> bool:
        if self._num_places is None:
            return True
        num_kept = self._num_reserved
        if not self._held[client]:
            num_kept = num_kept // 2 if self._held[client[:1]] else 0
        return self.num_held < self._num_places - num_kept

    def _rank(self, client: Client) -> tuple[int, ...]:
        """Return by what clients are compared: places and turns of the account, then of its user."""
        return tuple(num for each in _levels(client) for num in (self._held[each], self._turns[each]))


def _levels(client: Client) -> list[Client]:
    """Return a client's account, and the client itself."""
    return [client[:end] for end in range(1, len(client) + 1)]
