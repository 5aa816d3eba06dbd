"""Training by torchrun, as the pages tell it, and the files that start it on many hosts."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from cogview.cli import parsing
from cogview.cli.main import main

ROOT = Path(__file__).parents[2]
SHORT = ["--training.num-steps", "2", "--training.log-every-steps", "1", "--training.device", "cpu"]
TRAINING = ("kubernetes.yaml", "slurm.sbatch", "torchrun.sh")
"""In `launch/`; what is there besides is for serving."""


@pytest.mark.slow
def test_two_processes_train_a_model_that_one_draws_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 0, 90)).save(f"pictures/{number}.png")
        Path(f"pictures/{number}.txt").write_text(f"paper {number}")
    tokenize = ["tokenize", "pictures", "--out", "tokens", "--size-pixels", "32", "--device", "cpu"]
    assert main(tokenize) == 0
    train = [
        "train",
        "text-to-image",
        "tiny",
        "--data",
        "tokens",
        "--out",
        "run",
        "--sample-texts",
        "paper",
        *SHORT,
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "cogview",
    ]
    result = subprocess.run(
        [*command, *train, "--training.tensor-parallel", "2", "--held-out", "tokens", "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)  # by the first process alone
    assert printed["num_steps"] == 2
    assert json.loads(Path("run/config.json").read_text())["num_processes"] == 2
    assert Path("run/samples/step-00000002.png").is_file()
    assert printed["evaluation"]["held_out"]["loss"] > 0
    capsys.readouterr()
    assert (
        main([*train, "--held-out", "tokens", "--resume", "--json"]) == 0
    )  # one process completes what two did
    completed = json.loads(capsys.readouterr().out)
    assert completed["metrics"] == printed["metrics"]
    assert completed["evaluation"]["held_out"]["loss"] == pytest.approx(
        printed["evaluation"]["held_out"]["loss"]
    )
    assert main(["generate", "paper", "--model", "run", "--num-candidates", "1", "--device", "cpu"]) == 0
    assert list(tmp_path.glob("out/001/*seed0.png"))


def commands_of(text: str) -> list[list[str]]:
    """Return the words after `cogview` of commands that torchrun starts, and of those that `launch/` is given."""
    lines = text.replace("\\\n", " ").replace('"$@"', "paper-4b --data tokens --out run")
    lines = re.sub(r"\$\(.*?\)|\n +(?=-|\$)", " ", lines)
    found = re.findall(r"-m cogview (.*)", lines)
    found += [
        f"train text-to-image {rest}" for rest in re.findall(r"launch/\S+(?:sh|sbatch) (\S.*--out.*)", lines)
    ]
    return [shlex.split(each, comments=True) for each in found]


@pytest.mark.parametrize(
    "path",
    [*(ROOT / "launch" / name for name in TRAINING), ROOT / "docs" / "many-devices.md"],
    ids=lambda path: path.name,
)
def test_the_commands_that_start_many_processes_are_understood(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, parsed = parsing._parse, []

    def only_parse(
        function: Callable[..., None], program: str, description: str, arguments: Sequence[str]
    ) -> Callable[[], None]:
        parse(function, program, description, arguments)
        parsed.append(program)
        return lambda: None

    monkeypatch.setattr(parsing, "_parse", only_parse)
    for words in commands_of(path.read_text()):
        assert main([word for word in words if word != "..."]) == 0, words
    assert parsed


@pytest.mark.skipif(os.name != "posix", reason="there is no bash")
def test_the_scripts_are_bash(tmp_path: Path) -> None:
    for name in ("torchrun.sh", "slurm.sbatch"):
        subprocess.run(["bash", "-n", str(ROOT / "launch" / name)], check=True, capture_output=True)
    fake = tmp_path / "torchrun"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NUM_HOSTS": "3", "RENDEZVOUS": "first:29400"}
    script = [str(ROOT / "launch" / "torchrun.sh"), "tiny", "--out", "a b"]
    words = subprocess.run(
        ["bash", *script], env=os.environ | variables, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert words[words.index("--nnodes") + 1] == "3"
    assert words[words.index("--rdzv-endpoint") + 1] == "first:29400"
    assert words[-6:] == ["cogview", "train", "text-to-image", "tiny", "--out", "a b"]
