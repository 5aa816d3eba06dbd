"""Resumable work on a folder of token shards.

The work on `tokens` is kept in `tokens.unfinished` beside it: `request.json` has the settings; `tokens/` the finished
shards, to be renamed to `tokens` at the end; `done/` a record of each shard, written after it. Each process at work
holds a shared lock on `lock`.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    """Return the folder of unfinished work on a folder of tokens."""
    out = out.resolve()
    return out.with_name(f"{out.name}.unfinished")


class TokenWork(ResumableWork):
    """Work on a folder of tokens, possibly shared with other processes.

    Args:
        out: folder of the result.
        source: the data set, named in messages.
        request: settings of the work.
        state: current state of the data set.

    Attributes:
        tokens: folder of the finished shards.
    """

    def __init__(self, out: Path, source: Path, request: Request, state: SourceState) -> None:
        settings = {
            "format": "cogview-unfinished-tokens",
            "version": 2,
            "request": request.to_json(),
            "source": str(source.resolve()),
            "source_times": state.times,
        }
        said_of = {"request.source": CHANGED, "source_times": CHANGED, "source": None}
        super().__init__(unfinished_folder(out), settings, said_of=said_of, becomes=out)
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir(exist_ok=True)

    def records(self) -> Iterator[tuple[ShardNumber, ShardRecord]]:
        """Yield the finished shards in order, without those whose file is incomplete."""
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
        """Write the record of a shard, after its file."""
        self.write(f"done/{number}.json", json.dumps(record.to_json()).encode())

    def made(self) -> dict[ShardNumber, ShardDigest]:
        """Return the digests of the finished shards."""
        return {
            number: ShardDigest(
                content=record.content, ends_part=record.ends_part, num_entries=record.tally.num_entries
            )
            for number, record in self.records()
        }

    def is_left_to_this_process(self, num_parts: int) -> bool:
        """Return whether all shards are finished and no other process is at work, nor can start before this one ends.

        Args:
            num_parts: number of parts of the data set.
        """
        if not self.is_left_alone():
            return False
        made = self.made()
        num_shards = Counter(number.part for number in made)
        ends = {number for number, each in made.items() if each.ends_part}
        return len({end.part for end in ends if num_shards[end.part] == end.place + 1}) == num_parts

    def remove_strays(self) -> None:
        """Remove what killed processes left beside the shards."""
        shards = {record.shard.file for _, record in self.records() if record.shard}
        for path in self.tokens.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in shards:
                path.unlink()


@contextmanager
def token_work(out: Path, source: Path, request: Request, state: SourceState) -> Iterator[TokenWork | None]:
    """Start or resume the work on a folder of tokens; yield None if the request is finished already.

    In that case, the data set's bytes are still to be compared. If the block raises before any shard is finished, the
    work is removed. The arguments are those of `TokenWork`.

    Raises:
        UsageError: `out` holds something else, or work on another request.
        CogViewError: a disk is mounted there, or the unfinished work is damaged.
    """
    out = out.resolve()
    refuse_mount(out)
    if _is_made(out, request) and not unfinished_folder(out).exists():
        remove_leftovers(unfinished_folder(out))  # of a process killed while removing it
        yield None
        return
    with closing(TokenWork(out, source, request, state)) as work:
        try:
            # Another process may have finished meanwhile, or a killed one just before removing the work.
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
    """Return whether the folder exists and was made by this request.

    Raises:
        UsageError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        if read_manifest(out).get("request") == request.to_json():
            return True
    except (CogViewError, OSError):
        pass
    raise UsageError(
        f"{out} already exists and is neither empty nor the result of the same request: delete it or choose another."
    )
