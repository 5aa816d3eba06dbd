"""Figure 2 of the paper: the four ways to train a codebook, on one architecture, data set and seed.

    python bench/codebooks.py --pictures PICTURES

PICTURES is a built default data set, for instance `cogview data build bundled-image-tokenizer --out PICTURES`. Each
codebook is trained twice: started in the encoder's outputs, and naively at random. A fifth, normalised, is beyond the
paper. Writes bench/results/codebooks.json and docs/images/codebooks.png. At the size of the defaults it takes under
20 minutes on 2 cores; `--num-codes 8192` and the like go further where a GPU is.

The loss is the squared error of normalised pixels, which means the same for all of them.
"""

import io
import math
import shutil
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
import tyro
from matplotlib.figure import Figure

from cogview.data.image_array import ImageArray
from cogview.evaluation.reconstruction import evaluate_reconstruction, in_batches
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.image.config import CodebookInitialisation, CodebookMethod, VQVAEConfig
from cogview.training.config import TrainingConfig
from cogview.training.image_tokenizer import ImageTokenizerTask
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from environment import RESULTS, describe

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "codebooks.png"
PAPERS = ("nearest_neighbour", "gumbel", "moving_average", "fixed")
HELD_OUT = "held-out-object"
NUM_HELD_OUT = 256
SHARE_AT_THE_END = 0.1  # of a run's steps: their mean loss is where it ends


@dataclass(frozen=True, kw_only=True)
class Size:
    """What all runs have in common."""

    size_pixels: int = 64
    config: VQVAEConfig = field(
        default_factory=lambda: VQVAEConfig(
            num_codes=1024,
            code_size=32,
            patch_size_pixels=2,
            encoder_channels=(96, 192),
            encoder_blocks=(0, 1),
            decoder_channels=(192, 96),
            decoder_blocks=(1, 0),
            pixel_mean=(0.6, 0.6, 0.6),
            pixel_std=(0.3, 0.3, 0.3),
            codebook_start_step=50,
            gumbel_annealing_steps=420,
        )
    )
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            num_steps=550,
            batch_size=32,
            learning_rate=1e-3,
            final_learning_rate_fraction=0.02,
            weight_decay=0.0,
            precision="auto",
            log_every_steps=10,
        )
    )


def run(
    size: Size, images: ImageArray, held_out: ImageArray, folder: Path, method: str, start: str
) -> dict[str, Any]:
    """Train one tokenizer and return its curve and where it ended."""
    config = replace(size.config, codebook=method, codebook_initialisation=start)
    if method == "normalised":
        config = replace(config, code_size=min(8, config.code_size))
    training = size.training
    task = ImageTokenizerTask(config, images, seed=training.seed, batch_size=training.batch_size)
    place = folder / f"{method}-{start}"
    summary = train(task, training, place, resume=(place / "config.json").exists())
    lines = read_metrics(place / "metrics.jsonl")
    last = [line for line in lines if line["step"] > (1 - SHARE_AT_THE_END) * training.num_steps]
    pixels = held_out.pixels[:NUM_HELD_OUT]
    return {
        "codebook": method,
        "initialisation": start,
        "seconds": summary.seconds,
        "final_loss": statistics.mean(line["l2"] for line in last),
        "held_out": evaluate_reconstruction(task.tokenizer(), in_batches(pixels)),
        "usage": last[-1]["usage"],
        "perplexity": last[-1]["perplexity"],
        "curve": [[line["step"], line["l2"]] for line in lines],
    }


def spread(runs: list[dict[str, Any]]) -> float:
    """Return how far the worst final loss lies above the best, as a share of the best."""
    finals = [each["final_loss"] for each in runs]
    return max(finals) / min(finals) - 1


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the curves: the paper's four started from data, and all by how they started."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {method: f"C{index}" for index, method in enumerate(get_args(CodebookMethod))}
    for each in runs:
        method, naive = each["codebook"], each["initialisation"] == "random"
        curve = list(zip(*each["curve"], strict=True))
        label = method.replace("_", " ")
        if not naive and method in PAPERS:
            left.plot(*curve, color=colours[method], label=label, linewidth=1.2)
        style = ":" if naive else "-"
        right.plot(
            *curve, style, color=colours[method], label=f"{label}, naive" if naive else label, linewidth=1.2
        )
    left.set_title("figure 2: started in the encoder's outputs")
    right.set_title("and started naively (dotted)")
    left.set_ylabel("squared error of normalised pixels")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100, format="png")
    atomic_write_bytes(path, picture.getvalue())


def main(
    size: tyro.conf.OmitArgPrefixes[Size],
    *,
    pictures: Path,
    work: Path = Path("out/codebooks"),
    out: str = "codebooks",
    picture: Path = PICTURE,
) -> None:
    """Train them all, in turns, and tell how far apart they end.

    Args:
        size: data size, architecture and training.
        pictures: a built default data set.
        work: the runs lie there; a second call goes on, and they are removed at the end.
        out: name of the result.
        picture: the PNG to draw.
    """
    environment = describe(torch.device("cpu" if not torch.cuda.is_available() else "cuda"))
    images = ImageArray.from_folder(pictures, size.size_pixels, "train")
    held_out = ImageArray.from_folder(pictures, size.size_pixels, HELD_OUT)
    runs = [
        run(size, images, held_out, work, method, start)
        for start in get_args(CodebookInitialisation)
        for method in get_args(CodebookMethod)
    ]
    by_start = {
        start: [each for each in runs if each["initialisation"] == start and each["codebook"] in PAPERS]
        for start in get_args(CodebookInitialisation)
    }
    figures = {
        "spread_of_the_papers_four": {start: spread(found) for start, found in by_start.items()},
        "initialisation_changes": {
            one["codebook"]: other["final_loss"] / one["final_loss"] - 1
            for one, other in zip(*by_start.values(), strict=True)
        },
        "runs": runs,
    }
    print("| codebook | start | final loss | held-out dB | usage | perplexity |\n|---|---|---|---|---|---|")
    for each in runs:
        print(
            f"| {each['codebook']} | {each['initialisation']} | {each['final_loss']:.4f} "
            f"| {each['held_out']['psnr_db']:.2f} | {each['usage']:.0%} | {each['perplexity']:.0f} |"
        )
    assert all(math.isfinite(each["final_loss"]) for each in runs)
    print(f"spread of the paper's four: {figures['spread_of_the_papers_four']}")
    draw(runs, picture)
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path, {"benchmark": "codebooks", "environment": environment, "size": repr(size), **figures}
    )
    for each in runs:  # and nothing else that may lie there
        shutil.rmtree(work / f"{each['codebook']}-{each['initialisation']}")
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
