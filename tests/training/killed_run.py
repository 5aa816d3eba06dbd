"""A run that is killed again and again: `python killed_run.py RUN_FOLDER NUM_KILLS` prints how often it was.

One process imports torch and forks the one that trains, since importing takes longer than the training. It kills
its child at a random moment, or the child kills itself in the middle of writing a file of a checkpoint.
"""

import math
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it at their first step
from tiny_task import TinyTask, tiny_config

from cogview.training import checkpoint, run_folder
from cogview.training.config import LossScaleConfig, TrainingConfig
from cogview.training.loop import train
from cogview.training.task import Batch

NUM_STEPS = 130


class HardTask(TinyTask):
    """Has a batch that cannot be learnt from, which the run goes back from and leaves out."""

    def batch(self, step: int) -> Batch:
        batch = dict(super().batch(step))
        if step == 41:
            batch["images"] = torch.full_like(batch["images"], math.nan)
        return batch


def config() -> TrainingConfig:
    """Return what has the most to come back: scale, masters, both optimizers' state, and what was left out."""
    return tiny_config(
        num_steps=NUM_STEPS,
        precision="bfloat16_o2",
        optimizer="muon",
        max_rollbacks=2,
        checkpoint_every_steps=2,
        loss_scale=LossScaleConfig(window=20),
    )


def die_while_writing(num_files: int) -> None:
    """Have this process killed when half of a file is written, after some whole ones."""
    write, left = checkpoint._write_durably, [num_files]

    def write_half(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] >= 0:
            write(path, data)
            return
        path.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoint._write_durably = write_half


def newest(folder: Path) -> str:
    """Return the name of the run's last checkpoint."""
    return max((path.name for path in checkpoint.list_checkpoints(folder / "checkpoints")), default="")


def main(folder: Path, num_kills: int) -> None:
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = sys.modules["matplotlib.figure"] = None  # slow to import
    run_folder.git_commit = lambda: None
    chance = random.Random(0)
    deaths = 0
    while True:
        # Each checkpoint has three files, so that half of the children get further, however slow the machine is.
        is_writing, num_files, seconds = (
            chance.random() < 0.5,
            chance.randrange(3, 9),
            chance.uniform(0.0, 0.2),
        )
        is_patient = chance.random() < 0.5
        child = os.fork()
        if child == 0:
            try:
                if deaths < num_kills and is_writing:
                    die_while_writing(num_files)
                train(
                    HardTask(delay_seconds=0.02 if deaths < num_kills else 0.0),
                    config(),
                    folder,
                    resume=(folder / "config.json").exists(),
                )
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        if deaths < num_kills and not is_writing:
            before = newest(folder)
            deadline = time.monotonic() + 60  # if the child has ended by itself
            while is_patient and newest(folder) == before and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(seconds / 2 if is_patient else seconds)
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -signal.SIGKILL:
            print(deaths)
            raise SystemExit(code)
        deaths += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
