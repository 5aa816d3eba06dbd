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

    The next is the oldest of the client who has the fewest places. A few places are kept for clients who have none, so
    that one who comes new begins at once, while another's long list is worked on.

    Args:
        num_places: that are worked on at once; without end if None.
        num_reserved: of them, for clients who have none.
    """

    def __init__(self, num_places: int | None = None, num_reserved: int = 0) -> None:
        assert num_places is None or 0 <= num_reserved < num_places, "some places are for everybody"
        self._num_places = num_places
        self._num_reserved = num_reserved
        self._waiting: dict[Client, deque[tuple[int, Item]]] = {}
        self._numbers = count()
        self._held: Counter[Client] = Counter()  # places of accounts, and of their users

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
        if goes_on:
            waiting.appendleft((-1, item))
        else:
            waiting.append((next(self._numbers), item))

    def take(self) -> Item | None:
        """Return the item whose turn it is, with a place taken for it; None if none may begin."""
        able = [client for client in self._waiting if self._has_room(client)]
        if not able:
            return None
        client = min(able, key=self._rank)
        _, item = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        self.hold(client)
        return item

    def hold(self, client: Client) -> None:
        """Take one more place for a client, without asking whether there is one."""
        for end in range(1, len(client) + 1):
            self._held[client[:end]] += 1

    def release(self, client: Client) -> None:
        """Give a place back."""
        for end in range(1, len(client) + 1):
            self._held[client[:end]] -= 1
            if not self._held[client[:end]]:
                del self._held[client[:end]]

    def remove(self, client: Client, is_unwanted: Callable[[Item], bool]) -> None:
        """Let items of a client wait no longer."""
        left = deque(each for each in self._waiting.pop(client, ()) if not is_unwanted(each[1]))
        if left:
            self._waiting[client] = left

    def _has_room(self, client: Client) -> bool:
        if self._num_places is None:
            return True
        is_new = not self._held[client]
        return self.num_held < self._num_places - (0 if is_new else self._num_reserved)

    def _rank(self, client: Client) -> tuple[int, ...]:
        """Return by what clients are compared: places of the account, of its user, and who came first."""
        first, _ = self._waiting[client][0]
        return (*(self._held[client[:end]] for end in range(1, len(client) + 1)), first)
