"""Fashion-MNIST as a folder of captioned pictures, from files of its form."""

import gzip
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.data.image_folder import ImageFolder
from cogview.errors import CogViewError, UsageError
from cogview.world import clothing
from cogview.world.clothing import CLASSES, build_clothing_data, class_texts, enlarged, read_idx
from cogview.world.config import ClothingDataConfig

NUM_TRAIN, NUM_TEST = 30, 12


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def write_collection(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, number in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        write_idx(
            folder / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (number, 28, 28)).astype(np.uint8)
        )
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", np.arange(number, dtype=np.uint8) % 10)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_collection(tmp_path / "source")
    return tmp_path / "source"


def test_every_picture_has_the_captions_of_its_class(source: Path, tmp_path: Path) -> None:
    config = ClothingDataConfig(source=source, num_train=25, num_held_out=10)
    assert build_clothing_data(config, tmp_path / "out") == {"train": 25, "held-out": 10}
    lines = (tmp_path / "out" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    pictures = read_idx(source / "train-images-idx3-ubyte.gz")
    for number, line in enumerate(map(json.loads, lines[:25])):
        assert line["texts"] == class_texts(number % 10)
        with Image.open(tmp_path / "out" / line["file_name"]) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
            assert np.array_equal(np.asarray(picture), np.asarray(enlarged(pictures[number], 64)))
    assert len(ImageFolder(tmp_path / "out", "train")) == 25
    assert len(ImageFolder(tmp_path / "out", "held-out")) == 10
    assert "MIT" in (tmp_path / "out" / "CREDITS.txt").read_text(encoding="utf-8")


def test_captions_are_in_both_languages_and_tell_the_classes_apart() -> None:
    assert "an ankle boot" in class_texts(9)
    assert "短靴" in class_texts(9)
    assert len({text for label in range(10) for text in class_texts(label)}) == 5 * len(CLASSES)


def test_pictures_are_turned_to_white_ground_and_centred() -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[:, 13:15] = 255
    drawn = np.asarray(enlarged(picture, 64)).astype(int)
    assert (drawn[:2] == 255).all()  # the margin
    assert (drawn[:, :20] == 255).all()
    assert drawn[32, 31:33].max() < 40
    assert np.array_equal(drawn, drawn[:, ::-1])
    plain = np.asarray(enlarged(picture, 32))[2:-2, 2:-2, 0]
    assert np.array_equal(plain, 255 - picture)  # at the native size nothing is lost


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_files_that_cannot_be_read_are_named(source: Path, tmp_path: Path, damage: str) -> None:
    path = source / "t10k-images-idx3-ubyte.gz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(gzip.compress(b"no pictures at all"))
    with pytest.raises(CogViewError, match=r"t10k-images.*--data\.fetch") as caught:
        build_clothing_data(ClothingDataConfig(source=source, num_train=5, num_held_out=5), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_collection_is_refused(source: Path, tmp_path: Path) -> None:
    write_idx(source / "train-labels-idx1-ubyte.gz", np.full(NUM_TRAIN, 26, np.uint8))
    with pytest.raises(CogViewError, match="Fashion-MNIST"):
        build_clothing_data(ClothingDataConfig(source=source, num_train=5, num_held_out=5), tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"num_train": 31}, {"num_held_out": 13}, {"num_train": -1}, {"size_pixels": 27}]
)
def test_impossible_numbers_are_refused(source: Path, tmp_path: Path, change: dict[str, int]) -> None:
    config = ClothingDataConfig(**{"source": source, "num_train": 5, "num_held_out": 5, **change})
    with pytest.raises(UsageError, match=next(iter(change))):
        build_clothing_data(config, tmp_path / "out")


def test_nothing_is_fetched_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(clothing.subprocess, "run", lambda command, **_: commands.append(command))
    words = ["data", "build", "clothing", "--out", str(tmp_path / "out")]
    assert main([*words, "--data.source", str(tmp_path / "nothing")]) == 1
    assert "--data.fetch" in capsys.readouterr().err
    assert not commands


def test_the_package_is_fetched_and_unpacked_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def debian(command: list[str], cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        if command[0] == "apt-get":
            (Path(cwd) / f"{clothing.PACKAGE}_1_all.deb").touch()
        else:
            assert command[1:] == ["-x", str(Path(cwd) / f"{clothing.PACKAGE}_1_all.deb"), "files"]
            write_collection(Path(cwd) / "files" / clothing.FILES_IN_PACKAGE)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(clothing.subprocess, "run", debian)
    monkeypatch.setattr(clothing.shutil, "which", lambda name: name)
    words = [
        "data",
        "build",
        "clothing",
        "--data.fetch",
        "--data.num-train",
        "20",
        "--data.num-held-out",
        "4",
    ]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_pictures"] == {"train": 20, "held-out": 4}


def test_a_package_that_cannot_be_fetched_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clothing.shutil, "which", lambda name: name)
    monkeypatch.setattr(
        clothing.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(
            command, 100, "", "Reading\nE: Unable to locate package"
        ),
    )
    with pytest.raises(CogViewError, match=r"Unable to locate package.*apt-get update") as caught:
        build_clothing_data(ClothingDataConfig(fetch=True), tmp_path / "out")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(clothing.shutil, "which", lambda name: None)
    with pytest.raises(CogViewError, match="apt-get is not installed"):
        build_clothing_data(ClothingDataConfig(fetch=True), tmp_path / "out")
