"""Does sparse attention learn as well? Dense and three-region attention on the same tokens, at the same seed.

    python bench/sparse_curves.py --tokens TOKENS --held-out HELD_OUT   # half an hour on 2 cores

TOKENS and HELD_OUT are what `cogview tokenize` makes of two splits of the default data. The paper (appendix B) calls
the loss curves nearly identical. A third run, dense again at another seed, tells what is chance.

The regions are small, since the sequences are: of 300 tokens a query at the end sees 96 of text and pivots and at most
64 of the window. Writes bench/results/sparse-curves.json and docs/images/sparse-curves.png.
"""

import io
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure

from cogview.data.loader import TokenBatches
from cogview.data.shards import TokenShards
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.recipes import text_to_image
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.training.config import TrainingConfig
from cogview.training.loop import train
from cogview.training.metrics import read_metrics
from cogview.training.transformer import TransformerTask, evaluate_losses
from cogview.transformer.config import AttentionPattern, ThreeRegionConfig
from cogview.transformer.initialisation import start_branches, start_positions
from cogview.transformer.model import Transformer
from cogview.transformer.three_region import regions_for
from environment import RESULTS, describe

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "sparse-curves.png"
RUNS: dict[str, tuple[AttentionPattern, int]] = {
    "dense": ("dense", 0),
    "sparse": ("three_region", 0),
    "dense, another seed": ("dense", 1),
}
SHARE_AT_THE_END = 0.1  # of a run's steps: their mean loss is where it ends
REGIONS = ThreeRegionConfig(block_tokens=32, key_window_blocks=2, num_text_and_pivot_tokens=96)


def run(
    shards: TokenShards,
    held_out: TokenShards,
    training: TrainingConfig,
    pattern: AttentionPattern,
    folder: Path,
    num_held_out: int,
) -> dict[str, Any]:
    """Train one transformer of the recipe `fashion-small` and return its curve and where it ended."""
    recipe = text_to_image.fashion_small()
    template = TextToImageTemplate(
        vocabulary=Vocabulary(num_image_codes=shards.num_codes, num_text_pieces=shards.num_pieces),
        grid_rows=shards.grid[0],
        grid_columns=shards.grid[1],
        max_text_pieces=recipe.max_text_pieces,
        image_positions=recipe.image_positions,
    )
    config = replace(
        recipe.transformer,
        vocabulary_size=template.vocabulary.size,
        num_positions=template.num_positions,
        attention_pattern=pattern,
        three_region=regions_for(template, REGIONS),
    )
    torch.manual_seed(training.seed)
    transformer = Transformer(config)
    start_branches(transformer, recipe.initialisation.branch_gain)
    start_positions(transformer, template.code_positions(0), template.grid_rows, template.grid_columns)
    batches = TokenBatches(shards, template, training.seed, training.batch_size)
    task = TransformerTask(transformer, batches, recipe.token_loss)
    summary = train(task, training, folder, resume=(folder / "config.json").exists())
    lines = read_metrics(folder / "metrics.jsonl")
    last = [line for line in lines if line["step"] > (1 - SHARE_AT_THE_END) * training.num_steps]
    pairs = [(held_out.pieces(index, 0), held_out.codes(index)) for index in range(num_held_out)]
    return {
        "seconds": summary.seconds,
        "final_image_loss_nats": statistics.mean(line["image_loss_nats"] for line in last),
        "held_out": evaluate_losses(transformer.eval(), template, pairs, config=recipe.token_loss),
        "curve": [[line["step"], line["image_loss_nats"]] for line in lines],
    }


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the mean distance of two curves after their first tenth, as a share of the first one."""
    pairs = list(zip(one["curve"], other["curve"], strict=True))
    later = pairs[len(pairs) // 10 :]
    return statistics.mean(abs(b[1] - a[1]) / a[1] for a, b in later)


def draw(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the curves."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for name, each in runs.items():
        axes.plot(*zip(*each["curve"], strict=True), label=name, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("image loss, nats a code")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100, format="png")
    atomic_write_bytes(path, picture.getvalue())


def main(
    *,
    tokens: Path,
    held_out: Path,
    num_steps: int = 400,
    num_held_out: int = 200,
    work: Path = Path("out/sparse-curves"),
    out: str = "sparse-curves",
    picture: Path = PICTURE,
) -> None:
    """Train all three, and tell how far apart the curves lie.

    Args:
        tokens: what is learnt from.
        held_out: what is measured on; its first pictures.
        num_steps: of each run, of 8 sequences.
        num_held_out: pictures that it should hold; fewer are refused.
        work: the runs lie there; a second call goes on, and they are removed at the end.
        out: name of the result.
        picture: the PNG to draw.
    """
    environment = describe(torch.device("cpu" if not torch.cuda.is_available() else "cuda"))
    shards, unseen = TokenShards(tokens), TokenShards(held_out)
    if len(unseen) < num_held_out:
        raise SystemExit(f"{held_out} holds {len(unseen)} pictures, not {num_held_out}")
    training = replace(
        text_to_image.fashion_small().training, num_steps=num_steps, log_every_steps=10, sample_every_steps=0
    )
    folders = {name: work / name.replace(", ", "-").replace(" ", "-") for name in RUNS}
    runs = {
        name: run(shards, unseen, replace(training, seed=seed), pattern, folders[name], num_held_out)
        for name, (pattern, seed) in RUNS.items()
    }
    distances = {name: apart(runs["dense"], runs[name]) for name in RUNS if name != "dense"}
    print(
        "| attention | image loss at the end | held-out image loss | curve apart from dense |\n|---|---|---|---|"
    )
    for name, each in runs.items():
        distance = format(distances[name], ".1%") if name in distances else "-"
        held_out_loss = each["held_out"]["image_loss_nats"]
        print(f"| {name} | {each['final_image_loss_nats']:.3f} | {held_out_loss:.3f} | {distance} |")
    draw(runs, picture)
    path = RESULTS / f"{out}.json"
    result = {"benchmark": "sparse_curves", "environment": environment, "training": repr(training)}
    atomic_write_json(path, result | {"regions": vars(REGIONS), "apart": distances, "runs": runs})
    for folder in folders.values():
        shutil.rmtree(folder)
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
