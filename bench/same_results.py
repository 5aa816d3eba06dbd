"""Does a change keep every result, to the bit?

    python bench/same_results.py --base COMMIT

Runs the commands of `docs/every-command.md` of COMMIT with that commit's code and with today's, two steps a training.
Then compares all files: codes, tokens, weights, pictures, losses, figures; dates and durations are left out. Prints
what differs, and ends with exit code 1 if something does. Fetches the icons' packages if they are not there.

Writes bench/results/same_results.json.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors import safe_open

from cogview.files import atomic_write_json
from environment import RESULTS, describe

ROOT = Path(__file__).parents[1]
SHORT = ("--training.num-steps", "2", "--training.log-every-steps", "1", "--training.device", "cpu")
VOLATILE = re.compile(
    r"seconds|per_second|date|commit|command|versions|environment|bytes|load|duration|_at$|time|path|host"
)
"""Names in JSON of what differs from run to run."""
UNREAD = {".html", ".svg", ".lock"}
"""What is made of the rest, with dates in it."""
DIFFERENT_EACH_TIME = {"checkpoints", "tensorboard", "asked"}
"""Folders: the same again, dates, and a questionnaire whose order is drawn."""

RUN = """
import glob, json, shlex, sys
from cogview.cli.main import main
for words in json.load(open(sys.argv[1])):
    expanded = [each for word in words for each in (sorted(glob.glob(word)) if "*" in word else [word])]
    print("$", shlex.join(expanded), file=sys.stderr, flush=True)
    if main(expanded):
        raise SystemExit(f"failed: {shlex.join(expanded)}")
"""


def commands_of(page: Path) -> list[list[str]]:
    """Return the words of the commands on a page, without `cogview`; trainings are cut to two steps."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("cogview ")]
    return [
        [*words, *(SHORT if words[0] == "train" and words[1] != "text-tokenizer" else ())]
        for words in commands
        if words[0] != "doctor"
    ]


def plain(value: Any) -> Any:
    """Return JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if not VOLATILE.search(key)}
    return [plain(each) for each in value] if isinstance(value, list) else value


def digest_of(path: Path) -> str:
    """Return a digest of what a file holds."""
    if path.suffix in (".json", ".jsonl"):
        lines = (
            path.read_text(encoding="utf-8").splitlines()
            if path.suffix == ".jsonl"
            else [path.read_text("utf-8")]
        )
        data = json.dumps([plain(json.loads(line)) for line in lines], sort_keys=True).encode()
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        data = b"".join(
            f"{name} {each.dtype} {tuple(each.shape)}".encode()
            + each.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            for name, each in tensors.items()
        )
    else:
        data = path.read_bytes()
    return hashlib.sha256(data).hexdigest()[:16]


def results_of(code: Path, commands: list[list[str]], folder: Path) -> dict[str, str]:
    """Run the commands with the code of a checkout in a new folder; return the digests of all files by their paths."""
    folder.mkdir()
    listed = folder.parent / f"{folder.name}.json"
    listed.write_text(json.dumps(commands))
    (folder / "tour").mkdir()
    (folder / "tour" / "captions.txt").write_text("a cat\n一只狗\n", encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(code / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }
    subprocess.run(
        [sys.executable, "-c", RUN, str(listed)],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {
        str(path.relative_to(folder)): digest_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in UNREAD and not DIFFERENT_EACH_TIME & set(path.parts)
    }


def main(base: str) -> None:
    """Compare today's results with those of another commit.

    Args:
        base: the commit.
    """
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary) / "code"
        subprocess.run(["git", "worktree", "add", "--detach", str(before), base], cwd=ROOT, check=True)
        try:
            commands = commands_of(before / "docs" / "every-command.md")
            old = results_of(before, commands, Path(temporary) / "old")
            new = results_of(ROOT, commands, Path(temporary) / "new")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    different = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    result = {
        **describe(torch.device("cpu")),
        "base": base,
        "num_commands": len(commands),
        "num_files": len(new),
        "different": different,
    }
    atomic_write_json(RESULTS / "same_results.json", result)
    print("\n".join(different))
    print(f"{len(new)} files of {len(commands)} commands; {len(different)} differ from {base}")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
