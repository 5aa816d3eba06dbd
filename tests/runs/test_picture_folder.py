"""Numbered folders of pictures: nobody shares one, and what was cut short in it is mended or left alone."""

from contextlib import suppress
from pathlib import Path

import pytest

from cogview.runs.picture_folder import JOURNAL, picture_folder


def test_two_processes_never_fill_one_folder(tmp_path: Path) -> None:
    with (
        picture_folder(tmp_path / "out", {"verb": "test"}) as one,
        picture_folder(tmp_path / "out", {"verb": "test"}) as other,
    ):
        assert one.path != other.path
        (one.path / "a.png").touch()
    assert one.path.exists()
    assert not other.path.exists()


@pytest.mark.parametrize("tail", [b'{"share": 1, "pic', b"\0\0\0\n", b'{"share": 1}\n', b"null\n"])
def test_what_was_being_noted_when_it_was_killed_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    request = {"verb": "test", "texts": "猫"}
    with suppress(KeyboardInterrupt), picture_folder(tmp_path, request) as folder:
        for share in range(2):
            path = folder.path / f"{share}.png"
            path.touch()
            folder.keep(share, [{"path": path, "number": share}])
        raise KeyboardInterrupt
    journal = tmp_path / "001" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole[: whole.rindex(b'{"share"')] + tail)
    with picture_folder(tmp_path, request) as folder:
        assert folder.pictures(0) == [{"path": tmp_path / "001" / "0.png", "number": 0}]
        assert folder.pictures(1) is None
        folder.keep(1, [{"path": tmp_path / "001" / "1.png", "number": 1}])
        folder.finish()
        assert [each["number"] for each in folder.all_pictures()] == [0, 1]
    assert not journal.exists()


@pytest.mark.parametrize("first_line", [b"", b"\xff\n", b"null\n", b"[]\n", b'{"format": 1}\n'])
def test_a_folder_with_a_damaged_journal_is_left_alone(tmp_path: Path, first_line: bytes) -> None:
    (tmp_path / "007").mkdir()
    (tmp_path / "007" / JOURNAL).write_bytes(first_line)
    with picture_folder(tmp_path, {}) as folder:
        assert folder.path.name == "008"
        (folder.path / "a.png").touch()
    assert (tmp_path / "007" / JOURNAL).read_bytes() == first_line
