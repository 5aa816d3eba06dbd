"""How well `cogview plan` foretells memory: its figures against the peak of real steps and real drawing on the CPU.

    python bench/plan.py            # all shapes, about four minutes on 2 cores
    python bench/plan.py --quick    # one of each

Each measurement is a process of its own. Of training it is how far its resident memory grew at most, over what it was
after a first tiny piece of the same work; of drawing, all that it had at most. The last lines are whole commands:
`cogview plan bundled --generate` beside `cogview generate` with the bundled model. Large buffers lie in large
pages, as under the command `cogview`; without them the peaks of training are up to a sixth higher.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does; torch reads it when it is imported

import numpy as np
import torch
import tyro

from bundled import TEXT
from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.memory import peak_resident_bytes, resident_bytes
from cogview.files import atomic_write_json
from cogview.generation.text_to_image import draw, picture_request
from cogview.models.weights import write_transformer
from cogview.planning.devices import find_device
from cogview.planning.generation import generation_memory
from cogview.planning.training import TrainingPlanner
from cogview.recipes.config import TextToImageRecipe
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import TokenLossConfig, TrainingConfig
from cogview.training.precision import autocast
from cogview.training.stepper import Stepper
from cogview.training.transformer import TransformerTask
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.stored import StoredTransformer
from environment import RESULTS, describe

NUM_STEPS = 4
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One shape and how it is trained or drawn from."""

    work: Literal["train", "draw"]
    num_layers: int
    hidden_size: int
    batch: int
    side: int = 32
    num_image_codes: int = 8_192
    num_text_pieces: int = 50_000
    num_micro_batches: int = 1
    precision: Literal["float32", "bfloat16", "int8", "bfloat16_o2", "float16_o2"] = "float32"
    optimizer: Literal["adamw", "muon"] = "adamw"
    attention: Literal["fused", "relaxed"] = "fused"
    normaliser: Literal["vocabulary", "legal"] = "vocabulary"

    @property
    def template(self) -> TextToImageTemplate:
        """Of its sequences."""
        return TextToImageTemplate(
            vocabulary=Vocabulary(num_image_codes=self.num_image_codes, num_text_pieces=self.num_text_pieces),
            grid_rows=self.side,
            grid_columns=self.side,
            max_text_pieces=60,
        )

    @property
    def recipe(self) -> TextToImageRecipe:
        """With its numbers."""
        return TextToImageRecipe(
            transformer=TransformerConfig(
                num_layers=self.num_layers,
                hidden_size=self.hidden_size,
                num_heads=self.hidden_size // 64,
                vocabulary_size=self.template.vocabulary.size,
                num_positions=self.template.num_positions,
                attention=self.attention,
            ),
            max_text_pieces=60,
            image_positions="after_text",
            token_loss=TokenLossConfig(normaliser=self.normaliser),
            training=TrainingConfig(
                num_steps=1000,
                batch_size=self.batch * self.num_micro_batches,
                num_micro_batches=self.num_micro_batches,
                optimizer=self.optimizer,
                precision=self.precision,
            ),
        )


CASES = {
    "train 8 x 512, float32, AdamW": Case(work="train", num_layers=8, hidden_size=512, batch=1),
    "train 6 x 384, bfloat16, AdamW, 2 micro-batches": Case(
        work="train", num_layers=6, hidden_size=384, batch=2, num_micro_batches=2, precision="bfloat16"
    ),
    "train 4 x 512, bfloat16, Muon, relaxed": Case(
        work="train",
        num_layers=4,
        hidden_size=512,
        batch=1,
        precision="bfloat16",
        optimizer="muon",
        attention="relaxed",
    ),
    "train 6 x 256, float32, Muon, 16 x 16 codes, legal ids": Case(
        work="train",
        num_layers=6,
        hidden_size=256,
        batch=8,
        side=16,
        num_image_codes=2_048,
        num_text_pieces=8_000,
        optimizer="muon",
        normaliser="legal",
    ),
    "train 6 x 512, bfloat16 O2, AdamW": Case(
        work="train", num_layers=6, hidden_size=512, batch=2, precision="bfloat16_o2"
    ),
    "draw 12 x 768, float32, 8 at once": Case(
        work="draw", num_layers=12, hidden_size=768, batch=8, side=16, num_text_pieces=8_000
    ),
    "draw 12 x 768, bfloat16, 8 at once": Case(
        work="draw",
        num_layers=12,
        hidden_size=768,
        batch=8,
        side=16,
        num_text_pieces=8_000,
        precision="bfloat16",
    ),
    "draw 12 x 768, int8, 8 at once": Case(
        work="draw",
        num_layers=12,
        hidden_size=768,
        batch=8,
        side=16,
        num_text_pieces=8_000,
        precision="int8",
    ),
    "draw 8 x 1024, float32, 2 at once": Case(work="draw", num_layers=8, hidden_size=1024, batch=2),
}
COMMANDS = (
    ("1",),
    ("16",),
    ("1", "--dtype", "int8"),
    ("16", "--dtype", "int8"),
    ("16", "--dtype", "int8", "--cache", "float16"),
    ("16", "--cache", "float16"),
    ("16", "--dtype", "float16"),
)
QUICK = (list(CASES)[3], list(CASES)[-2])


def predicted_bytes(case: Case) -> float:
    """Return what is foretold."""
    recipe, cpu = case.recipe, find_device("cpu")
    if case.work == "train":
        return TrainingPlanner(recipe, recipe.transformer, case.template, cpu).memory(case.batch).total
    dtype = getattr(torch, case.precision)
    return generation_memory(recipe.transformer, case.template, cpu, dtype).total(case.batch)


def measured_bytes(case: Case) -> float:
    """Return how far the resident memory of a process of its own grows."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(asdict(case))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def measure(case: Case) -> float:
    """Do the work in this process, and return the growth in bytes."""
    torch.manual_seed(0)
    tiny = replace(
        case, num_layers=1, hidden_size=64, batch=1, side=2, num_image_codes=64, num_text_pieces=64
    )
    if case.work == "draw":
        _draw(case)
        return peak_resident_bytes()
    _train(tiny)
    gc.collect()
    before = resident_bytes()
    _train(case)
    return peak_resident_bytes() - before


def _train(case: Case) -> None:
    """Do steps as the training loop does."""
    recipe, template = case.recipe, case.template
    transformer = Transformer(recipe.transformer)
    text = np.zeros(template.max_text_pieces, dtype=np.int64)
    codes = np.zeros(template.num_codes_per_image, dtype=np.int64)
    made = template.batch([(text, codes)] * case.batch)
    batches = SimpleNamespace(template=template, batch=lambda step: made)
    task = TransformerTask(transformer, batches, recipe.token_loss)
    stepper = Stepper(transformer, recipe.training, case.precision)
    for step in range(NUM_STEPS):
        for _ in range(case.num_micro_batches):
            with autocast(case.precision, CPU):
                loss, _ = task.loss(task.batch(step))
            stepper.backward(loss, 1 / case.num_micro_batches)
        stepper.step()


def _weights_of(case: Case) -> Path:
    """Write a file of weights as models have them, in another process, whose memory does not count."""
    path = Path(tempfile.mkdtemp()) / "model.safetensors"
    words = [sys.executable, __file__, "--write", json.dumps(asdict(case)), str(path)]
    subprocess.run(words, check=True)
    return path


def _write(case: Case, path: Path) -> None:
    torch.manual_seed(0)
    write_transformer(path, Transformer(case.recipe.transformer), torch.float16)


def command_bytes(words: Sequence[str]) -> tuple[float, float]:
    """Return what is foretold of a command that draws with the bundled model, and the peak of its process.

    Args:
        words: flags that `plan` and `generate` both have, the number of pictures first.
    """
    num, *flags = words
    program = [sys.executable, "-m", "cogview"]
    plan = [*program, "plan", "bundled", "--generate", "--json", "--batch", num, *flags]
    told = json.loads(subprocess.run(plan, capture_output=True, text=True, check=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        generate = [
            *program,
            "generate",
            TEXT,
            "--num-candidates",
            num,
            "--out",
            folder,
            "--device",
            "cpu",
            *flags,
        ]
        process = subprocess.Popen(generate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert not process.returncode, "the command has drawn"
    return told["generation"]["bytes"], usage.ru_maxrss * 1024


def _draw(case: Case) -> None:
    """Draw pictures for one text."""
    template, dtype = case.template, getattr(torch, case.precision)
    stored = StoredTransformer(_weights_of(case), case.recipe.transformer, CPU, dtype)
    runner = Runner.of(stored, dtype=dtype, max_batch=case.batch)
    pieces, config = [1] * template.max_text_pieces, SamplingConfig(top_p=0.8)
    draw(runner, [picture_request(runner, template, pieces, seed, config) for seed in range(case.batch)])


def main(*, quick: bool = False) -> None:
    """Foretell, measure, print a table and write it as JSON.

    Args:
        quick: one training and one drawing only, and nothing is written.
    """
    environment = describe(CPU)
    figures: list[dict[str, Any]] = []
    print("| work | foretold MiB | measured MiB | foretold / measured |\n|---|---|---|---|")
    for name, case in CASES.items():
        if quick and name not in QUICK:
            continue
        predicted, measured = predicted_bytes(case), measured_bytes(case)
        figures.append({"work": name, "predicted_bytes": predicted, "measured_bytes": measured})
        print(
            f"| {name} | {predicted / 2**20:,.0f} | {measured / 2**20:,.0f} | {predicted / measured:.3f} |",
            flush=True,
        )
    for words in () if quick else COMMANDS:
        predicted, measured = command_bytes(words)
        name = f"cogview generate --num-candidates {' '.join(words)}"
        figures.append({"work": name, "predicted_bytes": predicted, "measured_bytes": measured})
        print(
            f"| {name} | {predicted / 2**20:,.0f} | {measured / 2**20:,.0f} | {predicted / measured:.3f} |",
            flush=True,
        )
    if not quick:
        path = RESULTS / "plan.json"
        atomic_write_json(
            path,
            {"benchmark": "plan", "environment": environment, "num_steps": NUM_STEPS, "figures": figures},
        )
        print(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(measure(Case(**json.loads(sys.argv[2]))))
    elif sys.argv[1:2] == ["--write"]:
        _write(Case(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    else:
        tyro.cli(main)
