"""A tar is read no further than its bytes warrant, whatever its headers claim, and what is in it never vanishes."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_folders import png, write_tar

import cogview.data.tar_members as tar_members
from cogview.data.pairs import CaptionedImage, Entry, Problem
from cogview.data.tar_members import TarMember, members_of
from cogview.data.tars import Tars
from cogview.errors import CogViewError

A = png(1)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Write a tar of these members, and a good picture behind them."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (
            *members,
            (tarfile.TarInfo("good.png"), A),
            (tarfile.TarInfo("good.txt"), b"good"),
        ):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, target, pax
    return info


def problems_of(source: Path) -> dict[str, Problem]:
    """Return the problems of a tar by where they are, and make sure that the good picture is read."""
    entries: list[Entry] = list(Tars(source))
    assert [each.name for each in entries if isinstance(each, CaptionedImage)] == [f"{source.name} good.png"]
    return {each.where.split()[-1]: each for each in entries if isinstance(each, Problem)}


@pytest.mark.parametrize(
    ("info", "data", "reason"),
    [
        (member("a.svg"), b"<svg/>", "a picture in SVG"),
        (member("in/b.tar.gz"), b"", "an archive"),
        (member("b.zip"), b"PK", "an archive"),
        (member("in/metadata.jsonl"), b"{}", "read in a folder only"),
        (member("._a.png"), b"\0\x05\x16\x07", None),
        (member(".a.png"), A, "a hidden picture"),
        (member("a.cls"), b"7", None),
        (member("a.png", tarfile.LNKTYPE, "good.png"), b"", "a link in the tar, to good.png"),
        (member("a.txt", tarfile.SYMTYPE, "../b"), b"", "a link in the tar, to ../b"),
        (member("a.cls", tarfile.SYMTYPE, "../b"), b"", None),
        (member("a.jpg", tarfile.FIFOTYPE), b"", "a pipe or a device"),
        (member("a.jpg", tarfile.DIRTYPE), b"", None),
        (member("stray.txt"), b"x", "a caption without a picture"),
        (member("stray.json"), b'{"text": "x"}', "a caption without a picture"),
        (member("stray.json"), b'{"boxes": 3}', None),
    ],
)
def test_what_a_tar_has_and_is_not_read_is_told(
    tmp_path: Path, info: tarfile.TarInfo, data: bytes, reason: str | None
) -> None:
    found = problems_of(tar_of(tmp_path / "a.tar", (info, data)))
    assert list(found) == ([] if reason is None else [info.name])
    for problem in found.values():
        assert problem.is_passed_over
        assert reason is not None
        assert problem.reason.startswith(reason)


def test_a_tar_of_tars_alone_is_told_so(tmp_path: Path) -> None:
    inner = write_tar(tmp_path / "inner.tar", {"0.png": A, "0.txt": b"x"}).read_bytes()
    with pytest.raises(CogViewError, match=r"no pictures .*archive"):
        Tars(write_tar(tmp_path / "outer.tar", {"inner.tar": inner}))


def sparse_tar(path: Path, size: int, blocks: str, content: bytes) -> Path:
    pax = {"GNU.sparse.size": str(size), "GNU.sparse.map": blocks, "GNU.sparse.name": "a.png"}
    info = member("a.png")
    info.pax_headers = pax
    return tar_of(path, (info, content), (member("a.txt"), b"sparse"))


def test_a_member_of_holes_is_told_unread(tmp_path: Path) -> None:
    problem = problems_of(sparse_tar(tmp_path / "a.tar", 2**40, f"0,{len(A)}", A))["a.png"]
    assert problem.reason.startswith(f"claims {2**40:,} bytes and has {len(A):,}")


def test_a_member_with_a_few_holes_is_read(tmp_path: Path) -> None:
    image, *_ = Tars(sparse_tar(tmp_path / "a.tar", len(A) + 9, f"0,{len(A)}", A))
    assert isinstance(image, CaptionedImage)
    assert image.source == A + bytes(9)


def gnu_sparse_tar(path: Path, size: int, blocks: list[tuple[int, int]], content: bytes) -> Path:
    """Write a tar whose first member has its map in its header, as GNU tar writes it; a good picture follows."""
    tar_of(path, (member("a.png"), content), (member("a.txt"), b"sparse"))
    data = bytearray(path.read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[257:265] = tarfile.GNU_MAGIC
    data[386:482] = b"".join(b"%011o\0" % number for block in blocks for number in block).ljust(96, b"\0")
    data[483:495] = b"%011o\0" % size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


def test_empty_blocks_of_a_map_are_passed_over(tmp_path: Path) -> None:
    size, half = len(A) + 9000, len(A) // 2
    blocks = [(0, half), (half, len(A) - half), (size, 0), (0, 0)]
    image, *others = Tars(gnu_sparse_tar(tmp_path / "a.tar", size, blocks, A))
    assert isinstance(image, CaptionedImage)
    assert image.source == A + bytes(9000)
    assert [each.name for each in others if isinstance(each, CaptionedImage)] == ["a.tar good.png"]


@pytest.mark.parametrize("blocks", ["9,9,0,9", "0,-5", "0,9999"])
def test_a_map_of_holes_that_makes_no_sense_costs_its_member_alone(tmp_path: Path, blocks: str) -> None:
    problem = problems_of(sparse_tar(tmp_path / "a.tar", 99, blocks, A))["a.png"]
    assert problem.kind == "damaged"
    assert problem.reason.startswith("the map of a sparse member")


def test_a_long_header_is_refused_by_what_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar_of(tmp_path / "a.tar", (member("a.png", comment="x" * 5000), A))
    assert len([each for each in members_of(path) if isinstance(each, TarMember)]) == 3
    monkeypatch.setattr(tar_members, "MAX_HEADER_BYTES", 4096)
    with pytest.raises(tarfile.ReadError, match=r"header .*5,\d\d\d bytes"):
        list(members_of(path))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_is_unpacked_only_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    path = tar_of(tmp_path / "plain.tar", (member("a.cls"), bytes(2**22)))
    packed = tmp_path / "a.tar.x"
    packed.write_bytes(pack(path.read_bytes()))
    assert problems_of(packed) == {}
    monkeypatch.setattr(tar_members, "MAX_UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(tar_members, "MAX_UNPACKED_RATIO", 2)
    with pytest.raises(CogViewError, match=r"no pictures .*unpacks to more than .* bytes"):
        Tars(packed)
    assert problems_of(path) == {}, "what is not packed has the bytes that it claims"


def test_headers_of_headers_without_end_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(self: tarfile.TarFile) -> None:
        raise RecursionError("as if there were a thousand")

    path = tar_of(tmp_path / "a.tar")
    source = Tars(path)
    monkeypatch.setattr(tarfile.TarFile, "next", deep)
    (damage,) = source
    assert isinstance(damage, Problem)
    assert damage.kind == "damaged tar"


def test_captions_too_long_to_be_any_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cogview.data.samples.MAX_RECORD_BYTES", 100)
    path = tar_of(tmp_path / "a.tar", (member("a.png"), A), (member("a.txt"), b"x" * 101))
    assert problems_of(path)["a.png"].reason.startswith("its .txt has more than 100 bytes")


def test_a_picture_too_large_to_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tars", "tar_members"):
        monkeypatch.setattr(f"cogview.data.{name}.MAX_MEMBER_BYTES", 400)
    large = (member("a.png"), A + bytes(401)), (member("a.txt"), b"x")
    assert problems_of(tar_of(tmp_path / "a.tar", *large))["a.png"].kind == "too large"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_no_tar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(CogViewError, match="a pipe or a device"):
        Tars(tmp_path / "a.tar")
