"""Nothing under a folder vanishes: what is not read is told, and no folder is read twice."""

import json
import os
from pathlib import Path

import pytest
from picture_folders import png, write_image_folder, write_tar
from PIL import Image, features

from cogview.data.decoding import decode_image
from cogview.data.folder_contents import FolderContents
from cogview.data.image_folder import ImageFolder
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError


def names_of(folder: Path) -> list[str]:
    """Return the pictures of a folder by their paths in it."""
    return [path.relative_to(folder).as_posix() for path in FolderContents.of(folder).pictures]


def told(folder: Path) -> dict[str, str]:
    return {problem.where: problem.reason for problem in FolderContents.of(folder).problems}


def pictures_in(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(number))
    return folder


def test_linked_folders_are_read_once_however_they_lead_back(tmp_path: Path) -> None:
    home = pictures_in(tmp_path / "home", "a.png")
    pictures_in(home / "in", "b.png")
    elsewhere = pictures_in(tmp_path / "elsewhere", "c.png")
    pictures_in(elsewhere / "deep", "d.png")
    for link, target in (
        ("again", home / "in"),  # a folder that is read under its own name
        ("zz", home),  # back to the top
        ("in/up", tmp_path),  # and to what lies above
        ("more", elsewhere),
        ("more2", elsewhere),
    ):
        (home / link).symlink_to(target, target_is_directory=True)
    (elsewhere / "deep" / "round").symlink_to(home / "more", target_is_directory=True)
    (home / "itself").symlink_to(home / "itself")
    found = names_of(home)
    assert len(found) == len({(home / name).resolve() for name in found}) == 4
    assert {(home / name).name for name in found} == {"a.png", "b.png", "c.png", "d.png"}
    assert {"a.png", "in/b.png"} <= set(found)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "data", "avif", ""])
def test_a_picture_is_one_by_its_bytes(tmp_path: Path, ending: str) -> None:
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a.{ending}".rstrip(".")
    with path.open("wb") as file:
        Image.new("RGB", (20, 12), "red").save(file, "AVIF" if ending == "avif" else "JPEG")
    (tmp_path / "a.txt").write_text("red")
    [image] = open_pairs(tmp_path)
    assert isinstance(image, CaptionedImage)
    read = decode_image(image)
    assert not isinstance(read, Problem)
    assert read.rgb.size == (20, 12)
    assert np_close(read.rgb.getpixel((9, 5)), (255, 0, 0))


def np_close(found: object, wanted: tuple[int, ...]) -> bool:
    assert isinstance(found, tuple)
    return all(abs(one - other) < 9 for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (
            "a.svg",
            b'<?xml version="1.0"?>\n<!-- x --><svg width="3">',
            "a picture in SVG",
        ),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a picture in HEIF"),
        ("a.bin", b"8BPS\0\x01", "a picture in Photoshop"),
        ("a.jxl", b"\xff\x0a", "a picture in JPEG XL"),
        ("a.nef", b"MM\0*\0\0\0\x08", "a picture in a camera's own format (.nef)"),
        ("a.jfif", b"nothing", "named .jfif like a picture"),
        ("b.7z", b"7z", "an archive"),
        ("in/metadata.jsonl", b"{}", "read only at the top"),
        (".b.png", png(1), "a hidden picture"),
        (".b.txt", b"hidden", None),
        ("._b.png", b"\0\x05\x16\x07", None),
        ("b.parquet", b"PAR1", None),
        ("b.cls", b"7", None),
        ("BMW.csv", b"BM;W;3;4;5;6;7;8;9", None),
        ("page.html", b"<html><body><svg></svg>", None),
    ],
)
def test_what_looks_like_a_picture_and_is_not_taken_is_told(
    tmp_path: Path, name: str, data: bytes, reason: str | None
) -> None:
    folder = pictures_in(tmp_path, "good.png")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    assert names_of(folder) == ["good.png"]
    if reason is None:
        assert told(folder) == {}
    else:
        assert list(told(folder)) == [name]
        assert told(folder)[name].startswith(reason)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_what_is_no_file_is_told_and_never_opened(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "home", "good.png")
    (folder / "good.txt").write_text("good")
    for name in ("a.png", "a.txt", "a.tar", "pipe"):
        os.mkfifo(folder / name)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    entries = list(open_pairs(folder))
    assert {(each.where, each.kind) for each in entries if isinstance(each, Problem)} == {
        ("a.png", "unreadable"),
        ("a.txt", "unreadable"),
        ("a.tar", "unreadable"),
        ("gone.jpg", "missing"),
    }
    with pytest.raises(CogViewError, match="pipe or a device"):
        open_pairs(folder / "a.tar")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_entered_is_told(tmp_path: Path) -> None:
    pictures_in(tmp_path / "closed", "a.png").chmod(0)
    try:
        assert list(told(tmp_path)) == ["closed"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_what_metadata_does_not_list_is_told(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    assert [each for each in ImageFolder(folder) if isinstance(each, Problem)] == []
    (folder / "also").symlink_to(folder / "images", target_is_directory=True)  # the same pictures
    pictures_in(folder / "images", "x.png", "y.png")
    (folder / "images" / "0.txt").write_text("not this")
    write_tar(folder / "b.tar", {"0.png": png(0), "0.txt": b"b"})
    *_, first = [each for each in ImageFolder(folder) if isinstance(each, CaptionedImage)]
    assert first.name == "images/1.png"
    problems = {each.where: each for each in ImageFolder(folder) if isinstance(each, Problem)}
    assert list(problems) == ["images/x.png", "images/y.png", "metadata.jsonl", "b.tar"]
    assert all(problem.is_passed_over for problem in problems.values())
    assert problems["images/x.png"].reason == "metadata.jsonl does not list it"
    assert "1 .txt beside pictures are not read" in problems["metadata.jsonl"].reason
    (folder / "images/1.json").write_text('{"caption": "not read"}')
    (folder / "images/2.json").write_text('{"width": 16}')
    told = [str(each) for each in open_pairs(folder) if isinstance(each, Problem)]
    assert any("2 .txt and .json beside pictures are not read" in each for each in told)
    assert len(ImageFolder(folder)) == 2, "what is passed over stands in no picture's place"


def test_metadata_that_names_pictures_through_a_link_lists_them(tmp_path: Path) -> None:
    pictures_in(tmp_path / "images", "a.png")
    (tmp_path / "train").symlink_to(tmp_path / "images", target_is_directory=True)
    lines = [{"file_name": "train/a.png", "text": "a"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [type(each) for each in ImageFolder(tmp_path)] == [CaptionedImage]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("metadata.jsonl", "give their folder"),
        ("a.json", "a text or table"),
        ("a.png", "single picture"),
        ("a.zip", "unpack it"),
    ],
)
def test_a_file_in_the_place_of_a_data_set_is_told_by_what_it_is(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / name).write_bytes(png(0) if name == "a.png" else b"{}")
    with pytest.raises(CogViewError, match=reason):
        open_pairs(tmp_path / name)


def test_pictures_that_need_no_captions_are_taken_without(tmp_path: Path) -> None:
    pictures_in(tmp_path / "bare", "a.png", "b.png", "c.d.png")
    (tmp_path / "bare" / "b.json").write_text('{"caption": ["x"], "split": "test"}')
    with pytest.raises(CogViewError, match="captions"):
        open_pairs(tmp_path / "bare")
    images = [
        each
        for each in open_pairs(tmp_path / "bare", captions="optional")
        if isinstance(each, CaptionedImage)
    ]
    assert [(image.name, image.texts) for image in images] == [("a.png", ()), ("b.png", ()), ("c.d.png", ())]
    (tmp_path / "bare" / "metadata.jsonl").write_text('{"file_name": "a.png", "split": "x"}')
    [listed, *others] = open_pairs(tmp_path / "bare", captions="optional")
    assert isinstance(listed, CaptionedImage)
    assert (listed.name, listed.texts, listed.split) == ("a.png", (), "x")
    assert [each.where for each in others if isinstance(each, Problem)] == [
        *("b.png", "c.d.png"),
        "metadata.jsonl",  # beside which b.json is not read
    ]
