"""Work in progress on a folder of tokens, kept on disk so that no kill costs more than the shards that were being made.

Beside the folder `tokens` that is to be lies `tokens.unfinished`:
`request.json` says what it is for; `tokens/` holds the shards so far and will be renamed to `tokens` when it is whole;
`done/` holds a record of each shard, written after it; whoever works on it holds a shared lock on `lock`.
"""

import glob
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cogview.data.pairs import SourceState
from cogview.data.shard_records import Made, Request, ShardNumber, ShardRecord
from cogview.data.shards import read_manifest
from cogview.errors import CogViewError, UsageError
from cogview.files import SharedLock, atomic_write_json, read_bounded
from cogview.folders import refuse_mount
from cogview.plain_json import parse_json

FORMAT = "cogview-unfinished-tokens"
VERSION = 2
ATTEMPTS = 100  # to join work that others may be removing


def unfinished_folder(out: Path) -> Path:
    """Return where the work on a folder of tokens is kept until it is done."""
    out = out.resolve()
    return out.with_name(f"{out.name}.unfinished")


class UnfinishedTokens:
    """The work on a folder of tokens, which this process may share with others; `work_on` gives it.

    Args:
        out: the folder that is to be.
        lock: the lock on the work, held.

    Attributes:
        tokens: where the shards lie.
        made: each shard that was done when this process looked last.
        parts_done: the parts of the data set whose shards were all done then.
    """

    def __init__(self, out: Path, lock: SharedLock) -> None:
        self._out = out
        self._folder = unfinished_folder(out)
        self._lock = lock
        self.tokens = self._folder / "tokens"
        self._look()

    def records(self) -> Iterator[tuple[ShardNumber, ShardRecord]]:
        """Yield the shards that are done, in order; one whose file is not whole is not done."""
        for path in sorted((self._folder / "done").glob("*.json")):
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
        atomic_write_json(self._folder / "done" / f"{number}.json", record.to_json())

    def is_left_to_this_process(self, num_parts: int) -> bool:
        """Return whether all shards are done and nobody else is at work; nobody will be before this process ends.

        Args:
            num_parts: of the data set.
        """
        if not (self._lock.try_alone() and self._lock.is_current()):
            return False
        self._look()
        return len(self.parts_done) == num_parts

    def refusal(self, differing: str) -> str:
        """Return the message for work that cannot go on.

        Args:
            differing: what is not as it was.
        """
        return _refusal(self._folder, differing)

    def remove_strays(self) -> None:
        """Remove from beside the shards whatever a kill has left there."""
        shards = {record.shard.file for _, record in self.records() if record.shard}
        for path in self.tokens.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in shards:
                path.unlink()

    def deliver(self) -> None:
        """Let the folder appear, whole, and remove what was the work on it.

        Raises:
            CogViewError: something was put there meanwhile.
        """
        if self._out.exists():
            try:
                self._out.rmdir()  # it was empty
            except OSError as error:
                raise CogViewError(
                    f"{self._out} was filled meanwhile, so it stays as it is: move it away and run the same command "
                    "again, all tokens are kept."
                ) from error
        self.tokens.replace(self._out)
        self.discard()

    def discard(self) -> None:
        """Remove the work, unless somebody else is at it."""
        if not (self._lock.try_alone() and self._lock.is_current()):
            return
        # Renamed first: what lies under the name of the work is always whole.
        self._folder.replace(_hidden_sibling(self._folder))
        _remove_hidden_siblings(self._folder)

    def _look(self) -> None:
        self.made: dict[ShardNumber, Made] = {}
        ends = []
        for number, record in self.records():
            self.made[number] = Made(
                content=record.content, ends_part=record.ends_part, num_entries=record.tally.num_entries
            )
            if record.ends_part:
                ends.append(number)
        num_shards = Counter(number.part for number in self.made)
        self.parts_done = {end.part for end in ends if num_shards[end.part] == end.place + 1}


@contextmanager
def work_on(
    out: Path, source: Path, request: Request, state: SourceState
) -> Iterator[UnfinishedTokens | None]:
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
        _remove_hidden_siblings(
            unfinished_folder(out)
        )  # a kill while the work was removed left it half there
        yield None
        return
    lock = _join(unfinished_folder(out), source, request, state)
    try:
        work = UnfinishedTokens(out, lock)
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
    finally:
        lock.close()


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


def _join(folder: Path, source: Path, request: Request, state: SourceState) -> SharedLock:
    """Return the lock on the work on a request, which is begun if it wasn't."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "request": asdict(request),
        "source": str(source.resolve()),
        "source_times": state.times,
    }
    for _ in range(ATTEMPTS):
        try:
            if not folder.exists():
                _begin(folder, content)
            lock = SharedLock(folder / "lock")
        except FileNotFoundError:  # who came to the end removed it
            continue
        if lock.is_current():
            break
        lock.close()
    else:
        raise CogViewError(f"{folder} is damaged, it has no lock: delete it to start afresh.")
    try:
        _refuse_another(folder, content)
    except BaseException:
        lock.close()
        raise
    return lock


def _begin(folder: Path, content: dict[str, Any]) -> None:
    """Make the folder of the work, whole, unless another process is faster."""
    new = _hidden_sibling(folder)
    try:
        atomic_write_json(new / "request.json", content)
        for name in ("tokens", "done"):
            (new / name).mkdir()
        (new / "lock").touch()
        new.rename(folder)
    except FileExistsError:
        pass
    except OSError:  # on Linux a folder with content in the way is no FileExistsError
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _refuse_another(folder: Path, content: dict[str, Any]) -> None:
    """Raise an error if the work that is kept is on something else than what is asked for."""
    path = folder / "request.json"
    try:
        kept = parse_json(read_bounded(path))
        version, request, times = kept["version"], dict(kept["request"]), kept["source_times"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CogViewError(f"{path} is damaged ({error}): delete {folder} to start afresh.") from error
    wanted = content["request"]
    differing = [
        f"{name} was {request.get(name)}, now {wanted[name]}"
        for name in wanted
        if name != "source" and request.get(name) != wanted[name]
    ]
    if version != VERSION:
        differing = ["it is another version's"]
    elif (request.get("source"), times) != (wanted["source"], content["source_times"]):
        differing.insert(0, "the data set is another, or was changed")
    if differing:
        raise UsageError(_refusal(folder, "; ".join(differing)))


def _refusal(folder: Path, differing: str) -> str:
    return (
        f"{folder} holds work that was begun with something else: {differing}. Ask for the same again to go on, or "
        "delete it to start afresh."
    )


def _hidden_sibling(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")


def _remove_hidden_siblings(folder: Path) -> None:
    """Remove what is on its way out, and what kills have left of that; who loses a folder just begun begins again."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 8}"):
        shutil.rmtree(leftover, ignore_errors=True)
