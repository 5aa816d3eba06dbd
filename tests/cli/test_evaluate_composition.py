"""`cogview evaluate composition`: figures of a tiny model, its checker's own, going on, one line for what is wrong."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.tiny import tiny_model

import cogview
from cogview.cli.main import main
from cogview.evaluation.composition import PARTS, asked_scenes, judge
from cogview.evaluation.scene_reader import SceneReader
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import TaskModel
from cogview.runs import evaluate_composition
from cogview.runs.evaluation_draws import Draws
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from scene_pictures import scene_folder

pytestmark = pytest.mark.slow

NUM = 12


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make model/, a tiny one with a captioner, pictures/ of its size, and large/ of another."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_model(home)
    adapted = AdaptedTransformer(model.transformer, AdapterConfig(rank=2), 1)
    template = {"grid_rows": 4, "grid_columns": 4, "max_text_pieces": 12, "positions": "from_zero"}
    model.adapters["captions"] = TaskModel(task="captioning", transformer=adapted, template=template)
    save_pretrained(model, home / "model")
    scene_folder(home / "pictures", 16, 16)
    scene_folder(home / "large", 32, 1)
    return home


def words(home: Path, out: Path, *more: object) -> list[str]:
    fixed = ["--model", home / "model", "--out", out, "--device", "cpu", "--num-captions", NUM]
    given = more if more and isinstance(more[0], Path) else (home / "pictures", *more)
    return [str(word) for word in ["evaluate", "composition", *fixed, *given]]


def call(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(list(arguments))


def test_figures_are_those_of_the_pictures_and_a_blind_checker_is_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call(*words(home, out, "--candidates", 2, "--seed", 5)) == 0
    said = capsys.readouterr()
    assert "drawing will take about" in said.err
    result = json.loads((out / "composition.json").read_text())
    # A random image tokenizer makes noise of true pictures.
    assert not result["checker"]["is_valid"]
    assert "warning: the checker errs too often" in said.err
    assert "THE CHECKER IS NOT VALID, so the figures say little" in said.out
    assert result["checker"]["pictures"]["all"]["value"] == 1.0
    assert result["checker"]["pictures_shuffled"] == result["checker"]["chance"]
    assert result["checker"]["redrawn"]["all"]["value"] == 0.0
    # The figures, one by one.
    asked = asked_scenes(home / "pictures", NUM)
    pipe, reader = cogview.load(home / "model", "cpu"), SceneReader(home / "pictures", 16)
    first, mean, best = [], [], []
    for number, each in enumerate(asked):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tiny model reads 12 pieces
            rows = pipe.generate(each.text, 2, seed=5 + 2 * number, keep=2)
        verdicts = {row.seed: judge(each, reader.read(np.asarray(row.image))) for row in rows}
        first.append(verdicts[5 + 2 * number])
        best.append(verdicts[rows[0].seed])
        mean.append({name: np.mean([float(v[name] or 0) for v in verdicts.values()]) for name in PARTS})
    assert set(result["figures"]) == {"first", "random", "CapLoss"}
    for choice, plain in (("first", first), ("random", mean), ("CapLoss", best)):
        for name, share in result["figures"][choice].items():
            counted = [v[name] for v, f in zip(plain, first, strict=True) if f[name] is not None]
            assert share["num"] == len(counted)
            assert share["value"] == pytest.approx(np.mean(counted))
    for number, language in enumerate(("en", "zh")):  # by turns
        for choice, plain in (("first", first), ("random", mean), ("CapLoss", best)):
            share = result["languages"][language][choice]["objects"]
            assert share["num"] == NUM / 2
            assert share["value"] == pytest.approx(np.mean([v["objects"] for v in plain[number::2]]))
    assert "first candidate, Chinese captions" in said.out
    assert result["request"]["seed"] == 5
    assert result["environment"]["versions"]["cogview"] == cogview.__version__
    assert len(result["captioner"]) == len(result["request"]["transformer"]) == 16
    assert (out / "composition.md").read_text() in said.out
    sheet = read_image(out / "failures.png")
    num_wrong = round(NUM * (1 - result["figures"]["first"]["all"]["value"]))
    assert num_wrong > 0
    assert sheet.height > num_wrong * 16


def test_pictures_without_fault_are_all_right_and_nothing_is_drawn_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call(*words(home, out)) == 0
    before = json.loads((out / "composition.json").read_text())
    assert set(before["figures"]) == {"first"}
    assert (out / "failures.png").is_file()

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("all is drawn")

    monkeypatch.setattr(Pipeline, "generate_codes", forbidden)
    capsys.readouterr()
    assert call(*words(home, out, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == before["figures"]

    def real(draws: Draws, captions: np.ndarray, _: np.ndarray) -> Iterator[Image.Image]:
        for caption in captions:
            yield read_image(home / "pictures" / draws.asked[caption].picture.name)

    monkeypatch.setattr(Draws, "pictures", real)
    monkeypatch.setattr(evaluate_composition, "reconstruct", lambda _, picture: picture)
    assert call(*words(home, out)) == 0
    said = capsys.readouterr()
    assert "The checker is valid: all right on 100.0% of the real pictures" in said.out
    assert "warning" not in said.err
    result = json.loads((out / "composition.json").read_text())
    assert {share["value"] for share in result["figures"]["first"].values() if share["num"]} == {1.0}
    assert not (out / "failures.png").exists()
    assert call(*words(home, out, "--seed", 1)) == 2
    assert "seed was 0, now 1" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_passed_over_and_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for picture in (home / "pictures").glob("*.png"):
        (folder / picture.name).write_bytes(picture.read_bytes())
    lines = (home / "pictures" / "metadata.jsonl").read_text().splitlines(keepends=True)
    first = next(asked for asked in asked_scenes(home / "pictures"))
    strange = [
        line.replace(first.scene.placements[0].code, "1f92f") for line in lines if first.file_name in line
    ]
    lines = [strange[0] if first.file_name in line else line for line in lines]
    (folder / "metadata.jsonl").write_text("".join(lines))
    (folder / "icons").symlink_to(home / "pictures" / "icons")
    assert call(*words(home, tmp_path / "run", folder, "--num-captions", 8, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_left_out"] == 1
    assert result["left_out"][0]["where"] == first.file_name
    assert "the data set's icons do not show" in result["left_out"][0]["reason"]
    assert result["request"]["num_captions"] == 8


def test_what_cannot_be_measured_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a red cat"}\n')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note").write_text("mine")
    for name in ("old", "few"):
        (tmp_path / name).mkdir()
        lines = (home / "pictures" / "metadata.jsonl").read_text()
        (tmp_path / name / "metadata.jsonl").write_text(lines)
    icons = tmp_path / "few" / "icons"
    icons.mkdir()
    index = json.loads((home / "pictures" / "icons" / "index.json").read_text())
    (icons / "index.json").write_text(json.dumps(index | {"sizes": [7]}))
    for said, more in (
        ("has no metadata.jsonl", (tmp_path,)),
        ("has no scenes", (tmp_path / "plain",)),
        ("no pictures of the split 'held-out-object'; it has held-out", ("--split", "held-out-object")),
        ("have 32 x 32 pixels, and those to be read 16 x 16", (home / "large",)),
        ("has no icons/index.json", (tmp_path / "old",)),
        ("the data set's icons do not show the", (tmp_path / "few",)),
        ("ask for --num-captions 16 or fewer", ("--num-captions", 17)),
        ("--num-captions must be 8 or more", ("--num-captions", 7)),
        ("--candidates must be 1 or more", ("--candidates", 0)),
        ("holds something else", ("--out", tmp_path / "taken")),
    ):
        assert call(*words(home, tmp_path / "run", *more)) == 2, said
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
