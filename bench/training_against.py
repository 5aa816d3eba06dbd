"""How fast the transformer trains beside another checkout of this project: both take steps in turns, in float32.

    python bench/training_against.py PATH

Each checkout has a process with its own code and its own `bench/training.py`, at that benchmark's shape.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import tyro

from cogview.files import atomic_write_json
from environment import RESULTS, describe

SYSTEM = "ours, float32"

WORKER = """
import json, sys
import torch
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.config import TransformerConfig
from environment import seconds_of
from training import build_systems

size = json.loads(sys.argv[1])
vocabulary = Vocabulary(num_image_codes=size["codes"], num_text_pieces=size["pieces"])
template = TextToImageTemplate(
    vocabulary=vocabulary, grid_rows=size["side"], grid_columns=size["side"], max_text_pieces=60
)
config = TransformerConfig(
    num_layers=size["layers"], hidden_size=size["width"], num_heads=size["heads"],
    vocabulary_size=vocabulary.size, num_positions=template.num_positions,
)
torch.manual_seed(0)
place = torch.device("cpu")
(system,) = build_systems(config, template, size["batch"], place, (size["system"],))
for line in sys.stdin:
    print(seconds_of(system.step, place), flush=True)
"""


def main(path: tyro.conf.Positional[Path], *, rounds: int = 7, quick: bool = False) -> None:
    """Measure, print and write the figures.

    Args:
        path: the other checkout.
        rounds: timed steps of each, in turns, after two that are not.
        quick: a tiny shape that writes nothing.
    """
    size = {
        "system": SYSTEM,
        "codes": 8192,
        "pieces": 50_000,
        "side": 32,
        "layers": 8,
        "width": 512,
        "heads": 8,
    }
    size["batch"] = 2
    if quick:
        size |= {"codes": 64, "pieces": 50, "side": 4, "layers": 2, "width": 64, "heads": 2}
    checkouts = {"ours": Path(__file__).parents[1], "theirs": path.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    with_folder = {}
    for name, folder in checkouts.items():
        with_folder[name] = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(size)],
            cwd=folder / "bench",
            env={**os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder / 'bench'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    for number in range(rounds + 2):
        for name, worker in with_folder.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("step", file=worker.stdin, flush=True)
            step = float(worker.stdout.readline())
            if number > 1:
                seconds[name].append(step)
    for worker in with_folder.values():
        worker.communicate()
    commit = subprocess.run(
        ["git", "-C", str(path), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratio = medians["theirs"] / medians["ours"]
    print(f"{SYSTEM}: {medians['ours']:.2f} s a step, {commit}: {medians['theirs']:.2f} s, {ratio:.2f} x")
    if not quick:
        result = {
            **describe(torch.device("cpu")),
            "shape": size,
            "against": commit,
            "seconds": seconds,
            "ratio": ratio,
        }
        atomic_write_json(RESULTS / f"training-against-{commit}.json", result)


if __name__ == "__main__":
    tyro.cli(main)
