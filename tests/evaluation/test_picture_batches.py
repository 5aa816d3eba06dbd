"""Pictures in batches: in order, as many as asked for, and what cannot be read remembered."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.pictures import PictureBatches


def folder_of(folder: Path, broken: tuple[int, ...] = (), num: int = 7) -> Path:
    """Write pictures of rising brightness, the first four of split `train`, and some files that are none."""
    folder.mkdir()
    lines = []
    for number in range(num):
        Image.new("RGB", (20, 16), (number, number, number)).save(folder / f"{number}.png")
        if number in broken:
            (folder / f"{number}.png").write_bytes(b"no picture")
        split = "train" if number < 4 else "held-out"
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "grey", "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def brightness(batches: PictureBatches) -> list[list[int]]:
    read = list(batches)
    assert all(batch.shape[1:] == (8, 8, 3) and batch.dtype == np.uint8 for batch in read)
    return [batch[:, 0, 0, 0].tolist() for batch in read]


def test_pictures_come_in_order_and_problems_are_remembered(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    batches = PictureBatches(
        folder_of(tmp_path / "pictures", broken=(1, 3)),
        8,
        batch_size=3,
        progress=lambda *numbers: done.append(numbers),
    )
    for _ in range(2):  # a second reading begins anew
        assert brightness(batches) == [[0, 2], [4, 5], [6]]
        assert batches.num_pictures == 5
        assert [problem.where for problem in batches.problems] == ["1.png", "3.png"]
    assert done == [(3, 7), (6, 7), (7, 7)] * 2


def test_only_so_many_and_only_of_a_split(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", broken=(1,))
    few = PictureBatches(folder, 8, max_pictures=3, batch_size=2)
    assert brightness(few) == [[0], [2, 3]]
    assert brightness(PictureBatches(folder, 8, max_pictures=2, batch_size=7)) == [[0, 2]]
    assert brightness(PictureBatches(folder, 8, max_pictures=99)) == [[0, 2, 3, 4, 5, 6]]
    assert brightness(PictureBatches(folder, 8, split="held-out")) == [[4, 5, 6]]
    with pytest.raises(CogViewError, match='split "other"'):
        PictureBatches(folder, 8, split="other")


def test_nothing_to_measure_is_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", broken=(0, 1), num=2)
    with pytest.raises(CogViewError, match=r"2 problems: 0\.png"):
        list(PictureBatches(folder, 8))
    with pytest.raises(CogViewError, match="does not exist"):
        PictureBatches(tmp_path / "absent", 8)
    with pytest.raises(UsageError, match=r"max_pictures.* 1 .* 0"):
        PictureBatches(folder, 8, max_pictures=0)
