"""However often a run is killed, and however many ranks share it, its folder is the same to the byte."""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_folders import (
    SIZE_PIXELS,
    MeanTokenizer,
    png,
    small_text_tokenizer,
    start,
    write_image_folder,
    write_tar,
)

from cogview.data.ranks import Ranks
from cogview.data.shards import TokenShards
from cogview.data.token_report import TokenizeReport
from cogview.data.tokenization import tokenize_folder
from cogview.errors import CogViewError, UsageError
from cogview.text.tokenizer import TextTokenizer

PAIRS_PER_SHARD, BATCH_SIZE = 4, 2
NUM_ENTRIES = 31


class LoggingTokenizer(MeanTokenizer):
    """Writes a line for each picture that it encodes, takes its time, and is the end of its process if told so.

    Args:
        log: the file to write to.
        killed_after: pictures after which the process is killed; None lets it live.
        delay_seconds: from then on; a timer must be fast enough to come before the end.
    """

    def __init__(self, log: Path, killed_after: int | None = None, delay_seconds: float = 0.0) -> None:
        self._log = log
        self._left = killed_after
        self._delay_seconds = delay_seconds

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        with self._log.open("a") as file:
            file.write("encoded\n" * len(images))
        if self._left is not None:
            self._left -= len(images)
            if self._left <= 0:
                self._left = None
                if self._delay_seconds:
                    threading.Timer(self._delay_seconds, kill_this_process).start()
                else:
                    kill_this_process()
        time.sleep(0.005)
        return super().encode(images)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tokenize(source: Path, out: Path, **options: Any) -> TokenizeReport | None:
    def complete(folder: Path) -> None:
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "config.json").write_text("what the command adds")

    return tokenize_folder(
        source,
        out,
        options.pop("image_tokenizer", MeanTokenizer()),
        TextTokenizer.from_file(source.with_name("text.model")),
        size_pixels=options.pop("size_pixels", SIZE_PIXELS),
        batch_size=options.pop("batch_size", BATCH_SIZE),
        pairs_per_shard=options.pop("pairs_per_shard", PAIRS_PER_SHARD),
        complete=complete,
        **options,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what is in each file under a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `tars/`, three of them, `pictures/`, and what each becomes when nobody disturbs."""
    home = tmp_path_factory.mktemp("home")
    small_text_tokenizer(home)
    sizes = {"a": 13, "b": 18, "c": 0}
    for name, num_pictures in sizes.items():
        members = {"readme.txt": b"no picture"}
        for number in range(num_pictures):
            members[f"{number}.png"] = b"no picture" if number % 5 == 3 else png(number)
            members[f"{number}.txt"] = b"a cat"
        write_tar(home / "tars" / f"{name}.tar", members)
    write_image_folder(home / "pictures", [["a cat", "two dogs"]] * NUM_ENTRIES)
    (home / "pictures" / "images" / "7.png").write_bytes(png(7)[:-30])
    for source in ("tars", "pictures"):
        with pytest.warns(UserWarning, match="left out"):
            tokenize(home / source, home / f"whole-{source}")
    return home


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Return where tokens are to be made; nothing else may be left beside them."""
    yield tmp_path / "made" / "tokens"
    if (tmp_path / "made").exists():
        assert [path.name for path in (tmp_path / "made").iterdir()] == ["tokens"]


def run_logged(source: Path, out: Path, log: Path, killed_after: int, delay_seconds: float) -> None:
    tokenize(source, out, image_tokenizer=LoggingTokenizer(log, killed_after, delay_seconds))


def num_encoded(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize(("source", "seed"), [("tars", 0), ("tars", 1), ("pictures", 2)])
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_the_same_bytes_and_redoes_a_shard_at_most(
    home: Path, out: Path, tmp_path: Path, source: str, seed: int
) -> None:
    chance, log, num_kills = random.Random(seed), tmp_path / "log", 0
    for delay_seconds in (0.0, 0.0, *(chance.uniform(0.001, 0.02) for _ in range(4))):
        process = start(run_logged, home / source, out, log, chance.randrange(1, 9), delay_seconds)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        num_kills += process.exitcode != 0
    tokenize(home / source, out, image_tokenizer=LoggingTokenizer(log))
    assert num_kills >= 2
    assert files_of(out) == files_of(home / f"whole-{source}")
    assert num_encoded(log) <= len(TokenShards(out)) + num_kills * PAIRS_PER_SHARD


def run_until(source: Path, out: Path, num_changes: int) -> None:
    """Tokenize, and be killed right before the so-manyth change of the file system."""
    left = num_changes

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes or event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod"):
            left -= 1
            if left == 0:
                kill_this_process()

    sys.addaudithook(count)
    tokenize(source, out)


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_a_run_killed_before_any_change_of_the_file_system_ends_with_the_same_bytes(
    home: Path, tmp_path: Path
) -> None:
    source = write_tar(
        tmp_path / "a.tar",
        {f"{n}.{end}": data for n in range(5) for end, data in (("png", png(n)), ("txt", b"x"))},
    )
    shutil.copy(home / "text.model", tmp_path / "text.model")
    tokenize(source, tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    for num_changes in range(1, 1000, 3):
        out = tmp_path / str(num_changes) / "tokens"
        process = start(run_until, source, out, num_changes)
        process.join()
        if out.exists():
            assert files_of(out) == whole
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        tokenize(source, out)
        assert files_of(out) == whole
        assert [path.name for path in out.parent.iterdir()] == ["tokens"]
    assert num_changes > 30


@pytest.mark.parametrize("num_ranks", [2, 4, 9])
@pytest.mark.parametrize("source", ["tars", "pictures"])
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_any_number_of_ranks_in_any_order_makes_the_same_bytes(
    home: Path, out: Path, tmp_path: Path, source: str, num_ranks: int
) -> None:
    order = list(range(num_ranks))
    random.Random(num_ranks).shuffle(order)
    reports = []
    for rank in order:
        tokenizer = LoggingTokenizer(tmp_path / f"log-{rank}")
        ranks = Ranks(rank=rank, num_ranks=num_ranks)
        reports.append(tokenize(home / source, out, ranks=ranks, image_tokenizer=tokenizer))
    made = [report for report in reports if report]
    assert made
    assert reports[: -len(made)] == [None] * (num_ranks - len(made))
    assert made[0].to_json() == TokenizeReport.from_json(TokenShards(out).report).to_json()
    assert files_of(out) == files_of(home / f"whole-{source}")
    shares = [num_encoded(tmp_path / f"log-{rank}") for rank in range(num_ranks)]
    assert sum(shares) == len(TokenShards(out))
    if num_ranks == 2:
        assert min(shares) > 8


def run_as_torchrun_would(source: Path, out: Path, rank: int, num_ranks: int) -> None:
    variables = {"RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_RANK": str(rank)}
    tokenizer = LoggingTokenizer(out.parent.parent / f"log-{rank}")
    tokenize(source, out, ranks=Ranks.from_environment(variables), image_tokenizer=tokenizer)


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.slow
def test_ranks_side_by_side_make_the_same_bytes(home: Path, out: Path, num_ranks: int) -> None:
    processes = [
        start(run_as_torchrun_would, home / "pictures", out, rank, num_ranks) for rank in range(num_ranks)
    ]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * num_ranks
    assert files_of(out) == files_of(home / "whole-pictures")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_rank_that_dies_leaves_a_state_from_which_any_number_of_ranks_goes_on(
    home: Path, out: Path, tmp_path: Path
) -> None:
    ranks = [start(run_as_torchrun_would, home / "pictures", out, rank, 2) for rank in range(2)]
    while num_encoded(tmp_path / "log-1") < 2 * PAIRS_PER_SHARD:
        time.sleep(0.001)
    ranks[1].kill()
    for process in ranks:
        process.join()
    assert ranks[0].exitcode == 0
    assert not out.exists()
    log = tmp_path / "log"
    assert tokenize(home / "pictures", out, image_tokenizer=LoggingTokenizer(log))
    assert files_of(out) == files_of(home / "whole-pictures")
    total = sum(num_encoded(path) for path in (log, tmp_path / "log-0", tmp_path / "log-1"))
    assert total <= len(TokenShards(out)) + PAIRS_PER_SHARD


def stop_after(home: Path, out: Path, source: str = "pictures", **options: Any) -> Path:
    """Tokenize until an error in the third shard, and return where the work is kept."""

    class Failing(MeanTokenizer):
        num_batches = 0

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            self.num_batches += 1
            if self.num_batches == 5:
                raise MemoryError("as if there were none")
            return super().encode(images)

    with pytest.raises(MemoryError):
        tokenize(home / source, out, image_tokenizer=Failing(), **options)
    return out.with_name(f"{out.name}.unfinished")


def test_what_is_kept_says_what_it_is_for(home: Path, tmp_path: Path) -> None:
    kept = stop_after(home, tmp_path / "tokens")
    request = json.loads((kept / "request.json").read_text())
    assert request["source"] == str(home / "pictures")
    assert request["request"]["size_pixels"] == SIZE_PIXELS
    assert request["request"]["image_tokenizer"] == MeanTokenizer.fingerprint
    assert sorted(path.name for path in (kept / "done").iterdir()) == ["00000-00000.json", "00000-00001.json"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size_pixels": 32}, "size_pixels was 16, now 32"),
        ({"batch_size": 3}, "batch_size was 2, now 3"),
        ({"pairs_per_shard": 5}, "pairs_per_shard was 4, now 5"),
        ({"split": "train"}, "split was None, now train"),
    ],
)
def test_other_options_are_refused_in_a_line_that_names_them(
    home: Path, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    kept = stop_after(home, tmp_path / "tokens")
    before = files_of(kept)
    with pytest.raises(UsageError) as refusal:
        tokenize(home / "pictures", tmp_path / "tokens", **options)
    assert told in str(refusal.value)
    assert "delete" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert files_of(kept) == before


@pytest.mark.parametrize("change", ["a caption", "a picture", "its time", "one more", "a tar", "another"])
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_a_source_that_was_changed_is_refused(home: Path, tmp_path: Path, change: str) -> None:
    name = "tars" if change == "a tar" else "pictures"
    for kept_name in (name, "text.model"):
        copy = shutil.copytree if (home / kept_name).is_dir() else shutil.copy
        copy(home / kept_name, tmp_path / kept_name)
    source = tmp_path / name
    kept = stop_after(tmp_path, tmp_path / "tokens", name)
    metadata, first = source / "metadata.jsonl", source / "images" / "0.png"
    match change:
        case "a caption":
            metadata.write_text(metadata.read_text().replace("two dogs", "two cats"))
        case "a picture":
            first.write_bytes(png(0) + b"more")
        case "its time":
            os.utime(first, ns=(0, first.stat().st_mtime_ns + 1))
        case "one more":
            metadata.write_text(metadata.read_text() + '{"file_name": "images/1.png", "text": "a"}')
        case "a tar":
            write_tar(source / "d.tar", {"0.png": png(0), "0.txt": b"d"})
        case "another":
            source = write_image_folder(tmp_path / "other", [["a"]])
    with pytest.raises(UsageError, match=r"data set .* changed"):
        tokenize(source, tmp_path / "tokens")
    shutil.rmtree(kept)
    assert tokenize(source, tmp_path / "tokens") is not None


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_copy_of_the_source_makes_the_same_bytes(home: Path, tmp_path: Path, out: Path) -> None:
    shutil.copytree(home / "tars", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.copy(home / "text.model", tmp_path)
    tokenize(tmp_path / "elsewhere", out)
    assert files_of(out) == files_of(home / "whole-tars")


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_the_same_again_leaves_what_is_made_alone_until_a_byte_of_the_source_changes(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "tars", tmp_path / "tars")
    shutil.copy(home / "text.model", tmp_path)
    first = tokenize(tmp_path / "tars", tmp_path / "tokens")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").rglob("*")}
    (tmp_path / "tars" / "a.tar").touch()
    for ranks in (None, Ranks(rank=1, num_ranks=2), Ranks(rank=3, num_ranks=5)):
        assert tokenize(tmp_path / "tars", tmp_path / "tokens", ranks=ranks) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").rglob("*")} == before
    with pytest.raises(UsageError, match="already exists"):
        tokenize(tmp_path / "tars", tmp_path / "tokens", size_pixels=32)


def replace_quietly(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file so that its size and its times stay what they were."""
    assert len(old) == len(new)
    status, data = path.stat(), path.read_bytes()
    assert old in data
    path.write_bytes(new.join(data.rsplit(old, 1)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


@pytest.mark.parametrize("what", ["a caption", "a picture", "a picture of a folder"])
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_what_was_made_of_other_bytes_is_refused_whatever_their_size_and_time(
    home: Path, tmp_path: Path, what: str
) -> None:
    name = "pictures" if what == "a picture of a folder" else "tars"
    shutil.copytree(home / name, tmp_path / name)
    shutil.copy(home / "text.model", tmp_path)
    tokenize(tmp_path / name, tmp_path / "tokens")
    kept = stop_after(tmp_path, tmp_path / "other", name).parent / "other"
    match what:
        case "a caption":
            replace_quietly(tmp_path / "tars" / "a.tar", b"a cat", b"a dog")
        case "a picture":
            replace_quietly(tmp_path / "tars" / "a.tar", png(0), png(0)[:-20] + bytes(20))
        case _:
            replace_quietly(tmp_path / "pictures" / "images" / "1.png", png(1), png(1)[:-20] + bytes(20))
    with pytest.raises(UsageError, match="other pictures or captions"):
        tokenize(tmp_path / name, tmp_path / "tokens")
    if what != "a caption":  # which is in the last shard of its tar, and that was not made yet
        with pytest.raises(UsageError, match=r"data set .* changed"):
            tokenize(tmp_path / name, kept)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_tokens_that_do_not_tell_of_which_bytes_they_were_made_are_refused(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "whole-tars", tmp_path / "tokens")
    assert tokenize(home / "tars", tmp_path / "tokens") is not None
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    del manifest["content"]
    (tmp_path / "tokens" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"manifest .*delete"):
        tokenize(home / "tars", tmp_path / "tokens")


@pytest.mark.parametrize("damage", ["cut off", "missing", "no record", "a stray"])
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.slow
def test_a_shard_that_was_kept_and_is_not_whole_is_made_again(home: Path, out: Path, damage: str) -> None:
    kept = stop_after(home, out)
    shard, record = kept / "tokens" / "tokens-00001.safetensors", kept / "done" / "00000-00001.json"
    match damage:
        case "cut off":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "missing":
            shard.unlink()
        case "no record":
            record.write_text(record.read_text()[:-9])
        case "a stray":
            (kept / "tokens" / ".tokens-00002.safetensors.x").write_bytes(b"half of it")
            (kept / "tokens" / "tokenizer").mkdir()
    tokenize(home / "pictures", out)
    assert files_of(out) == files_of(home / "whole-pictures")


@pytest.mark.parametrize("damage", ["{", "[]", '{"request": 3}'])
def test_work_that_does_not_say_what_it_is_for_is_refused(home: Path, tmp_path: Path, damage: str) -> None:
    kept = stop_after(home, tmp_path / "tokens")
    (kept / "request.json").write_text(damage)
    with pytest.raises(CogViewError, match=r"request\.json is damaged"):
        tokenize(home / "pictures", tmp_path / "tokens")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_work_whose_lock_was_lost_goes_on(home: Path, out: Path) -> None:
    (stop_after(home, out) / "lock").unlink()
    tokenize(home / "pictures", out)
    assert files_of(out) == files_of(home / "whole-pictures")
