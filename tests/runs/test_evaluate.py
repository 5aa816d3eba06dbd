"""`cogview.evaluate`: what is measured follows from the options, and equals what the command prints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

import cogview
from cogview.cli.main import main
from cogview.evaluation.questionnaire.folder import read_questionnaire
from cogview.runs import evaluate_tokenizer
from cogview.runs.evaluate import EvaluationOptions
from cogview.runs.evaluation_options import (
    AnswersOptions,
    AttentionEvaluationOptions,
    CompositionEvaluationOptions,
    ModelEvaluationOptions,
    QuestionnaireOptions,
    TextToImageEvaluationOptions,
    TokenizerEvaluationOptions,
)
from questionnaire_folder import CAPTIONS, record_of, systems_in
from tiny import tiny_image_tokenizer, tiny_pipeline_folder


def test_options_are_made_without_torch() -> None:
    code = "import sys, cogview.runs.evaluation_options; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.filterwarnings("ignore:The perceptual and the Frechet distance are left out")
def test_a_tokenizer_has_the_figures_that_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_tokenizer, "find_weights", lambda: None)
    tiny_image_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "pictures").mkdir()
    for color in ("red", "green"):
        Image.new("RGB", (16, 16), color).save(tmp_path / "pictures" / f"{color}.png")
    options = TokenizerEvaluationOptions(
        data=tmp_path / "pictures",
        image_tokenizer=tmp_path / "tokenizer",
        size_pixels=16,
        grid=tmp_path / "grid.png",
        device="cpu",
    )
    result = cogview.evaluate(options)
    assert result is not None
    assert result.files == {"grid": tmp_path / "grid.png"}
    assert capsys.readouterr().out == ""
    words = ["evaluate", "tokenizer", options.data, "--image-tokenizer", options.image_tokenizer]
    words += ["--size-pixels", 16, "--grid", options.grid, "--device", "cpu", "--json"]
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out) == {**result.facts, "grid": str(options.grid)}


@pytest.mark.slow
def test_attention_has_scores_and_figures(tmp_path: Path) -> None:
    options = AttentionEvaluationOptions(
        text="a red cat", model=str(tiny_pipeline_folder(tmp_path)), device="cpu", out=tmp_path / "out"
    )
    result = cogview.evaluate(options)
    assert result is not None
    assert result.facts == json.loads(result.files["scores"].read_text())
    assert {path.name for path in result.files.values()} == {path.name for path in options.out.iterdir()}


@pytest.mark.slow
def test_a_questionnaire_is_made_and_its_answers_told(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text("".join(f"{n}.png\t{text}\n" for n, text in enumerate(CAPTIONS)))
    systems = tuple(f"{system.name}={system.folder}" for system in systems_in(tmp_path))
    folder = tmp_path / "out"
    options = QuestionnaireOptions(folder=folder, systems=systems, captions=tmp_path / "captions.tsv")
    made = cogview.evaluate(options)
    assert made is not None
    assert made.facts["num_questions"] == len(CAPTIONS)
    record = record_of(read_questionnaire(folder))
    (folder / "answers.jsonl").write_text(json.dumps(record) + "\n")
    told = cogview.evaluate(AnswersOptions(folder=folder, draws=10))
    assert told is not None
    assert told.facts["num_answers"] == 1
    assert json.loads(told.files["figures"].read_text()) == told.facts


def test_what_cannot_be_asked_for_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for said, make in (
        (
            "--candidates must be 1 or more",
            lambda: CompositionEvaluationOptions(pictures=tmp_path, candidates=0),
        ),
        ("--seed must not be negative", lambda: TextToImageEvaluationOptions(images=tmp_path, seed=-1)),
        ("--seeds must be different", lambda: ModelEvaluationOptions(seeds=())),
        ("give both, or neither", lambda: QuestionnaireOptions(folder=tmp_path, systems=("a=b",))),
    ):
        with pytest.raises(cogview.UsageError, match=said):
            make()


def test_all_options_are_public() -> None:
    assert {each.__name__ for each in get_args(EvaluationOptions)} <= set(cogview.__all__)
