"""`cogview evaluate text-to-image`: figures, resuming after a kill, shares of processes, one line for what is wrong."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import CAPTIONS, tiny_model

import cogview
from cogview.cli.main import main
from cogview.evaluation.backbone import Features
from cogview.evaluation.caption_set import CaptionSet
from cogview.generation.pipeline import Pipeline
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import TaskModel
from cogview.runs import evaluate_text_to_image, evaluation_draws
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig


class Eye:
    """Sees mean colours, and takes them for classes."""

    name = "eye"

    def __call__(self, images: torch.Tensor) -> Features:
        pooled = images.mean((2, 3))
        return Features(pooled=pooled, maps=(), logits=5 * pooled)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make model/, a tiny one, mute/, the same without its captioner, and pictures/, one of them no picture."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_model(home)
    save_pretrained(model, home / "mute")
    adapted = AdaptedTransformer(model.transformer, AdapterConfig(rank=2), 1)
    template = {"grid_rows": 4, "grid_columns": 4, "max_text_pieces": 12, "positions": "from_zero"}
    model.adapters["captions"] = TaskModel(task="captioning", transformer=adapted, template=template)
    save_pretrained(model, home / "model")
    (home / "pictures").mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for number in range(26):
        pixels = draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16 + (number == 4), 16)).save(home / "pictures" / f"{number}.png")
        line = {"file_name": f"{number}.png", "text": CAPTIONS[number % 4], "split": "held-out"}
        lines.append(json.dumps(line) + "\n")
    (home / "pictures" / "3.png").write_bytes(b"no picture")
    lines.append('{"file_name": "0.png", "text": "again", "split": "held-out"}\n')
    (home / "pictures" / "metadata.jsonl").write_text("".join(lines))
    return home


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of 8 captions, and let a network of no weights see."""
    monkeypatch.setattr(evaluation_draws, "_PICTURES_PER_SHARD", 16)
    monkeypatch.setattr(evaluate_text_to_image, "open_backbone", lambda *_: (Eye(), {"name": "eye"}))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves, which takes as long as all else."""
    monkeypatch.setattr(evaluate_text_to_image, "plot_figures", lambda *_: [])


def words(home: Path, out: Path, *more: object) -> list[str]:
    fixed = ["evaluate", "text-to-image", "--images", home / "pictures", "--out", out, "--device", "cpu"]
    chosen = [] if "--model" in more else ["--model", home / "model"]
    return [str(word) for word in [*fixed, *chosen, "--candidates", 2, *more]]


def call(*arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(list(arguments))


def result_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert call(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_figures_table_and_plots_come_of_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words(home, tmp_path / "run")) == 0
    said = capsys.readouterr()
    assert "drawing will take about" in said.err
    result = json.loads((tmp_path / "run" / "figures-eye.json").read_text())
    assert (result["request"]["num_captions"], result["chosen_by"]) == (26, "CapLoss")
    assert (result["num_problems"], result["num_resized"], result["size_pixels"]) == (2, 1, 16)
    assert result["num_real_pictures"] == 25
    assert {each["where"] for each in result["problems"]} == {"3.png", "metadata.jsonl line 27"}
    table = (tmp_path / "run" / "figures-eye.md").read_text()
    assert table in said.out + "\n"
    for name, figure in result["figures"].items():
        assert f"| {name} | {figure['value']:.4g} |" in table
    assert result["figures"].keys() >= {"frechet_distance_eye_blur_8", "class_score_eye", "CapLoss"}
    curve = {(line["choice"], line["num_candidates"]): line for line in result["curve"]}
    assert set(curve) == {(choice, number) for choice in ("CapLoss", "random") for number in (1, 2)}
    last = curve["CapLoss", 2]
    for name in ("frechet_distance_eye_blur_0", "class_score_eye", "CapLoss"):
        assert last[name] == pytest.approx(result["figures"][name]["value"])
    assert last["CapLoss"] < curve["CapLoss", 1]["CapLoss"] == curve["random", 1]["CapLoss"]
    assert (tmp_path / "run" / "blur-eye.png").is_file()
    assert (tmp_path / "run" / "candidates-eye.png").is_file()
    # Each picture is that of its own seed, and CapLoss that of the pipeline.
    asked = CaptionSet(home / "pictures").asked
    pipe = cogview.load(home / "model", "cpu")
    codes = np.load(tmp_path / "run" / "codes" / "000001.npy")
    (losses,) = (tmp_path / "run" / "scores").iterdir()
    drawn = pipe.generate(asked[9].text, 1, seed=9 * 2 + 1)[0]
    assert np.array_equal(codes[1, 1], drawn.codes.numpy())
    loss = pipe.caption_loss(drawn.codes, asked[9].text)[0]
    assert np.load(losses / "000001.npy")[1, 1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_changed_request_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = result_of(capsys, *words(home, tmp_path / "whole"))
    draw, drawn, limits = Pipeline.generate_codes, [], [2]

    def interrupted(pipeline: Pipeline, texts: list[str], *arguments: Any, **settings: Any) -> torch.Tensor:
        if len(drawn) in limits:
            raise KeyboardInterrupt("asked to end")
        drawn.append(len(texts))
        return draw(pipeline, texts, *arguments, **settings)

    monkeypatch.setattr(Pipeline, "generate_codes", interrupted)
    assert call(*words(home, tmp_path / "run")) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert drawn == [8, 8]  # captions of two parts of four
    limits.clear()
    again = result_of(capsys, *words(home, tmp_path / "run"))
    assert drawn == [8, 8, 8, 2]
    assert (again["figures"], again["curve"]) == (whole["figures"], whole["curve"])
    another = result_of(capsys, *words(home, tmp_path / "run", "--contrast", 1))
    assert drawn == [8, 8, 8, 2]  # nothing is drawn again to be looked at otherwise
    assert another["figures"] != whole["figures"]
    for changed in (("--seed", 1), ("--top-p", 0.9), ("--num-captions", 20), ("--candidates", 3)):
        assert call(*words(home, tmp_path / "run", *changed)) == 2
        (line,) = (each for each in capsys.readouterr().err.splitlines() if "error" in each)
        assert f"{changed[0]} was " in line


@pytest.mark.usefixtures("no_plots")
@pytest.mark.slow
def test_several_processes_share_the_drawing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = result_of(capsys, *words(home, tmp_path / "whole"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert result_of(capsys, *words(home, tmp_path / "run"))["rank"] == 1
    assert [path.name for path in sorted((tmp_path / "run" / "codes").iterdir())] == [
        "000001.npy",
        "000003.npy",
    ]
    monkeypatch.setenv("RANK", "0")
    shared = result_of(capsys, *words(home, tmp_path / "run"))
    assert (shared["figures"], shared["curve"]) == (whole["figures"], whole["curve"])


@pytest.mark.usefixtures("no_plots")
@pytest.mark.slow
def test_another_judge_chooses_beside_caploss(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Brightness:
        name = "CLIP"

        def __call__(self, text: str, pictures: list[Image.Image]) -> np.ndarray:
            return np.array([np.asarray(each).mean() for each in pictures])

    monkeypatch.setattr(evaluate_text_to_image, "load_clip", lambda *_: Brightness())
    (tmp_path / "clip.pt").write_bytes(b"weights")
    more = ("--clip", "ViT-B-32", "--clip-weights", tmp_path / "clip.pt", "--model", home / "mute")
    result = result_of(capsys, *words(home, tmp_path / "run", *more))
    assert result["chosen_by"] == "CLIP"
    assert "CapLoss" not in result["figures"]
    assert {line["choice"] for line in result["curve"]} == {"CLIP", "random"}
    both = result_of(capsys, *words(home, tmp_path / "both", *more[:4]))
    assert {line["choice"] for line in both["curve"]} == {"CapLoss", "CLIP", "random"}

    class Darkness(Brightness):
        def __call__(self, text: str, pictures: list[Image.Image]) -> np.ndarray:
            return -super().__call__(text, pictures)

    # The same file for another architecture is another judge.
    monkeypatch.setattr(evaluate_text_to_image, "load_clip", lambda *_: Darkness())
    dark = result_of(capsys, *words(home, tmp_path / "run", "--clip", "ViT-B-32-quickgelu", *more[2:]))
    assert dark["figures"] != result["figures"]


@pytest.mark.slow
def test_what_cannot_be_measured_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stray.jsonl").write_text(
        "".join(json.dumps({"file_name": f"no-{n}.png", "text": "a red cat"}) + "\n" for n in range(20))
    )
    for exit_code, said, more in (
        (2, "needs something to choose the best by", ("--model", home / "mute")),
        (2, "--candidates must be 1 or more", ("--candidates", 0)),
        (2, "19 captions are too few", ("--num-captions", 19)),
        (2, "--num-captions must be between 1 and 26", ("--num-captions", 30)),
        (2, "--clip and --clip-weights go together", ("--clip", "ViT-B-32")),
        (1, 'no pictures of split "train"', ("--split", "train")),
        (1, "do not belong together", ("--captions", tmp_path / "stray.jsonl")),
        (1, "absent", ("--captions", tmp_path / "absent.json")),
        (2, "--seed must not be negative, got -1", ("--seed", -1)),
        (2, "--batch-size must be 1 or more, got -1", ("--batch-size", -1)),
        (2, "--contrast must be 0 or more, got nan", ("--contrast", "nan")),
        (2, "temperature must be 0 or more, got nan", ("--temperature", "nan")),
        (2, "--top-p must lie over 0 and be at most 1, got 1.5", ("--top-p", 1.5)),
    ):
        assert call(*words(home, tmp_path / "run", *more)) == exit_code, said
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
        # What was asked for by mistake is not kept, where it would be in the way of what is asked for next.
        assert exit_code == 1 or not (tmp_path / "run").exists()
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_too_few_real_pictures_are_found_out_before_any_is_drawn(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"file_name": f"{name}.png", "text": "a red cat"} for name in [*range(18), "no-1", "no-2"]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call(*words(home, tmp_path / "run", "--captions", tmp_path / "few.jsonl")) == 1
    assert "only 17 of the 20 real pictures can be read, and 20 are needed" in capsys.readouterr().err
    assert not (tmp_path / "run" / "codes").exists()
