"""Statistics of tokenized shards, and the report on all of them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from cogview.data.check import Spread
from cogview.data.pairs import Problem
from cogview.text.known_words import KnownWords

MAX_LISTED = 10  # per kind
PROBLEMS = "problems.jsonl"


@dataclass(frozen=True, kw_only=True)
class ProblemGroup:
    """Number of problems of a kind, and the first of them."""

    kind: str
    count: int
    first: tuple[Problem, ...]

    def __str__(self) -> str:
        """Return the group as readable lines."""
        lines = [f"{self.kind}: {self.count:,}", *(f"  {problem}" for problem in self.first)]
        if (unlisted := self.count - len(self.first)) > 0:
            lines.append(f"  and {unlisted:,} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TokenizeReport:
    """Report on a tokenized data set.

    Args:
        num_pairs: pictures in the shards.
        num_captions: captions in the shards.
        caption_pieces: spread of the captions' lengths in pieces.
        num_long_captions: captions of more than `max_text_pieces`; training clips them.
        max_text_pieces: limit for `num_long_captions`.
        num_empty_captions: captions left out because they are empty.
        num_codes_used: number of distinct codes.
        num_problems: pictures that are unreadable or without caption, and files passed over that look like a picture
            or caption.
        problems: these by kind, the commonest first.
        changes: pictures in the shards that were not plain 8-bit RGB, by kind, the commonest first.
    """

    num_pairs: int
    num_captions: int
    caption_pieces: Spread | None
    num_long_captions: int
    max_text_pieces: int
    num_empty_captions: int
    num_codes_used: int
    num_problems: int
    problems: tuple[ProblemGroup, ...]
    changes: tuple[ProblemGroup, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TokenizeReport":
        """Create a report from the data of `to_json`."""

        def groups(name: str) -> tuple[ProblemGroup, ...]:
            return tuple(
                ProblemGroup(**group | {"first": tuple(Problem(**problem) for problem in group["first"])})
                for group in values[name]
            )

        pieces = values["caption_pieces"]
        spread = Spread(**pieces) if pieces else None
        return cls(
            **values
            | {"caption_pieces": spread, "problems": groups("problems"), "changes": groups("changes")}
        )

    def losses(self) -> str:
        """Return a phrase about what was left out; empty if nothing was."""
        num_passed = sum(group.count for group in self.problems if group.kind == "passed over")
        lost = (
            (self.num_problems - num_passed, "pictures left out"),
            (num_passed, "files passed over"),
            (self.num_empty_captions, "empty captions left out"),
            (self.num_long_captions, f"captions of more than {self.max_text_pieces} pieces, to be clipped"),
        )
        return "; ".join(f"{what}: {number:,}" for number, what in lost if number)

    def to_text(self) -> str:
        """Return the report as readable lines."""
        lines = [
            f"{self.num_pairs:,} pictures with {self.num_captions:,} captions, {self.num_codes_used:,} codes used",
            f"captions: {self.caption_pieces} pieces",
            self.losses() or "nothing was left out",
        ]
        lines += [f"left out, {group}" for group in self.problems]
        lines += [f"changed, {group}" for group in self.changes]
        return "\n".join(lines)


@dataclass(kw_only=True)
class ShardStatistics:
    """Statistics of a shard.

    Args:
        codes_used: whether each code occurs.
        num_entries: pictures and problems of the data set.
        num_pairs: usable pictures.
        caption_lengths: number of captions of each length in pieces.
        num_empty_captions: empty captions.
        words: number of occurrences of each word in the captions.
        left_out: unusable entries.
        changed: usable pictures that were not plain 8-bit RGB.
    """

    codes_used: Bool[np.ndarray, "v"]
    num_entries: int = 0
    num_pairs: int = 0
    caption_lengths: Counter[int] = field(default_factory=Counter)
    num_empty_captions: int = 0
    words: Counter[str] = field(default_factory=Counter)
    left_out: list[Problem] = field(default_factory=list)
    changed: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as plain data."""
        return vars(self) | {
            "codes_used": np.packbits(self.codes_used).tobytes().hex(),
            "left_out": [asdict(problem) for problem in self.left_out],
            "changed": [asdict(problem) for problem in self.changed],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ShardStatistics":
        """Create statistics from the data of `to_json`.

        Raises:
            KeyError: a field is missing.
            TypeError: a field has another type or is unknown.
            ValueError: a number is malformed.
        """
        lengths = Counter({int(length): count for length, count in values["caption_lengths"].items()})
        packed = np.frombuffer(bytes.fromhex(values["codes_used"]), dtype=np.uint8)
        parsed = {
            "codes_used": np.unpackbits(packed).astype(np.bool_),
            "caption_lengths": lengths,
            "words": Counter(values["words"]),
            "left_out": [Problem(**problem) for problem in values["left_out"]],
            "changed": [Problem(**problem) for problem in values["changed"]],
        }
        return cls(**values | parsed)


def sum_up(tallies: Iterable[ShardStatistics], max_text_pieces: int, listing: Path) -> TokenizeReport:
    """Return the report on all shards; write every problem and change to `listing`, and the words beside it.

    Args:
        tallies: statistics of the shards in order; consumed one at a time.
        max_text_pieces: longer captions are counted as too long.
        listing: file of JSON lines with `where`, `kind`, `reason` and `left_out`, true or false.
    """
    num_pairs = num_empty = 0
    lengths: Counter[int] = Counter()
    words: Counter[str] = Counter()
    codes_used = np.zeros(0, dtype=np.bool_)
    left_out, changed = _Grouping(), _Grouping()
    # Names that are not UTF-8 have lone surrogates, which JSON and Python escape alike.
    with listing.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for tally in tallies:
            num_pairs += tally.num_pairs
            num_empty += tally.num_empty_captions
            lengths.update(tally.caption_lengths)
            words.update(tally.words)
            codes_used = tally.codes_used | codes_used if len(codes_used) else tally.codes_used
            for problems, grouping in ((tally.left_out, left_out), (tally.changed, changed)):
                for problem in problems:
                    grouping.add(problem)
                    line = asdict(problem) | {"left_out": grouping is left_out}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    KnownWords.of_counts(words).save(listing.parent)
    return TokenizeReport(
        num_pairs=num_pairs,
        num_captions=lengths.total(),
        caption_pieces=Spread.of_counts(lengths),
        num_long_captions=sum(count for length, count in lengths.items() if length > max_text_pieces),
        max_text_pieces=max_text_pieces,
        num_empty_captions=num_empty,
        num_codes_used=int(codes_used.sum()),
        num_problems=left_out.counts.total(),
        problems=left_out.groups(),
        changes=changed.groups(),
    )


class _Grouping:
    """Counter of problems by kind, with the first of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, list[Problem]] = {}

    def add(self, problem: Problem) -> None:
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= MAX_LISTED:
            self._first.setdefault(problem.kind, []).append(problem)

    def groups(self) -> tuple[ProblemGroup, ...]:
        return tuple(
            ProblemGroup(kind=kind, count=count, first=tuple(self._first[kind]))
            for kind, count in self.counts.most_common()
        )
