"""Edges of what can be asked for work, or are refused in one line: in a process without run-time checks of types."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cogview.cli.main import main
from tiny import tiny_pipeline_folder

pytestmark = pytest.mark.slow

ASKED = """
import json, sys, tempfile, warnings
from pathlib import Path

import numpy as np
import torch

from cogview.errors import UsageError
from cogview.generation.options import CodeOptions
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import PreviewOptions
from cogview.generation.text_to_image import draw, picture_request
from many_tasks import model_of_many_tasks

warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory() as folder:
    pipe = Pipeline(model_of_many_tasks(Path(folder)))
runner, template = pipe.model.drawing()
codes, wide = torch.arange(16).view(4, 4), torch.zeros(4, 8, dtype=torch.int64)
nan, big = float("nan"), 2**70
large = {"upscaler": "upscale"}


def request(template, given=None, seed=0):
    pieces = pipe.text_tokenizer.encode("a dog")
    return picture_request(runner, template, pieces, seed, pipe.drawer.sampling(CodeOptions()), given)


def small():
    from dataclasses import replace

    return replace(template, grid_rows=2)


asked = {
    "all given": lambda: torch.equal(draw(runner, [request(template, codes.numpy().ravel())])[0], codes.ravel()),
    "all given of two": lambda: torch.equal(
        draw(runner, [request(template, codes.numpy().ravel()), request(template)])[1],
        pipe.generate_codes("a dog", 1)[0, 0].ravel(),
    ),
    "seed of 2^70": lambda: (
        pipe.generate("a dog", 2, seed=big)[0].seed == big
        and not torch.equal(*pipe.generate_codes("a dog", 2, big)[0])
    ),
    "seed of 2^70, inverted": lambda: len(pipe.generate("a dog", 1, seed=big, sampler="inversion")) == 1,
    "seed of 2^70 for all": lambda: len(pipe.generate("a", 2, 1, big, upscale=2, captioner="caption", **large)) == 1,
    "seed of 2^70 for captions": lambda: pipe.caption(codes, 1, seed=big, temperature=1)[0][0].seed == big,
    "one text twice": lambda: all(
        torch.equal(one.codes, other.codes) for one, other in zip(*pipe.generate(["a dog", "a dog"], 2))
    ),
    "one text twice, ranked": lambda: len({each.seed for each in pipe.generate(["a", "a"], 3, 1)[0]}) == 1,
    "one text twice, upscaled": lambda: len(pipe.upscale([codes, codes], ["a", "a"], 2, **large)) == 2,
    "a number of numpy": lambda: pipe.generate_codes("a", np.int64(2), np.int64(3)).shape == (1, 2, 4, 4),
    "a small number of numpy": lambda: [each.seed for each in pipe.generate("a", 2, seed=np.uint8(255))] == [255, 256],
    "no requests": lambda: len(draw(runner, [])) == 0,
    "two grids in one engine": lambda: [
        len(each.tokens) for each in runner.engine.run([request(template), request(small())])
    ] == [16, 8],
    "!no texts": lambda: pipe.generate([]),
    "!no texts to codes": lambda: pipe.generate_codes([]),
    "!no texts to score": lambda: pipe.caption_loss(codes, []),
    "!no texts to stream": lambda: pipe.stream([]),
    "!no text at all": lambda: pipe.generate(None),
    "!a number for a text": lambda: pipe.generate(["a", 3]),
    "!two grids in one tensor": lambda: draw(runner, [request(template), request(small())]),
    "!two grids to upscale": lambda: pipe.upscale([codes, wide], "a", 2, **large),
    "!num_candidates 2.5": lambda: pipe.generate("a", 2.5),
    "!num_candidates nan": lambda: pipe.generate_codes("a", nan),
    "!num_candidates '2'": lambda: pipe.generate("a", "2"),
    "!keep 0": lambda: pipe.generate("a", 2, 0),
    "!keep 1.5": lambda: pipe.generate("a", 2, 1.5),
    "!seed 0.5": lambda: pipe.generate("a", 2, seed=0.5),
    "!seed 0.5 of codes": lambda: pipe.generate_codes("a", 2, [0.5]),
    "!seed of a request": lambda: request(template, seed=0.5),
    "!temperature nan": lambda: pipe.generate("a", 1, temperature=nan),
    "!temperature 'hot'": lambda: pipe.generate("a", 1, temperature="hot"),
    "!top_k 2.5": lambda: pipe.generate("a", 1, top_k=2.5),
    "!guidance nan": lambda: pipe.generate("a", 1, guidance=nan),
    "!upscale 2.5": lambda: pipe.generate("a", 1, upscale=2.5),
    "!size_pixels 16.5": lambda: pipe.generate("a", 1, size_pixels=16.5),
    "!a mask that is nan": lambda: pipe.generate("a", 1, image=codes, mask=nan),
    "!a mask that is True": lambda: pipe.generate("a", 1, image=codes, mask=True),
    "!a mask of many letters": lambda: pipe.generate("a", 1, image=codes, mask="m" * 5000),
    "!an adapter that is a list": lambda: pipe.generate("a", 1, adapter=["style"]),
    "!previews that are a number": lambda: pipe.stream("a", 1, previews=5),
    "!previews so often": lambda: PreviewOptions(per_second="often"),
    "!num_captions 1.5": lambda: pipe.caption(codes, 1.5),
    "!num_beams 2.5": lambda: pipe.caption(codes, 1, 2.5),
    "!max_pieces 2.5": lambda: pipe.caption(codes, max_pieces=2.5),
    "!caption's temperature nan": lambda: pipe.caption(codes, temperature=nan),
    "!factor 2.5": lambda: pipe.upscale(codes, "a", 2.5, **large),
    "!upscale's seed 0.5": lambda: pipe.upscale(codes, "a", 2, 0.5, **large),
    "!upscale's temperature nan": lambda: pipe.upscale(codes, "a", 2, temperature=nan, **large),
}
answers = {}
for name, ask in asked.items():
    try:
        answers[name] = bool(ask())
    except UsageError as error:
        answers[name] = str(error)
print(json.dumps([answers, runner.engine.is_idle]))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, bool | str]:
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    answers, is_idle = json.loads(done.stdout)
    assert is_idle
    return answers


def test_edges_work_or_are_refused_in_one_line(answers: dict[str, bool | str]) -> None:
    assert len(answers) > 40
    for name, answer in answers.items():
        if name.startswith("!"):
            assert isinstance(answer, str), name
            assert "\n" not in answer
            assert len(answer) > 20
        else:
            assert answer is True, (name, answer)


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        ("!num_candidates 2.5", "num_candidates must be a whole number, got 2.5"),
        ("!keep 0", "keep must be between 1 and num_candidates, 2, got 0"),
        ("!seed 0.5", "seed must be a whole number, got 0.5"),
        ("!temperature nan", "temperature must be 0 or more, got nan"),
        ("!temperature 'hot'", "temperature must be a number, got 'hot'"),
        ("!top_k 2.5", "top_k must be a whole number, got 2.5"),
        ("!no texts", "no text given; give at least one"),
        (
            "!two grids in one tensor",
            "pictures of 8 and of 16 codes cannot be one tensor: draw them separately",
        ),
    ],
)
def test_what_is_wrong_is_named(answers: dict[str, bool | str], edge: str, problem: str) -> None:
    assert re.search(problem, str(answers[edge]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a", "--num-candidates", "2.5"], "2.5"),
        (["a", "--keep", "0"], "keep"),
        (["a", "--temperature", "nan"], "temperature"),
        ([], "no text"),
    ],
)
def test_edges_of_the_command_line_are_refused_in_one_line(
    model: Path,
    tmp_path: Path,
    words: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *words, "--model", str(model), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_large_seed_and_one_text_twice_are_drawn_by_the_command_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["a dog", "a dog", "--num-candidates", "1", "--seed", str(2**70), "--model", str(model)]
    assert main(["generate", *words, "--device", "cpu"]) == 0
    one, other = (tmp_path / f"out/001/0{number}-a-dog-seed{2**70}.png" for number in (1, 2))
    assert one.read_bytes() == other.read_bytes()
