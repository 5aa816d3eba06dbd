"""What tests of many devices run in four processes: `python devices_program.py FOLDER`.

The four train together first, then as two pairs. Each writes what happened to it as `rank-N.json`, and what it says
to `rank-N.log`. One process imports torch and forks them, since importing takes longer than the training.
"""

import errno
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # optimizers import it at their first step
from safetensors.torch import save_file
from torch import distributed

from cogview.data.loader import TokenBatches
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.sequence.vocabulary import Vocabulary
from cogview.training import shards
from cogview.training.config import LossScaleConfig, TokenLossConfig, TrainingConfig
from cogview.training.loop import train
from cogview.training.task import Batch, Metrics, Scalars
from cogview.training.transformer import TransformerTask
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=12, num_text_pieces=20),
    grid_rows=2,
    grid_columns=3,
    max_text_pieces=5,
)
BATCH_SIZE = 8
HALVES = {"num_steps": 4, "precision": "float16_o2", "loss_scale": LossScaleConfig(initial=64.0)}

SPANS = {"log_every_steps": 4}  # a line holds steps from before and after a checkpoint
SKIPS = {**HALVES, "num_steps": 6, "log_every_steps": 6, "checkpoint_every_steps": 1}


class Crash(Exception):
    """Stands for whatever ends all processes without asking them."""


class RandomBatches(TokenBatches):
    """Texts of different lengths, so that rows count differently."""

    def __init__(self) -> None:
        self.template = TEMPLATE

    def batch(self, step: int) -> TokenBatch:
        random = np.random.default_rng(step)
        lengths = random.integers(1, 6, BATCH_SIZE)
        return TEMPLATE.batch(
            [(random.integers(0, 20, n).tolist(), random.integers(0, 12, (2, 3))) for n in lengths]
        )


def transformer(num_heads: int = 4) -> Transformer:
    torch.manual_seed(0)
    return Transformer(
        TransformerConfig(
            num_layers=2,
            hidden_size=32,
            num_heads=num_heads,
            vocabulary_size=TEMPLATE.vocabulary.size,
            num_positions=TEMPLATE.num_positions,
        )
    )


class DeviceTask(TransformerTask):
    """A tiny transformer; calls a function after each step, and once has no finite loss, after `breaks_at` steps."""

    def __init__(self, after: Callable[[int], None] = lambda step: None, num_heads: int = 4) -> None:
        super().__init__(transformer(num_heads), RandomBatches(), TokenLossConfig())
        self._after = after
        self.breaks_at, self.is_broken = -1, False

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        loss, metrics = super().loss(batch)
        if self.is_broken:
            self.is_broken = False
            return loss * math.nan, metrics
        return loss, metrics

    def after_step(self, step: int) -> Scalars:
        self._after(step)
        if step + 1 == self.breaks_at:
            self.breaks_at, self.is_broken = -1, True
        return {}


def crash_at(crashing_step: int) -> Callable[[int], None]:
    def crash(step: int) -> None:
        if step == crashing_step:
            raise Crash

    return crash


def config_of(**changes: object) -> TrainingConfig:
    """Return a config of 8 steps that logs each, with checkpoints after 3, 6 and 8."""
    values = {
        "num_steps": 8,
        "batch_size": BATCH_SIZE,
        "learning_rate": 1e-2,
        # Key biases shift all scores of a query alike, so their gradients are rounding and nothing else. An epsilon
        # above that keeps AdamW from making steps of it, which largest scores would show.
        "epsilon": 1e-6,
        "gradient_clip": 0.5,
        "log_every_steps": 1,
        "checkpoint_every_steps": 3,
        "keep_checkpoints": 9,
        "device": "cpu",
        **changes,
    }
    return TrainingConfig(**values)


def start(
    folder: Path, after: Callable[[int], None] = lambda step: None, resume: bool = False, **changes: object
) -> str:
    """Train, export the weights, and return how it ended."""
    whole = transformer()
    num_heads, breaks_at = int(changes.pop("num_heads", 4)), int(changes.pop("breaks_at", -1))

    def export(into: Path) -> None:
        save_file(dict(whole.state_dict()), into / "weights.safetensors")

    def sample(completed_steps: int) -> None:
        save_file(dict(whole.state_dict()), folder / f"sample-{completed_steps}.safetensors")

    try:
        task = DeviceTask(after, num_heads)
        task.breaks_at, task.is_broken = breaks_at, breaks_at == 0
        train(task, config_of(**changes), folder, resume=resume, export=export, sample=sample, whole=whole)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def four(folder: Path) -> dict[str, str]:
    """Train all together, in each way to share."""
    return {
        "sharded": start(folder / "sharded", crash_at(7), num_micro_batches=2, activation_checkpointing=True),
        "grid": start(folder / "grid", tensor_parallel=2, optimizer="muon"),
        "replicas": start(folder / "replicas", num_steps=4, shard_over=2),
        "spans": start(folder / "spans", crash_at(7), tensor_parallel=2, **SPANS),
        "batch": start(folder / "batch", num_micro_batches=4),
        "heads": start(folder / "heads", num_heads=2, tensor_parallel=4),
        "again": start(folder / "grid", tensor_parallel=2, optimizer="muon"),
        "other": start(folder / "grid", resume=True, tensor_parallel=2, optimizer="adamw"),
    }


def first_pair(folder: Path) -> dict[str, str]:
    """Go on with what four began, with heads shared."""
    return {
        "sharded": start(folder / "sharded", resume=True, num_micro_batches=2, tensor_parallel=2),
        "spans": start(folder / "spans", resume=True, tensor_parallel=2, **SPANS),
    }


def second_pair(folder: Path) -> dict[str, str]:
    """Go on with what one began; be told to stop; be without a disk."""
    rank = int(os.environ["RANK"])

    def stop(step: int) -> None:
        if step == 4 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def fill_disk(step: int) -> None:
        def full_disk(path: Path) -> str:
            raise OSError(errno.ENOSPC, "No space left on device")

        shards.sha256_of = full_disk if rank == 1 and step < 5 else real_digest

    real_digest = shards.sha256_of
    return {
        "alone": start(folder / "alone", resume=True, optimizer="muon"),
        "stopped": start(folder / "stopped", stop),
        "full": start(folder / "full", fill_disk, num_steps=6),
        "halves": start(folder / "halves", **HALVES),
        "skipped": start(folder / "skipped", crash_at(3), **SKIPS),
        "skipped again": start(folder / "skipped", resume=True, breaks_at=0 if rank == 1 else -1, **SKIPS),
        "broken": start(folder / "broken", breaks_at=4 if rank == 1 else -1, max_rollbacks=1),
    }


def meet(place: Path, rank: int, num_processes: int) -> None:
    """Join the others by a file, since another test may take any free port first."""
    distributed.init_process_group(
        "gloo", init_method=place.absolute().as_uri(), rank=rank, world_size=num_processes
    )


def main(folder: Path) -> None:
    """Do all that is this process's."""
    rank = int(os.environ["RANK"])
    meet(folder / "four", rank, 4)
    results = four(folder)
    distributed.destroy_process_group()
    os.environ.update(RANK=str(rank % 2), WORLD_SIZE="2")
    meet(folder / f"pair-{rank // 2}", rank % 2, 2)
    results |= {f"pair {name}": value for name, value in (first_pair, second_pair)[rank // 2](folder).items()}
    distributed.destroy_process_group()
    (folder / f"rank-{rank}.json").write_text(json.dumps(results))


def fork(folder: Path, rank: int) -> int:
    """Begin a process as torchrun would, and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        with (folder / f"rank-{rank}.log").open("w") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 4}
        os.environ.update({name: str(value) for name, value in names.items()})
        main(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = sys.modules["matplotlib.figure"] = None  # slow to import
    children = {fork(Path(sys.argv[1]), rank) for rank in range(4)}
    while children:
        ended, status = os.wait()
        children.discard(ended)
        if status:  # the others would wait for it
            for child in children:
                os.kill(child, signal.SIGKILL)
            raise SystemExit(1)
