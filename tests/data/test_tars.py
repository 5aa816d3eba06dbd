"""WebDataset tars give what lies in them, and never more than that."""

import bz2
import gzip
import json
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_folders import png, write_image_folder, write_tar

from cogview.data.pairs import CaptionedImage, Entry, Problem
from cogview.data.samples import NO_CAPTION
from cogview.data.sources import open_pairs
from cogview.data.tars import Tars
from cogview.errors import CogViewError

A, B = png(1), png(2)


def record(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def images_of(source: Path, split: str | None = None) -> list[Entry]:
    return list(Tars(source, split))


def told_of(entries: list[Entry], is_passed_over: bool = False) -> list[str]:
    """Return the problems of some entries as text."""
    return [
        str(each) for each in entries if isinstance(each, Problem) and each.is_passed_over == is_passed_over
    ]


def test_members_of_one_name_are_a_pair(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "000.png": A,
            "000.json": record(texts=["猫", "cat"], split="train"),
            "000.txt": b"not this",
            "deep/001.JPG": B,
            "deep/001.txt": "一只狗\na dog\n".encode(),
            "002.cls": b"7",
            "003.png": A,
            "003.json": record(width=16),
            "003.txt": b"",
        },
    )
    assert images_of(tar) == [
        CaptionedImage(name="a.tar 000.png", source=A, texts=("猫", "cat"), split="train"),
        CaptionedImage(name="a.tar deep/001.JPG", source=B, texts=("一只狗", "a dog")),
        CaptionedImage(name="a.tar 003.png", source=A, texts=("",)),
    ]
    assert len(Tars(tar)) == 3


def test_tars_of_a_folder_come_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_tar(tmp_path / f"{name}.tar", {"0.png": A, "0.txt": name.encode()})
    assert [image.texts for image in images_of(tmp_path) if isinstance(image, CaptionedImage)] == [
        ("a",),
        ("b",),
    ]


def test_what_the_webdataset_library_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(3):
            writer.write({"__key__": f"{number:05d}", "png": png(number), "json": {"text": f"text {number}"}})
    assert images_of(tmp_path) == [
        CaptionedImage(name=f"a.tar {number:05d}.png", source=png(number), texts=(f"text {number}",))
        for number in range(3)
    ]


def test_a_split_gives_its_pictures_and_those_that_name_none(tmp_path: Path) -> None:
    members = {}
    for name in ("train", "test"):
        members |= {f"{name}.png": A, f"{name}.json": record(text=name, split=name)}
    tar = write_tar(tmp_path / "a.tar", {**members, "any.png": A, "any.txt": b"any"})
    names = [image.name for image in images_of(tar, "test") if isinstance(image, CaptionedImage)]
    assert names == ["a.tar test.png", "a.tar any.png"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "has no caption"),
        ({"x.json": record(width=3)}, "has no caption"),
        ({"x.json": b"{"}, r"its .json cannot be used"),
        ({"x.json": b"[]"}, "its .json cannot be used (not an object)"),
        ({"x.json": record(texts="a")}, '"texts" is not'),
        ({"x.json": record(text="a", split=3)}, '"split" is not'),
        ({"x.txt": b"\xff"}, "its .txt is not UTF-8"),
    ],
)
def test_a_pair_that_cannot_be_used_is_told(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    tar = write_tar(tmp_path / "a.tar", {"x.png": A, **members, "good.png": B, "good.txt": b"good"})
    problem, good = images_of(tar)
    assert isinstance(problem, Problem)
    assert problem.where == "a.tar x.png"
    assert reason in problem.reason
    assert isinstance(good, CaptionedImage)


def test_members_that_lie_apart_are_told_rather_than_taken_for_two_pictures(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"x.png": A, "y.png": B, "y.txt": b"y", "x.txt": b"x"})
    first, good, apart = images_of(tar)
    assert isinstance(good, CaptionedImage)
    assert isinstance(first, Problem)
    assert str(apart) == "a.tar x: its members don't lie side by side"


def test_what_img2dataset_writes_is_read(tmp_path: Path) -> None:
    def told(number: int, caption: str | None) -> bytes:
        return record(
            caption=caption, url="https://example.org/a.jpg", key=f"{number:09d}", status="success", width=16
        )

    members = {
        "000000000.jpg": A,
        "000000000.json": told(0, "a cat"),
        "000000000.txt": b"a cat",
        "000000001.jpg": B,
        "000000001.json": told(1, "two\nlines of one caption"),
        "000000001.txt": b"two\nlines of one caption",
        "000000002.jpg": A,
        "000000002.json": told(2, "in the .json alone"),
        "000000003.jpg": B,
        "000000003.json": told(3, "what the web said"),
        "000000003.txt": b"one that is better\nand another",
        "000000004.jpg": A,
        "000000004.json": told(4, None),
        "000000004.txt": b"",
        "000000005.jpg": A,
        "000000005.json": told(5, None),
    }
    write_tar(tmp_path / "00000.tar", members)
    (tmp_path / "00000.parquet").write_bytes(b"a table")
    (tmp_path / "00000_stats.json").write_text("{}")
    source = open_pairs(tmp_path)
    *images, captionless = source
    assert [image.texts for image in images if isinstance(image, CaptionedImage)] == [
        ("a cat",),
        ("two\nlines of one caption",),
        ("in the .json alone",),
        ("one that is better", "and another"),
        ("",),
    ]
    assert "000000005.jpg: has no caption" in str(captionless)
    assert (source.num_parts, len(source), source.expected()) == (1, 6, 6)


def test_the_number_of_pictures_is_guessed_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, num_pictures in (("a", 0), ("b", 20), ("c", 60)):
        members = {
            f"{n}.{end}": data for n in range(num_pictures) for end, data in (("png", A), ("txt", b"a"))
        }
        write_tar(tmp_path / f"{name}.tar", {"x.cls": b"x"} | members)
    monkeypatch.setattr("cogview.data.tars.COUNTED_IMAGES", 10)
    source = Tars(tmp_path)
    assert source.num_parts == 3
    assert len(source) == 80
    assert abs(source.expected() - 80) < 25
    assert [len(list(source.part(number))) for number in range(3)] == [0, 20, 60]


def test_names_with_dots_are_pictures_where_a_caption_shares_them(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "2024.05.01.JPG": A,
            "2024.05.01.txt": b"one",
            "2024.05.02.png": B,
            "2024.05.02.json": record(text="two"),
            "in.folder/cat.png": A,
            "in.folder/cat.2.png": B,
            "in.folder/cat.2.txt": b"four",
            "in.folder/cat.txt": b"three",
        },
    )
    assert images_of(tar) == [
        CaptionedImage(name="a.tar 2024.05.01.JPG", source=A, texts=("one",)),
        CaptionedImage(name="a.tar 2024.05.02.png", source=B, texts=("two",)),
        CaptionedImage(name="a.tar in.folder/cat.2.png", source=B, texts=("four",)),
        CaptionedImage(name="a.tar in.folder/cat.png", source=A, texts=("three",)),
    ]


def test_names_with_dots_may_come_in_any_order(tmp_path: Path) -> None:
    names = ("x.1", "y.1", "x.2", "y", "x.3.a")
    members = {f"{name}.{ending}": A for name in names for ending in ("png", "txt")}
    tar = write_tar(tmp_path / "a.tar", {**members, **{f"{name}.txt": name.encode() for name in names}})
    assert [image.texts for image in images_of(tar) if isinstance(image, CaptionedImage)] == [
        (name,) for name in names
    ]


def test_further_fields_of_a_sample_are_no_pictures(tmp_path: Path) -> None:
    members = {"0.depth.png": B, "0.jpg": A, "0.seg.png": B, "0.seg.json": record(labels=3), "0.txt": b"x"}
    tar = write_tar(tmp_path / "a.tar", {**members, "1.jpg": B, "1.txt": b"y"})
    entries = images_of(tar)
    assert [each for each in entries if isinstance(each, CaptionedImage)] == [
        CaptionedImage(name="a.tar 0.jpg", source=A, texts=("x",)),
        CaptionedImage(name="a.tar 1.jpg", source=B, texts=("y",)),
    ]
    reason = "a further picture beside that of 0, without a caption of its own"
    assert told_of(entries, True) == [f"a.tar 0.depth.png: {reason}", f"a.tar 0.seg.png: {reason}"]


def test_a_name_with_dots_and_no_caption_is_told_if_its_sample_has_no_other_picture(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.left.png": A, "0.right.png": B, "0.txt": b"x", "1.a.png": A})
    entries = images_of(tar)
    names = ("0.left.png", "0.right.png", "1.a.png")
    assert told_of(entries) == [f"a.tar {name}: {NO_CAPTION}" for name in names]
    assert told_of(entries, True) == ["a.tar 0.txt: a caption without a picture of its name"]


def test_names_with_dots_that_lie_apart_are_told(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"x.1.png": A, "x.2.png": B, "x.2.txt": b"x", "x.1.txt": b"x"})
    captionless, good, apart = images_of(tar)
    assert isinstance(good, CaptionedImage)
    assert str(apart) == "a.tar x.1: its members don't lie side by side"
    assert "x.1.png: has no caption" in str(captionless)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"._0.png": B, "0.png": A, "0.txt": b"x", ".cache/1.png": A})
    assert [str(entry.name) for entry in images_of(tar) if isinstance(entry, CaptionedImage)] == [
        "a.tar 0.png"
    ]
    assert len(Tars(tar)) == 2


def test_nothing_is_written_whatever_the_names_are(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "in" / "a.tar", {"../out.png": A, "../out.txt": b"out", "/abs.png": A, "/abs.txt": b"x"}
    )
    assert len(images_of(tar)) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tar"]


def test_a_header_that_makes_no_sense_is_not_taken_for_the_end(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar", {f"{number}.{ending}": b"x" for number in range(3) for ending in ("png", "txt")}
    )
    data = bytearray(tar.read_bytes())
    place = data.index(b"1.txt")
    data[place : place + 100] = b"?" * 100
    tar.write_bytes(data)
    first, captionless, damaged = images_of(tar)
    assert isinstance(first, CaptionedImage)
    assert str(captionless) == "a.tar 1.png: its captions are lost with what follows"
    assert "a.tar: damaged" in str(damaged)


@pytest.mark.parametrize("size", [b"\xff" * 10 + b"\xfe\0", b"\xff" * 12])
def test_a_member_of_less_than_no_size_is_not_read_for_ever(tmp_path: Path, size: bytes) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": b"x", "0.txt": b"x", "1.png": b"x", "1.txt": b"x"})
    data = bytearray(tar.read_bytes())
    header = data.index(b"1.txt")
    data[header + 124 : header + 136] = size  # as a two's complement
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    tar.write_bytes(data)
    first, captionless, damaged = images_of(tar)
    assert isinstance(first, CaptionedImage)
    assert str(captionless) == "a.tar 1.png: its captions are lost with what follows"
    assert "a.tar: damaged" in str(damaged)


def test_numbers_of_a_header_that_are_none_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("0.png", "0.txt", "1.png", "1.txt"):
            member = tarfile.TarInfo(name)
            if name == "1.txt":
                member.pax_headers = {"GNU.sparse.map": "0,x"}
            tar.addfile(member)
    first, captionless, damaged = images_of(path)
    assert isinstance(first, CaptionedImage)
    assert str(captionless) == "a.tar 1.png: its captions are lost with what follows"
    assert "a.tar: damaged" in str(damaged)


def test_the_last_sample_before_damage_is_whole(tmp_path: Path) -> None:
    members = {f"s{n}.{end}": data for n in range(3) for end, data in (("png", A), ("txt", b"x"))}
    tar = write_tar(tmp_path / "a.tar", members)
    data = bytearray(tar.read_bytes())
    end = data.index(b"s2.txt") + 2 * tarfile.BLOCKSIZE
    data[end : end + tarfile.BLOCKSIZE] = b"x" * tarfile.BLOCKSIZE
    tar.write_bytes(data)
    *images, damaged = images_of(tar)
    assert [each.name for each in images if isinstance(each, CaptionedImage)] == [
        f"a.tar s{number}.png" for number in range(3)
    ]
    assert "a.tar: damaged" in str(damaged)


def test_a_cut_off_tar_gives_what_is_whole_and_tells_the_rest(tmp_path: Path) -> None:
    members = {
        f"{number}.{ending}": data for number in range(4) for ending, data in (("png", A), ("txt", b"x"))
    }
    tar = write_tar(tmp_path / "a.tar", members)
    tar.write_bytes(tar.read_bytes()[:3000])
    other = write_tar(tmp_path / "b.tar", {"0.png": A, "0.txt": b"x"})
    *whole, captionless, damaged, last = images_of(tmp_path)
    assert len(whole) >= 1
    assert str(captionless).endswith(".png: its captions are lost with what follows")
    assert all(isinstance(image, CaptionedImage) for image in whole)
    assert isinstance(damaged, Problem)
    assert damaged.where == "a.tar"
    assert isinstance(last, CaptionedImage)
    assert last.name.startswith(other.name)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
@pytest.mark.slow
def test_a_damaged_compressed_tar_gives_what_is_whole_and_tells_the_rest(
    tmp_path: Path, pack: Callable[[bytes], bytes], damage: str
) -> None:
    noise = random.Random(0)
    members = {
        f"{number}.{ending}": data
        for number in range(30)
        for ending, data in (("png", noise.randbytes(25_000).hex().encode()), ("txt", b"x"))
    }
    packed = pack(write_tar(tmp_path / "a.tar", members).read_bytes())
    place = len(packed) * 4 // 5
    tar = tmp_path / "a.tar.packed"
    tar.write_bytes(
        packed[:place] + (b"" if damage == "cut off" else b"\xff" * 1000 + packed[place + 1000 :])
    )
    *whole, last = images_of(tar)
    if isinstance(whole[-1], Problem):
        assert str(whole.pop()).endswith(".png: its captions are lost with what follows")
    assert len(whole) >= 10
    assert all(isinstance(image, CaptionedImage) for image in whole)
    assert isinstance(last, Problem)
    assert str(last).startswith("a.tar.packed: damaged")


@pytest.mark.parametrize("content", [b"", b"no tar" * 200, None])
def test_a_tar_without_pictures_is_refused(tmp_path: Path, content: bytes | None) -> None:
    tar = tmp_path / "a.tar"
    if content is None:
        write_tar(tar, {"a.txt": b"only words"})
    else:
        tar.write_bytes(content)
    with pytest.raises(CogViewError, match="no pictures"):
        Tars(tar)


def test_a_folder_without_tars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match=r"\.tar files"):
        Tars(tmp_path)


def test_the_form_of_a_data_set_is_found_out(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "folder", [["a"]])
    tar = write_tar(tmp_path / "tars" / "a.tar", {"0.png": A, "0.txt": b"b"})
    write_tar(folder / "also.tar", {"0.png": A, "0.txt": b"c"})
    for source, text in ((folder, "a"), (tar, "b"), (tar.parent, "b")):
        image, *others = open_pairs(source)
        assert isinstance(image, CaptionedImage)
        assert image.texts == (text,)
        assert len(told_of(others, True)) == len(others) == (source == folder)
    with pytest.raises(CogViewError, match="does not exist"):
        open_pairs(tmp_path / "none")


def test_what_follows_the_end_of_a_tar_is_told(tmp_path: Path) -> None:
    first, second = (
        write_tar(tmp_path / f"{name}.tar", {f"{name}.png": A, f"{name}.txt": b"a cat"}).read_bytes()
        for name in "ab"
    )
    joined = tmp_path / "joined.tar"
    joined.write_bytes(first + second)
    *pictures, problem = images_of(joined)
    assert [picture.name for picture in pictures if isinstance(picture, CaptionedImage)] == [
        "joined.tar a.png"
    ]
    assert isinstance(problem, Problem)
    assert problem.kind == "damaged tar"
    assert "after its end" in problem.reason
    assert len(images_of(tmp_path / "a.tar")) == 1, "the zeros at the end of any tar are none"


def test_loose_pictures_beside_tars_are_read_and_archives_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "b" / "a.tar", {"0.png": A, "0.txt": b"in a tar"})
    write_tar(tmp_path / "none.tar", {"x.cls": b"7"})
    (tmp_path / "a_stats.json").write_text("{}")
    (tmp_path / "CREDITS.txt").write_text("by us")
    source = open_pairs(tmp_path)
    assert source.num_parts == 2, "without loose pictures each tar is a part, as ever"
    assert len(source) == len(list(source)) == 1
    (tmp_path / "b" / "packed.TGZ").write_bytes(gzip.compress((tmp_path / "b" / "a.tar").read_bytes()))
    (tmp_path / "c.zip").write_bytes(b"PK")
    (tmp_path / "d.jpg").write_bytes(B)
    (tmp_path / "d.txt").write_text("loose")
    source = open_pairs(tmp_path)
    entries = list(source)
    assert [(each.name, each.texts) for each in entries if isinstance(each, CaptionedImage)] == [
        ("b/a.tar 0.png", ("in a tar",)),
        ("b/packed.TGZ 0.png", ("in a tar",)),
        ("d.jpg", ("loose",)),
    ]
    assert told_of(entries, True) == [
        "c.zip: an archive of a kind that is not read: unpack it",
        "none.tar: a tar without pictures that can be read",
    ]
    assert [list(source.part(number)) for number in range(3)] == [entries[:1], entries[1:2], entries[2:]]
    assert len(source) == 3


def test_loose_pictures_without_captions_do_not_stop_tars(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": A, "0.txt": b"in a tar"})
    (tmp_path / "preview.png").write_bytes(B)
    source = open_pairs(tmp_path)
    assert source.num_parts == 1
    assert told_of(list(source)) == [f"preview.png: {NO_CAPTION}"]
    optional = open_pairs(tmp_path, captions="optional")
    assert [each.texts for each in optional if isinstance(each, CaptionedImage)] == [("in a tar",), ()]
