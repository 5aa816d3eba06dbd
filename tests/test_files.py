"""Files and folders are written whole or not at all."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cogview import folders
from cogview.errors import CogViewError
from cogview.files import (
    atomic_file,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    read_card,
    read_json,
    sha256_of,
)
from cogview.folders import atomic_folder, refuse_unlike


def whatever(_: Path) -> None:
    """Let any folder be replaced."""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "new" / "folder" / "bytes", b"\x00\xff")
    atomic_write_text(tmp_path / "text", "猫\n")
    atomic_write_json(tmp_path / "json", {"猫": [1, 2.5, None]})
    assert (tmp_path / "new" / "folder" / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_bytes() == "猫\n".encode()
    assert (tmp_path / "json").read_text(encoding="utf-8").startswith('{\n  "猫": [')


def test_names_that_are_not_unicode_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    atomic_write_json(tmp_path / "json", [name])
    assert json.loads((tmp_path / "json").read_text(encoding="utf-8")) == [name]


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with atomic_folder(tmp_path / "link") as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "new"


def test_the_current_folder_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "here" / "file").read_text() == "new"


def test_a_mount_point_is_refused_before_any_work() -> None:
    with pytest.raises(CogViewError, match="mount"), atomic_folder(Path("/")):
        pytest.fail("the work began")


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    replace = Path.replace

    def failing(source: Path, target: Path) -> Path:
        if source.name == "new" and target == path:
            raise OSError(5, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(path, whatever) as folder:
        (folder / "file").write_text("new")
    assert (path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_and_folders_have_the_permissions_of_ordinary_ones(tmp_path: Path) -> None:
    ordinary_file, ordinary_folder = tmp_path / "ordinary", tmp_path / "ordinary-folder"
    ordinary_file.write_text("")
    ordinary_folder.mkdir()
    atomic_write_bytes(tmp_path / "file", b"")
    with atomic_folder(tmp_path / "folder"):
        pass
    mode = lambda path: stat.S_IMODE(path.stat().st_mode)  # noqa: E731
    assert mode(tmp_path / "file") == mode(ordinary_file)
    assert mode(tmp_path / "folder") == mode(ordinary_folder)


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path) as unfinished:
        (unfinished / "a").write_text("a")
        assert not path.exists()
    assert (path / "a").read_text() == "a"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_folder(path, whatever) as unfinished:
            (unfinished / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_inside_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path) as unfinished:
        (unfinished / "old").write_text("old")

    def interrupted() -> None:
        with atomic_folder(path, whatever) as unfinished:
            (unfinished / "new").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


WORKER = """
import sys
from pathlib import Path
from cogview.folders import atomic_folder

path = Path(sys.argv[1])
with atomic_folder(path, lambda _: None) as folder:
    (folder / "file").write_text("new")
    if "between the renames" in sys.argv:
        path.replace(folder.parent / "old")
    print("at work", flush=True)
    sys.stdin.read()
"""


@contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that is making a folder and ends, if it is let, when its input does."""
    command = [sys.executable, "-c", WORKER, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.kill()


needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")


@needs_locks
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out [1]"
    others = [tmp_path / ".out [1].backup", tmp_path / ".out [1].unfinished", tmp_path / ".out 1"]
    for other in others:
        other.mkdir()
    with worker(str(path)) as living:
        workplaces = set(tmp_path.iterdir()) - set(others)
        with worker(str(path)) as killed:
            killed.kill()
        left = set(tmp_path.iterdir()) - set(others) - workplaces
        assert len(left) == len(workplaces) == 1
        with atomic_folder(path, whatever) as folder:
            assert set(tmp_path.iterdir()) == {*others, *workplaces, folder.parent}
            (folder / "file").write_text("ours")
        assert set(tmp_path.iterdir()) == {*others, *workplaces, path}
        living.communicate(timeout=60)
        assert living.returncode == 0
    assert (path / "file").read_text() == "new"
    assert set(tmp_path.iterdir()) == {*others, path}


@needs_locks
def test_the_old_folder_comes_back_after_a_kill_between_the_renames(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    with worker(str(path), "between the renames") as killed:
        killed.kill()
    assert not path.exists()
    with suppress(KeyboardInterrupt), atomic_folder(path, whatever):
        raise KeyboardInterrupt
    assert (path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@needs_locks
def test_a_folder_taken_for_a_leftover_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = folders._lock, []

    def taken_first(folder: Path) -> int:
        if len(taken) < 2:
            taken.append(folder)
            if len(taken) == 1:
                folder.rmdir()  # by a process that is done with it already
            else:
                held = lock(folder)  # by one that is at it
                try:
                    return lock(folder)
                finally:
                    folder.rmdir()
                    os.close(held)
        return lock(folder)

    monkeypatch.setattr(folders, "_lock", taken_first)
    with atomic_folder(tmp_path / "folder") as folder:
        assert folder.parent not in taken
        assert len(taken) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_where_folders_cannot_be_locked_they_are_made_and_none_is_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_: Path) -> int:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders, "_lock", no_locks)
    with atomic_folder(tmp_path / "folder", whatever) as first:
        with atomic_folder(tmp_path / "folder", whatever) as second:
            (second / "file").write_text("second")
        (first / "file").write_text("first")
    assert (tmp_path / "folder" / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"cogview" * 100_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"cogview" * 100_000).hexdigest()


def test_what_is_put_into_a_folder_while_it_is_made_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path) as unfinished:
        (unfinished / "ours").write_text("new")
        path.mkdir()
        (path / "theirs").write_text("precious")
    assert {each.name: each.read_text() for each in path.iterdir()} == {"ours": "new", "theirs": "precious"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_folder", [True, False])
def test_where_a_name_is_taken_what_was_made_is_kept_under_another(tmp_path: Path, is_folder: bool) -> None:
    path = tmp_path / "folder"

    def make() -> None:
        with atomic_folder(path) as unfinished:
            (unfinished / "name").write_text("ours")
            (unfinished / "more").write_text("more")
            path.mkdir() if is_folder else path.write_text("theirs")
            if is_folder:
                (path / "name").write_text("theirs")

    with pytest.raises(CogViewError, match=r"meanwhile.*folder-2"):
        make()
    theirs = path / "name" if is_folder else path
    assert theirs.read_text() == "theirs"
    assert sorted(each.name for each in (tmp_path / "folder-2").iterdir()) == ["more", "name"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "folder-2"]


def test_a_folder_with_something_in_it_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(CogViewError, match="isn't an empty folder"), atomic_folder(tmp_path):
        pytest.fail("the work began")
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "file").write_text("new")


@needs_locks
def test_an_old_folder_that_nobody_can_put_back_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    with worker(str(path), "between the renames") as killed:
        killed.kill()
    path.mkdir()
    (path / "note").write_text("somebody else's")
    with atomic_folder(path, whatever) as folder:
        (folder / "file").write_text("new")
    assert [each.read_text() for each in tmp_path.glob(".folder.*/old/file")] == ["old"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "sub/notes.txt", "sub/a/notes.txt", "sub/a/deep/x", "sub/file", ".git/x"]
)
def test_only_folders_of_a_kind_and_nothing_more_are_replaced(tmp_path: Path, name: str) -> None:
    files = ("config.json", "sub/*/model.bin")
    for each in ("config.json", "sub/a/model.bin", "sub/b/model.bin"):
        atomic_write_bytes(tmp_path / each, b"")
    refuse_unlike(tmp_path, whatever, files, "a kind")
    atomic_write_bytes(tmp_path / name, b"mine")
    with pytest.raises(CogViewError, match="not replaced") as caught:
        refuse_unlike(tmp_path, whatever, files, "a kind")
    assert f" holds {name.removesuffix('/x')}," in str(caught.value)


def test_an_empty_folder_and_a_file_are_no_models(tmp_path: Path) -> None:
    def no_config(_: Path) -> None:
        raise CogViewError("none")

    refuse_unlike(tmp_path, no_config, (), "a kind")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(CogViewError, match="is not replaced"):
            refuse_unlike(path, no_config, ("file",), "a kind")


def test_a_file_put_there_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"

    def write() -> None:
        with atomic_file(path, existing="refuse") as file:
            file.write(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(CogViewError, match=r"meanwhile .*-2"):
        write()
    assert path.read_bytes() == b"theirs"
    assert (tmp_path / "out.bin-2").read_bytes() == b"ours"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_card_is_read_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "README.md").write_bytes("# Modèle – déjà vu".encode(encoding))
    assert read_card(tmp_path / "README.md") == "# Modèle – déjà vu"
    (tmp_path / "README.md").write_bytes(bytes(range(256)))
    assert "Modèle" not in read_card(tmp_path / "README.md")
    assert read_card(tmp_path / "none") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes there")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CogViewError, match="a pipe or a device"):
        read_json(tmp_path / "config.json", "model")
    with pytest.raises(OSError, match="a pipe or a device"):
        sha256_of(tmp_path / "config.json")
