"""MS COCO's files, made by hand: captions of pictures, translations by either id, and what is wrong in one line."""

import json
from pathlib import Path

import pytest

from cogview.data.coco import Coco, read_translations
from cogview.data.pairs import CaptionedImage, Problem
from cogview.errors import CogViewError

ANNOTATIONS = {
    "info": {"description": "made by hand"},
    "images": [
        {"id": 57870, "file_name": "COCO_val2014_000000057870.jpg", "height": 480, "width": 640},
        {"id": 384029, "file_name": "COCO_val2014_000000384029.jpg", "height": 429, "width": 640},
        {"id": 222016, "file_name": "COCO_val2014_000000222016.jpg", "height": 640, "width": 480},
    ],
    "annotations": [
        {"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables. "},
        {"image_id": 384029, "id": 123, "caption": "A man preparing desserts."},
        {"image_id": 57870, "id": 789366, "caption": "A long restaurant table."},
    ],
}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(ANNOTATIONS))
    return path


def texts(coco: Coco) -> dict[str, tuple[str, ...] | str]:
    return {
        (entry.where if isinstance(entry, Problem) else entry.name)[-10:-4]: (
            entry.reason if isinstance(entry, Problem) else entry.texts
        )
        for entry in coco.entries
    }


def test_the_captions_of_each_picture_are_found(annotations: Path, tmp_path: Path) -> None:
    coco = Coco(annotations, tmp_path / "val2014")
    assert texts(coco) == {
        "057870": ("A restaurant has modern wooden tables.", "A long restaurant table."),
        "384029": ("A man preparing desserts.",),
        "222016": "no caption is given for it",
    }
    first = coco.entries[0]
    assert isinstance(first, CaptionedImage)
    assert first.source == tmp_path / "val2014" / "COCO_val2014_000000057870.jpg"


@pytest.mark.parametrize("form", ["object", "pretty object", "lines"])
def test_translations_take_the_place_of_captions(annotations: Path, tmp_path: Path, form: str) -> None:
    of_captions = {"789366": "一张长长的餐桌", "123": "一个男人在做甜点", "999": "别的"}
    path = tmp_path / "zh.json"
    if form == "lines":
        path.write_text(
            "".join(json.dumps({"id": int(key), "text": text}) + "\n" for key, text in of_captions.items())
        )
    else:
        path.write_text(json.dumps(of_captions, indent=2 if form == "pretty object" else None))
    coco = Coco(annotations, tmp_path, path)
    assert texts(coco) == {
        "057870": ("一张长长的餐桌",),
        "384029": ("一个男人在做甜点",),
        "222016": "no caption is given for it",
    }
    assert coco.originals["COCO_val2014_000000057870.jpg", "一张长长的餐桌"] == "A long restaurant table."


def test_translations_may_be_of_pictures(annotations: Path, tmp_path: Path) -> None:
    path = tmp_path / "zh.jsonl"
    path.write_text('{"id": 57870, "text": "餐厅"}\n{"id": 57870, "text": "桌子"}\n')
    assert read_translations(path) == {"57870": ("餐厅", "桌子")}
    coco = Coco(annotations, tmp_path, path, "pictures")
    assert texts(coco)["057870"] == ("餐厅", "桌子")
    with pytest.raises(CogViewError, match="--translation-ids"):
        Coco(annotations, tmp_path, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "annotation file"),
        ("{", "not JSON"),
        (json.dumps({"images": [], "annotations": [{"id": 1}]}), "KeyError"),
        (
            json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 7, "caption": "a"}]}),
            "1 captions.* image_id 7",
        ),
        (json.dumps({"images": [], "annotations": []}), "no caption"),
        (
            json.dumps({"images": [{"id": 5, "file_name": name} for name in "ab"], "annotations": []}),
            "2 images.* id 5",
        ),
        (json.dumps({"images": [{"id": 5, "file_name": None}], "annotations": []}), "None is not"),
        (
            json.dumps({"images": [], "annotations": [{"id": 1, "image_id": [7], "caption": "a"}]}),
            r"\[7\] is not an id",
        ),
        (
            json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 7, "caption": None}]}),
            "None is not",
        ),
    ],
)
def test_what_is_no_annotation_file_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(content)
    with pytest.raises(CogViewError, match=said) as caught:
        Coco(path, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "JSON object"),
        ('{"1": ""}', "text 1, of id 1"),
        ('{"id": 1, "text": "a"}\n{"id": 2}', "line 2 is not"),
        ("", "not JSON"),
    ],
)
def test_what_are_no_translations_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "zh.json"
    path.write_text(content)
    with pytest.raises(CogViewError, match=said):
        read_translations(path)
    with pytest.raises(CogViewError, match="cannot be read"):
        read_translations(tmp_path / "absent.json")
