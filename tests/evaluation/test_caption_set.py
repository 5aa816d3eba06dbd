"""The captions that are drawn, of any of the forms that they come in, and the real pictures beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.caption_set import CaptionSet, RealPictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Write six pictures, one of another size and one that is none, with captions of two splits."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(6):
        Image.new("RGB", (16, 16 if number != 4 else 24), (40 * number, 0, 0)).save(folder / f"{number}.png")
        texts = [f"red {number}", f"红 {number}"] if number else [" "]
        split = "held-out" if number < 5 else "train"
        lines.append(json.dumps({"file_name": f"{number}.png", "texts": texts, "split": split}) + "\n")
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def names(captions: CaptionSet) -> set[str]:
    return {each.picture.name for each in captions.asked}


def test_one_caption_is_taken_of_each_picture_of_a_split(pictures: Path, tmp_path: Path) -> None:
    captions = CaptionSet(pictures, split="held-out")
    assert names(captions) == {"1.png", "2.png", "3.png", "4.png"}
    assert [str(each) for each in captions.problems] == ["0.png: its captions are empty"]
    assert all(each.text in each.picture.texts and each.text == each.original for each in captions.asked)
    assert CaptionSet(pictures, split="held-out").fingerprint == captions.fingerprint
    fingerprints = {CaptionSet(pictures, split="held-out", seed=seed).fingerprint for seed in range(8)}
    assert len(fingerprints) > 4
    said = {each.text for seed in range(20) for each in CaptionSet(pictures, seed=seed).asked}
    assert {"red 2", "红 2"} <= said  # each of its captions comes
    few = CaptionSet(pictures, num_captions=2, seed=1)
    assert len(few.asked) == len(names(few)) == 2
    elsewhere = tmp_path / "captions.jsonl"
    elsewhere.write_text(
        '{"file_name": "5.png", "text": "dark red"}\n{"file_name": "../x.png", "text": "a"}\n'
    )
    other = CaptionSet(pictures, elsewhere)
    assert [each.text for each in other.asked] == ["dark red"]
    assert "captions.jsonl line 2: '../x.png' leads out of the folder" in str(other.problems[0])


def test_coco_is_taken_with_its_translations(pictures: Path, tmp_path: Path) -> None:
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
        "annotations": [
            {"id": 10 + number, "image_id": number, "caption": f"red {number}"} for number in range(3)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (tmp_path / "zh.json").write_text('{"11": "红一", "12": "红二"}')
    captions = CaptionSet(pictures, tmp_path / "coco.json", translations=tmp_path / "zh.json")
    assert {(each.text, each.original) for each in captions.asked} == {("红一", "red 1"), ("红二", "red 2")}
    assert [each.where for each in captions.problems] == ["0.png"]
    plain = CaptionSet(pictures, tmp_path / "coco.json")
    assert {each.text for each in plain.asked} == {"red 0", "red 1", "red 2"}


def test_what_cannot_be_asked_for_is_one_line(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"num_captions.* 1 and 5.* 6"):
        CaptionSet(pictures, num_captions=6)
    (tmp_path / "empty.jsonl").write_text('{"file_name": "1.png", "text": " "}\n')
    with pytest.raises(CogViewError, match=r"empty\.jsonl .*caption"):
        CaptionSet(pictures, tmp_path / "empty.jsonl", num_captions=1)
    with pytest.raises(UsageError, match="--translations"):
        CaptionSet(pictures, translations=tmp_path / "zh.json")
    with pytest.raises(UsageError, match="--split"):
        CaptionSet(pictures, tmp_path / "coco.json", split="train")
    with pytest.raises(CogViewError, match="no folder"):
        CaptionSet(tmp_path / "absent")


def test_real_pictures_are_squares_of_one_size_and_what_is_none_is_counted(pictures: Path) -> None:
    asked = CaptionSet(pictures).asked
    real = RealPictures([each.picture for each in asked], 16)
    squares = list(real)
    assert {each.size for each in squares} == {(16, 16)}
    assert (len(squares), real.num_resized, len(real.problems)) == (4, 1, 1)
    assert real.problems[0].where == "3.png"
    reds = sorted(int(np.asarray(each)[0, 0, 0]) for each in squares)
    assert reds == [40, 80, 160, 200]
    lost = [each.picture for each in asked if each.picture.name == "3.png"]
    with pytest.raises(CogViewError, match="none of the 1 pictures"):
        list(RealPictures(lost, 16))
