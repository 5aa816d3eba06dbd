"""Image folders are read in order, and what is wrong in them is told with its place."""

import json
import os
from pathlib import Path

import pytest
from picture_folders import png, write_image_folder

from cogview.data.decoding import map_in_chunks
from cogview.data.image_folder import ImageFolder
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.samples import NO_CAPTION
from cogview.errors import CogViewError, UsageError


def lines_of(folder: Path, *lines: str) -> list[CaptionedImage | Problem]:
    """Return what a folder with these lines of metadata and a good last one gives, the last left out."""
    folder.mkdir(exist_ok=True)
    good = json.dumps({"file_name": "good.png", "text": "good"})
    (folder / "metadata.jsonl").write_text("\n".join([*lines, good]), encoding="utf-8")
    entries = list(ImageFolder(folder))
    assert isinstance(entries[-1], CaptionedImage)
    assert entries[-1].name == "good.png"
    return entries[:-1]


def test_pictures_come_in_the_order_of_the_metadata(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "data", [["猫", "cat"], ["dog"], [""]], split="train")
    images = ImageFolder(folder)
    assert len(images) == 3
    assert list(images) == [
        CaptionedImage(
            name=f"images/{number}.png", source=folder / f"images/{number}.png", texts=texts, split="train"
        )
        for number, texts in enumerate([("猫", "cat"), ("dog",), ("",)])
    ]


def test_lists_in_lists_without_end_are_a_problem_of_their_line(tmp_path: Path) -> None:
    [problem] = lines_of(tmp_path, "[" * 100_000)
    assert isinstance(problem, Problem)
    assert problem.where == "metadata.jsonl line 1"


@pytest.mark.skipif(os.name != "posix", reason="other systems have other names")
@pytest.mark.parametrize("name", ["\\ud800.png", "a\\u0000.png"])
def test_a_name_that_no_file_can_have_is_a_problem_of_its_line(tmp_path: Path, name: str) -> None:
    [problem] = lines_of(tmp_path, f'{{"file_name": "{name}", "text": "half a character"}}')
    assert isinstance(problem, Problem)
    assert problem.where == "metadata.jsonl line 1"
    assert problem.reason.endswith("is a name that no file can have")
    (tmp_path / "unlisted.png").write_bytes(png(1))
    *_, unlisted = ImageFolder(tmp_path)
    assert str(unlisted) == "unlisted.png: metadata.jsonl does not list it"


@pytest.mark.parametrize(("num_workers", "chunk_size"), [(-1, 1), (0, 0)])
def test_impossible_numbers_of_workers_and_pictures_are_refused(num_workers: int, chunk_size: int) -> None:
    problem = Problem(where="a", kind="missing", reason="gone")
    with pytest.raises(UsageError, match="got"):
        list(map_in_chunks(str, [problem], num_workers, chunk_size))


def test_text_is_a_single_caption_and_free_fields_are_free(tmp_path: Path) -> None:
    [image] = lines_of(
        tmp_path, '{"file_name": "a.png", "text": "a\\u2028b \u2028 c", "scene": [1], "split": null}'
    )
    assert isinstance(image, CaptionedImage)
    assert image.texts == ("a\u2028b \u2028 c",)
    assert image.split is None


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "a"}\r\n\r\n')
    assert len(ImageFolder(tmp_path)) == 1


def test_a_split_gives_its_pictures_and_those_that_name_none(tmp_path: Path) -> None:
    records = [{"file_name": f"{name}.png", "text": name, "split": name} for name in ("train", "held-out")]
    records.append({"file_name": "any.png", "text": "any"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert [image.name for image in ImageFolder(tmp_path, "train") if isinstance(image, CaptionedImage)] == [
        "train.png",
        "any.png",
    ]
    assert len(ImageFolder(tmp_path)) == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file_name": "a.png", "text": ', "not JSON"),
        ("[1, 2]", '"file_name"'),
        ('{"text": "a"}', '"file_name"'),
        ('{"file_name": 3, "text": "a"}', '"file_name"'),
        ('{"file_name": "a.png"}', 'neither "texts" nor "text"'),
        ('{"file_name": "a.png", "texts": "a"}', '"texts" is not'),
        ('{"file_name": "a.png", "texts": [1]}', '"texts" is not'),
        ('{"file_name": "a.png", "text": null}', '"text" is not'),
        ('{"file_name": "a.png", "text": "a", "split": 1}', '"split" is not'),
        ('{"file_name": "../secret.png", "text": "a"}', "out of the folder"),
        ('{"file_name": "a/../../b.png", "text": "a"}', "out of the folder"),
        ('{"file_name": "/etc/a.png", "text": "a"}', "out of the folder"),
        ('{"file_name": "C:\\\\a.png", "text": "a"}', "out of the folder"),
        ('{"file_name": "..\\\\a.png", "text": "a"}', "out of the folder"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    [problem] = lines_of(tmp_path, "", line)
    assert isinstance(problem, Problem)
    assert problem.where == "metadata.jsonl line 2"
    assert reason in problem.reason


def test_a_picture_named_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    line = '{"file_name": "a.png", "text": "a"}'
    image, problem = lines_of(tmp_path, line, line)
    assert isinstance(image, CaptionedImage)
    assert str(problem).startswith("metadata.jsonl line 2: a.png was named by line 1 already")


def test_pictures_with_text_files_need_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "deep/none.png", ".hidden.png"):
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "a.txt").write_text("一只猫\n\na cat\n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "deep/er/c.txt").write_text("")
    (tmp_path / "readme.txt").write_text("not a caption")
    a, b, c, none, hidden = sorted(ImageFolder(tmp_path), key=lambda each: str(each).startswith(".hidden"))
    assert a == CaptionedImage(name="a.png", source=tmp_path / "a.png", texts=("一只猫", "a cat"))
    assert isinstance(b, Problem)
    assert str(b).startswith("b.JPG: its .txt is not UTF-8")
    assert c == CaptionedImage(name="deep/er/c.webp", source=tmp_path / "deep/er/c.webp", texts=("",))
    assert str(none) == f"deep/none.png: {NO_CAPTION}"
    assert str(hidden) == ".hidden.png: a hidden picture: its name begins with a dot"


def test_a_json_file_serves_where_there_is_no_text_file(tmp_path: Path) -> None:
    files = {
        "a.json": b'{"caption": "a cat", "url": "x", "status": "success"}',
        "b.json": b'{"texts": ["one", "two"], "split": "test"}',
        "c.json": b'{"caption": "not this", "boxes": []}',
        "c.txt": b"this",
        "d.json": b"[1, 2]",
        "e.json": b'{"width": 3}',
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).with_suffix(".jpg").write_bytes(png(1))
    a, b, c, d, e = ImageFolder(tmp_path)
    assert [image.texts for image in (a, b, c) if isinstance(image, CaptionedImage)] == [
        ("a cat",),
        ("one", "two"),
        ("this",),
    ]
    assert str(d) == "d.jpg: its .json cannot be used (not an object)"
    assert str(e).startswith("e.jpg: has no caption")
    assert [image.name for image in ImageFolder(tmp_path, "train") if isinstance(image, CaptionedImage)] == [
        "a.jpg",
        "c.jpg",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "captions"),
        ({"a.png": b""}, r"captions \(a\.png:"),
        ({"metadata.jsonl": b""}, "captions"),
        ({"metadata.jsonl": b"{"}, r"captions \(metadata\.jsonl line 1: not JSON"),
        ({"metadata.jsonl": b"\xff"}, "cannot be read"),
    ],
)
def test_a_folder_without_anything_to_learn_from_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CogViewError, match=message):
        ImageFolder(tmp_path)


def test_a_missing_folder_and_a_missing_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CogViewError, match="is no folder"):
        ImageFolder(tmp_path / "none")
    folder = write_image_folder(tmp_path / "data", [["a"]], split="train")
    with pytest.raises(CogViewError, match='split "test"'):
        ImageFolder(folder, "test")


def test_a_split_that_nothing_belongs_to_names_those_that_there_are(tmp_path: Path) -> None:
    line = {"file_name": "a.png", "text": "a cat", "split": "held-out-object"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
    with pytest.raises(CogViewError, match=r'split "valid".* --split .*held-out-object'):
        ImageFolder(tmp_path, "valid")
