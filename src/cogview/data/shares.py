"""Division of a data set into shards and batches, and of the shards among ranks.

A shard has a fixed number of entries, pictures and problems, of one part of the data set. Files passed over do not
count, so they never change what is in a shard.
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
        number: number of their shard.
        entries: the entries.
        num_counted: number of entries that were not passed over.
        ends_shard: whether it is the last of its shard.
        ends_part: whether it is the last of its part of the data set.
        made: digest of the shard if it exists, which the entries must match.
    """

    number: ShardNumber
    entries: list[Entry]
    num_counted: int
    ends_shard: bool
    ends_part: bool
    made: ShardDigest | None


class Share:
    """Shards that this process has to make.

    With at least as many parts as ranks, each part belongs to one rank, and the others need not read it. Otherwise, the
    shards of each part are dealt out, and every rank reads all parts.

    Args:
        pairs: the data set.
        made: existing shards.
        ranks: rank of this process.
        request: sizes of shards and batches.
    """

    def __init__(
        self, pairs: PairSource, made: Mapping[ShardNumber, ShardDigest], ranks: Ranks, request: Request
    ) -> None:
        self._pairs, self._made, self._ranks, self._request = pairs, made, ranks, request

    @property
    def num_done(self) -> int:
        """Return the number of entries in the share's existing shards."""
        return sum(made.num_entries for number, made in self._made.items() if self._takes(number))

    def file_name(self, number: ShardNumber) -> str:
        """Return the file name of a shard."""
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
                # Batches of other ranks' shards are dropped one by one, to bound memory.
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
    """Iterator of entries that knows whether there are more."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._ahead = next(entries, None)

    @property
    def has_more(self) -> bool:
        return self._ahead is not None

    def take(self, most: int) -> tuple[list[Entry], int]:
        """Return up to `most` entries and those passed over between and after them, and how many count.

        They are fewer at the end, and where they exceed `MAX_CHUNK_BYTES`.
        """
        batch: list[Entry] = []
        num_counted = num_bytes = 0
        while (entry := self._ahead) is not None:
            if not (isinstance(entry, Problem) and entry.is_passed_over):
                if num_counted == most or num_bytes > MAX_CHUNK_BYTES:
                    break
                num_counted += 1
            num_bytes += num_bytes_held([entry])
            batch.append(entry)
            self._ahead = next(self._entries, None)
        return batch, num_counted
