"""A pair is read in one way, whether its files lie in a folder or in a tar."""

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picture_folders import picture, png, write_tar
from PIL import Image

from cogview.data.image_folder import ImageFolder
from cogview.data.pairs import CaptionedImage, Captions, Entry, Problem
from cogview.data.records import lines_of, read_sidecars
from cogview.data.samples import FileName
from cogview.data.tars import Tars
from cogview.errors import CogViewError

SEPARATORS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def file_of(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


PICTURES = [png(1), png(2), file_of(picture(3), "JPEG"), file_of(picture(4), "GIF")]
OTHERS = [b"", b"no picture", b'<svg xmlns="http://www.w3.org/2000/svg"/>', b"8BPS" + bytes(30)]


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_side_by_side(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar in which what belongs together lies side by side."""

    def place(name: str) -> tuple[str, ...]:
        taken_apart = FileName.of(name)
        return (taken_apart.sample, taken_apart.group, name)

    return write_tar(path, {name: files[name] for name in sorted(files, key=place)})


def read(
    source: Path, kind: type[ImageFolder] | type[Tars], split: str | None, captions: Captions
) -> list[Entry] | str:
    """Return what is in a data set, its pictures as bytes and named alike, in any order."""
    try:
        entries = list(kind(source, split, captions=captions))
    except CogViewError:
        return "nothing"
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Problem):
            where = entry.where.removeprefix("a.tar ")
            found.append(Problem(where=where, kind=entry.kind, reason=entry.reason))
        else:
            data = entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
            named = {"name": entry.name.removeprefix("a.tar "), "source": data}
            found.append(CaptionedImage(**vars(entry) | named))
    return sorted(found, key=str)


texts = st.text(st.sampled_from("ab猫 \n\r\u200b" + SEPARATORS), max_size=12)
records = st.fixed_dictionaries(
    {},
    optional={
        "caption": texts | st.none() | st.lists(texts, max_size=2),
        "text": texts | st.integers(),
        "texts": st.lists(texts, max_size=3) | texts,
        "split": st.sampled_from(["train", "test", None, 3]),
        "exif": st.sampled_from(
            [None, "{}", '{"Image Orientation": "Rotated 90 CW"}', '{"Orientation": 12}']
        ),
        "width": st.integers(1, 9),
    },
)
json_files = records.map(lambda record: json.dumps(record).encode()) | st.sampled_from([b"[1]", b"{", b""])
text_files = texts.map(str.encode) | st.just(b"\xff")
pictures = st.sampled_from([*PICTURES, *OTHERS])
stems = st.sampled_from(["a", "a.b", "a.b.c", "b", "IMG_1", "in/a", "in/a.b", "in.x/b"])
endings = {
    **dict.fromkeys((".png", ".JPG", ".jfif", ".dat", ".svg"), pictures),
    **dict.fromkeys((".txt", ".TXT"), text_files),
    **dict.fromkeys((".json", ".Json"), json_files),
}
names = st.tuples(stems, st.sampled_from(list(endings))).map("".join)
data_sets = st.lists(names, min_size=1, max_size=9, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({name: endings[PurePosixPath(name).suffix] for name in chosen})
)


@settings(max_examples=80, deadline=None)
@given(data_sets, st.sampled_from([None, "train"]), st.sampled_from(["required", "optional"]))
@example(
    {"a.png": PICTURES[0], "a.txt": b"one\ntwo", "a.json": b'{"caption": "one\\ntwo"}'}, None, "required"
)
@example(
    {
        "a.png": PICTURES[0],
        "a.json": b'{"text": "a", "split": "test", "exif": "{\\"Orientation\\": 12}"}',
        "b.png": PICTURES[1],
        "b.txt": b"b",
    },
    "train",
    "required",
)
@example({"a.JPG": PICTURES[2], "a.TXT": b"a", "a.jfif": PICTURES[2]}, None, "required")
@example(
    {"a.png": PICTURES[0], "a.b.png": PICTURES[1], "a.txt": b"a", "a.b.c.json": b'{"text": "x"}'},
    None,
    "optional",
)
@pytest.mark.slow
def test_a_folder_and_a_tar_of_the_same_files_are_read_alike(
    files: dict[str, bytes], split: str | None, captions: Captions
) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = write_files(Path(home) / "folder", files)
        tar = write_side_by_side(Path(home) / "a.tar", files)
        in_folder = read(folder, ImageFolder, split, captions)
        in_tar = read(tar, Tars, split, captions)
    if isinstance(in_folder, str) or isinstance(
        in_tar, str
    ):  # a folder without captions is refused, a tar is not
        assert not any(isinstance(each, CaptionedImage) for found in (in_folder, in_tar) for each in found)
    else:
        assert in_folder == in_tar
        # Nothing vanishes: whatever is a picture is given, or told of.
        named = {each.where if isinstance(each, Problem) else each.name for each in in_folder}
        if split is None:
            assert {name for name, data in files.items() if data in PICTURES} <= named


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_caption_is_cut_at_newlines_only(separator: str) -> None:
    told = read_sidecars(None, f"a red boat{separator}at sea\r\ntwo\rthree\n".encode())
    assert told.texts == (f"a red boat{separator}at sea", "two", "three")
    assert lines_of(separator) == [separator]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"caption": ["a", "b"]},
            '"caption" is not a string but a list',
        ),
        ({"text": ["a", "b"]}, '"text" is not a string but a list'),
        ({"caption": 3}, '"caption" is not a string'),
    ],
)
def test_captions_in_another_form_are_told_by_what_they_are(record: dict[str, object], reason: str) -> None:
    data = json.dumps(record).encode()
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        read_sidecars(data, None)
    assert reason in str(refusal.value)
    assert read_sidecars(data, b"a").texts == ("a",), "beside a .txt it may hold anything"


@pytest.mark.parametrize(
    ("record", "text", "wanted"),
    [
        ({"texts": []}, "a cat", ("a cat",)),
        ({"text": " "}, "a cat", ("a cat",)),
        ({"texts": ["", " "], "text": "a cat"}, None, ("a cat",)),
        ({"texts": [], "text": "", "caption": "a cat"}, "", ("a cat",)),
        ({"text": "", "caption": "a cat"}, "a dog", ("a dog",)),
        ({"caption": "a cat"}, "\n", ("a cat",)),
        ({"texts": ["a cat", ""]}, "a dog", ("a cat", "")),
        ({"texts": [], "width": 3}, None, ()),
        ({"text": ""}, "", ("",)),
    ],
)
def test_where_captions_are_empty_the_next_count(
    record: dict[str, object], text: str | None, wanted: tuple[str, ...]
) -> None:
    told = read_sidecars(json.dumps(record).encode(), None if text is None else text.encode())
    assert told.texts == wanted


def test_a_json_that_cannot_be_used_is_told_beside_its_text(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"a.png": PICTURES[0], "a.txt": b"a", "a.json": b"{", "b.png": PICTURES[1], "b.txt": b"b"}
    )
    image, doubt, other = ImageFolder(tmp_path)
    assert isinstance(image, CaptionedImage)
    assert isinstance(other, CaptionedImage)
    assert image.texts == ("a",)
    assert isinstance(doubt, Problem)
    assert doubt.is_passed_over
    assert str(doubt).startswith("a.png: its .json cannot be used")
    assert str(doubt).endswith("its .txt is read")


def test_pictures_of_one_name_share_their_captions(tmp_path: Path) -> None:
    files = {"a.jpg": PICTURES[2], "a.png": PICTURES[0], "a.txt": b"both"}
    for source in (
        ImageFolder(write_files(tmp_path / "f", files)),
        Tars(write_tar(tmp_path / "a.tar", files)),
    ):
        images = [each for each in source if isinstance(each, CaptionedImage)]
        assert [(image.name.split()[-1], image.texts) for image in images] == [
            ("a.jpg", ("both",)),
            ("a.png", ("both",)),
        ]


@pytest.mark.parametrize("end", [".txt", ".TXT"])
def test_a_sample_too_large_to_be_held_is_read_like_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("cogview.data.tars.MAX_MEMBER_BYTES", 2 * len(png(0)))
    files = {f"frame.{number:03d}": png(number) for number in range(8)}
    files |= {f"frame.more.{number:03d}": png(number) for number in range(8)}
    files |= {f"frame{end}": b"a cat", f"frame.more{end}": b"a dog"}
    in_folder = read(write_files(tmp_path / "folder", files), ImageFolder, None, "required")
    assert read(write_side_by_side(tmp_path / "a.tar", files), Tars, None, "required") == in_folder
    assert sum(isinstance(each, CaptionedImage) for each in in_folder) == 16


def test_texts_about_a_whole_folder_are_no_captions(tmp_path: Path) -> None:
    about = ("README.txt", "LICENSE-MIT.txt", "CREDITS.txt", "data-config.json")
    write_files(
        tmp_path, {"a.png": PICTURES[0], "a.txt": b"a", "stray.txt": b"b", **dict.fromkeys(about, b"{}")}
    )
    _, stray = ImageFolder(tmp_path)
    assert str(stray) == "stray.txt: a caption without a picture of its name"


def test_a_tar_whose_member_comes_twice_tells_of_the_first(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a.png", PICTURES[0]), ("a.txt", b"old"), ("a.txt", b"new")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    told, image = Tars(tmp_path / "a.tar")
    assert str(told) == "a.tar a.txt: another file of this name follows in the tar, which counts"
    assert isinstance(image, CaptionedImage)
    assert image.texts == ("new",)
