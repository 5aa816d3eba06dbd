"""Tokens in the making, kept on disk so that no kill costs more than the shards that were being made.

Beside the folder `tokens` that is to be lies `tokens.unfinished`:
`request.json` says what it is for; `tokens/` holds the shards so far and will be renamed to `tokens` when it is whole;
`done/` holds a record of each shard, written after it; whoever works on it holds a shared lock on `lock`.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from cogview.data.pairs import SourceState
from cogview.data.shard_records import Request, ShardDigest, ShardNumber, ShardRecord
from cogview.data.shards import read_manifest
from cogview.errors import CogViewError, UsageError
from cogview.files import read_bounded
from cogview.folders import refuse_mount, remove_leftovers
from cogview.plain_json import parse_json
from cogview.resumable import ResumableWork

CHANGED = "the data set is another, or was changed"


def unfinished_folder(out: Path) -> Path:
    """Return where the work on a folder of tokens is kept until it is done."""
    out = out.resolve()
    return out.with_name(f"{out.name}.unfinished")


class TokenWork(ResumableWork):
    """The work on a folder of tokens, which this process may share with others.

    Args:
        out: the folder that is to be.
        source: the data set, to be named to whoever looks.
        request: what is asked for.
        state: the data set as it is now.

    Attributes:
        tokens: where the shards lie.
    """

    def __init__(self, out: Path, source: Path, request: Request, state: SourceState) -> None:
        settings = {
            "format": "cogview-unfinished-tokens",
            "version": 2,
            "request": asdict(request),
            "source": str(source.resolve()),
            "source_times": state.times,
        }
        said_of = {"request.source": CHANGED, "source_times": CHANGED, "source": None}
        super().__init__(unfinished_folder(out), settings, said_of=said_of, becomes=out)
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir(exist_ok=True)

    def records(self) -> Iterator[tuple[ShardNumber, ShardRecord]]:
        """Yield the shards that are done, in order; one whose file is not whole is not done."""
        for path in sorted((self.folder / "done").glob("*.json")):
            try:
                number = ShardNumber.parse(path.stem)
                record = ShardRecord.from_json(parse_json(read_bounded(path)))
                if record.shard and (self.tokens / record.shard.file).stat().st_size != record.num_bytes:
                    continue
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield number, record

    def keep(self, number: ShardNumber, record: ShardRecord) -> None:
        """Write down that a shard is done, after its file has been written."""
        self.write(f"done/{number}.json", json.dumps(record.to_json()).encode())

    def made(self) -> dict[ShardNumber, ShardDigest]:
        """Return what is known of the shards that are done."""
        return {
            number: ShardDigest(
                content=record.content, ends_part=record.ends_part, num_entries=record.tally.num_entries
            )
            for number, record in self.records()
        }

    def is_left_to_this_process(self, num_parts: int) -> bool:
        """Return whether all shards are done and nobody else is at work; nobody will be before this process ends.

        Args:
            num_parts: of the data set.
        """
        if not self.is_left_alone():
            return False
        made = self.made()
        num_shards = Counter(number.part for number in made)
        ends = {number for number, each in made.items() if each.ends_part}
        return len({end.part for end in ends if num_shards[end.part] == end.place + 1}) == num_parts

    def remove_strays(self) -> None:
        """Remove from beside the shards whatever a kill has left there."""
        shards = {record.shard.file for _, record in self.records() if record.shard}
        for path in self.tokens.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in shards:
                path.unlink()


@contextmanager
def token_work(out: Path, source: Path, request: Request, state: SourceState) -> Iterator[TokenWork | None]:
    """Yield the work on a folder of tokens, begun now or earlier; None if this request has made it already.

    Then it remains to be seen whether the data set has the same bytes still.

    If the block ends with an error before any shard is done, nothing is left behind.

    Args:
        out: the folder that is to be.
        source: the data set, to be named to whoever looks.
        request: what is asked for.
        state: the data set as it is now.

    Raises:
        UsageError: there is something else, or work on another request.
        CogViewError: a disk is mounted there, or what was kept is damaged.
    """
    out = out.resolve()
    refuse_mount(out)
    if _is_made(out, request) and not unfinished_folder(out).exists():
        remove_leftovers(unfinished_folder(out))  # a kill while the work was removed left it half there
        yield None
        return
    with closing(TokenWork(out, source, request, state)) as work:
        try:
            # The others may have come to the end meanwhile, or an earlier process to all but the very end.
            if _is_made(out, request):
                work.discard()
                yield None
            else:
                yield work
        except BaseException:
            if not any(work.records()):
                work.discard()
            raise


def _is_made(out: Path, request: Request) -> bool:
    """Return whether the folder is there and was made by this request.

    Raises:
        UsageError: there is something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        if read_manifest(out).get("request") == asdict(request):
            return True
    except (CogViewError, OSError):
        pass
    raise UsageError(
        f"{out} already exists and isn't an empty folder, nor the very tokens that are asked for: delete it or "
        "choose another."
    )
