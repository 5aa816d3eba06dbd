"""`cogview evaluate questionnaire` and `answers`, from folders of pictures to charts; one line for what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path

import pytest
from command import MAIN

from cogview.cli.main import main
from cogview.evaluation.questionnaire.folder import read_questionnaire
from cogview.runs import questionnaire
from questionnaire_folder import CAPTIONS, COLOURS, questionnaire_in, record_of, systems_in


def call(*words: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return main(["evaluate", *map(str, words)])


@pytest.mark.slow
def test_from_pictures_to_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    systems = [f"{system.name}={system.folder}" for system in systems_in(tmp_path)]
    (tmp_path / "ours" / "unasked.png").write_bytes((tmp_path / "ours" / "0.png").read_bytes())
    lines = [f"{number}.png\t{text}\n" for number, text in enumerate(CAPTIONS)]
    (tmp_path / "captions.tsv").write_text("".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    words = ["questionnaire", out, "--systems", *systems, "--captions", tmp_path / "captions.tsv"]
    assert call(*words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_questions"] == 3
    assert result["pictures_left_out"] == {"baseline": 0, "ours": 1, "truth": 0}
    asked = read_questionnaire(out)
    records = [record_of(asked, rater, number) for rater in ("anna", "ben") for number in range(3)]
    (out / "answers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert call("answers", out, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_answers"], figures["num_raters"]) == (6, 2)
    assert Path(figures.pop("charts")) == out / "charts.png"
    assert json.loads((out / "figures.json").read_text()) == figures
    assert (out / "charts.png").is_file()
    # Answers of two places, written elsewhere.
    for name, part in (("a", records[:2]), ("b", records[2:])):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in part))
    elsewhere = tmp_path / "elsewhere"
    assert call("answers", out, "--answers", tmp_path / "a", tmp_path / "b", "--out", elsewhere) == 0
    table = capsys.readouterr().out
    assert json.loads((elsewhere / "figures.json").read_text()) == figures
    assert table.startswith("6 answers of 2 raters to 3 questions, 3 of them by several\n")
    for system in COLOURS:
        mean = figures["mean_scores"]["clarity"][system]["value"]
        (row,) = (line for line in table.splitlines() if line.startswith(system))
        assert f"  {mean:.2f} [" in row


def test_without_matplotlib_figures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = questionnaire_in(tmp_path)
    (asked.folder / "answers.jsonl").write_text(json.dumps(record_of(asked)) + "\n")
    monkeypatch.setattr(questionnaire, "draw_charts", lambda figures, path: False)
    assert call("answers", asked.folder, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["charts"] is None
    assert "pip install '.[plot]'" in said.err
    assert not (asked.folder / "charts.png").exists()


def test_the_command_serves_until_it_is_asked_to_end(tmp_path: Path) -> None:
    asked = questionnaire_in(tmp_path)
    words = ["evaluate", "questionnaire", str(asked.folder), "--serve", "--port", "0"]
    command = [sys.executable, "-c", MAIN, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stderr is not None
        try:
            found = re.match(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
            assert found is not None
            record = record_of(asked, question=1)
            request = urllib.request.Request(
                f"{found[1]}api/answers",
                json.dumps(record).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                assert json.load(response) == {"kept": True}
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert "1 answers of 1 raters are in" in said
    assert json.loads((asked.folder / "answers.jsonl").read_text())["best"] == record["best"]


def test_what_is_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questionnaire_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("captions.tsv").write_text("0\ta cat\n9\ta dog\n")
    Path("bad").write_text("{}\n\n")
    made = ["--captions", "captions.tsv", "--systems"]
    for exit_code, said, words in (
        (2, "there is nothing to do", ["questionnaire", "new"]),
        (2, "give both, or neither", ["questionnaire", "new", "--captions", "captions.tsv"]),
        (2, "give both, or neither", ["questionnaire", "new", "--systems", "a=ours", "b=truth"]),
        (2, "two systems or more to compare, got 1", ["questionnaire", "new", *made, "a=ours"]),
        (
            1,
            "no picture for 1 of 2 captions, the first '9'",
            ["questionnaire", "new", *made, "ours", "truth"],
        ),
        (1, "absent is no folder of pictures", ["questionnaire", "new", *made, "absent", "ours"]),
        (1, "holds no questionnaire", ["questionnaire", "new", "--serve"]),
        (1, "holds no questionnaire", ["answers", "ours"]),
        (1, "nobody has answered", ["answers", "questionnaire"]),
        (1, "line 1 is no answer", ["answers", "questionnaire", "--answers", "bad"]),
        (1, "choose another --port", ["questionnaire", "questionnaire", "--serve", "--port", "99999"]),
    ):
        assert call(*words) == exit_code
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("cogview: error: ")
        assert said in error
    assert not Path("new").exists()
