"""Which entries of a data set are encoded together, and by which process.

A shard is made of so many entries, pictures and problems, of one part of the data set. What was merely passed over is
told of with the entry before it and counts for nothing, so that it never changes what is in a shard.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from cogview.data.decoding import MAX_CHUNK_BYTES, num_bytes_held
from cogview.data.pairs import Entry, PairSource, Problem
from cogview.data.ranks import Ranks
from cogview.data.shard_records import Request, ShardDigest, ShardNumber


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Entries of the data set that are encoded together.

    Args:
        number: the shard that they are of.
        entries: they.
        num_counted: how many of them count, all but what was passed over.
        ends_shard: no more follow in the shard.
        ends_part: no more follow in the part of the data set.
        made: what is known of the shard if it is there already, so that it need only be the same.
    """

    number: ShardNumber
    entries: list[Entry]
    num_counted: int
    ends_shard: bool
    ends_part: bool
    made: ShardDigest | None


class Share:
    """The shards that are this process's to make.

    With as many parts as ranks, or more, each part is made by one rank: the others need not read it. Else the shards
    of each part are dealt out, and every rank reads all parts.

    Args:
        pairs: the data set.
        made: the shards that are there already.
        ranks: this process and the others.
        request: says how many entries are in a shard and in a batch.
    """

    def __init__(
        self, pairs: PairSource, made: Mapping[ShardNumber, ShardDigest], ranks: Ranks, request: Request
    ) -> None:
        self._pairs, self._made, self._ranks, self._request = pairs, made, ranks, request

    @property
    def num_done(self) -> int:
        """Return how many entries are in those shards of the share that are there already."""
        return sum(made.num_entries for number, made in self._made.items() if self._takes(number))

    def file_name(self, number: ShardNumber) -> str:
        """Return what the file of a shard is called."""
        return f"tokens-{number if self._pairs.num_parts > 1 else f'{number.place:05d}'}.safetensors"

    def batches(self) -> Iterator[Batch]:
        """Yield the entries of the share, shard by shard."""
        for part in range(self._pairs.num_parts):
            if not self._by_part or self._ranks.takes(part):
                yield from self._batches_of_part(part)

    def _batches_of_part(self, part: int) -> Iterator[Batch]:
        entries = _LookingAhead(self._pairs.part(part))
        for place in count():
            number = ShardNumber(part, place)
            is_taken = self._takes(number)
            num_left = self._request.pairs_per_shard
            while num_left:
                # What is passed over is not gathered: the pictures of a shard would fill the memory.
                batch, num_counted = entries.take(min(self._request.batch_size, num_left))
                num_left = num_left - num_counted if entries.has_more else 0
                if is_taken:
                    yield Batch(
                        number=number,
                        entries=batch,
                        num_counted=num_counted,
                        ends_shard=not num_left,
                        ends_part=not entries.has_more,
                        made=self._made.get(number),
                    )
            if not entries.has_more:
                return

    @property
    def _by_part(self) -> bool:
        return self._pairs.num_parts >= self._ranks.num_ranks

    def _takes(self, number: ShardNumber) -> bool:
        return self._ranks.takes(number.part if self._by_part else number.part + number.place)


class _LookingAhead:
    """Entries of an iterator, some at a time, and whether there are more."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._ahead = next(entries, None)

    @property
    def has_more(self) -> bool:
        return self._ahead is not None

    def take(self, most: int) -> tuple[list[Entry], int]:
        """Return the next entries that count, what was passed over behind each, and how many count.

        They are fewer than asked for at the end, and where so many would not fit into memory.
        """
        taken: list[Entry] = []
        num_counted = num_bytes = 0
        while (entry := self._ahead) is not None:
            if not (isinstance(entry, Problem) and entry.is_passed_over):
                if num_counted == most or num_bytes > MAX_CHUNK_BYTES:
                    break
                num_counted += 1
            num_bytes += num_bytes_held([entry])
            taken.append(entry)
            self._ahead = next(self._entries, None)
        return taken, num_counted
