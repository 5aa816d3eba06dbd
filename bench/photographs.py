"""How many codes a pass photographs give: other pictures than the bundled model's flat icons.

    pip install scikit-image scikit-learn
    python bench/photographs.py WORK

WORK gets crops of the twelve photographs in those packages, their codes by the bundled image tokenizer, and a small
model trained on them for some minutes. Then one and sixteen pictures are drawn by windows of one and of chosen
width, with both samplers, and passes are counted. A second call goes on where the first one stopped.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.decoding.config import Sampler
from cogview.decoding.engine import Engine
from cogview.decoding.proposer import Proposer
from cogview.files import atomic_write_json
from cogview.generation.text_to_image import picture_request
from environment import RESULTS, describe

NAMES = (
    *("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "stereo_motorcycle"),
    *("brick", "grass", "gravel"),
)
SIDE = 128


def photographs() -> dict[str, Image.Image]:
    """Return photographs that two packages bring, by name."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = {}
    for name in NAMES:
        made = getattr(data, name)()
        found[name] = Image.fromarray(made[0] if isinstance(made, tuple) else made).convert("RGB")
    samples = load_sample_images()
    for name, pixels in zip(samples.filenames, samples.images, strict=True):
        found[Path(name).stem] = Image.fromarray(pixels)
    return found


def make_pictures(folder: Path, num: int, seed: int) -> None:
    """Write crops of random photographs, of random size and side, with the photograph's name as the text."""
    rng = np.random.default_rng(seed)
    every = photographs()
    folder.mkdir(parents=True)
    lines = []
    for number in range(num):
        name = sorted(every)[number % len(every)]
        image = every[name]
        side = int(rng.integers(SIDE, min(image.size) + 1))
        left, top = (int(rng.integers(extent - side + 1)) for extent in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop.save(folder / f"{number:05}.png")
        lines.append(json.dumps({"file_name": f"{number:05}.png", "texts": [name.replace("_", " ")]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(run: Path, batch: int, rounds: int, sampler: Sampler, top_p: float) -> dict[str, Any]:
    """Return passes and codes a pass of windows of one and of chosen width, after one round that is not counted."""
    pipe = cogview.load(run, device="cpu")
    runner, template = pipe.drawer(None)
    config = replace(pipe.sampling(), sampler=sampler, top_p=top_p)
    texts = sorted(photographs())
    passes = {}
    drawn = {}
    for window in (1, None):
        engine = Engine(runner.engine.weights, proposer=Proposer() if window is None else Proposer(window))
        for number in range(rounds + 1):
            before = engine.num_passes if number == 1 else 0
            requests = [
                picture_request(
                    runner,
                    template,
                    pipe.text_tokenizer.encode(texts[(number + each) % len(texts)].replace("_", " ")),
                    1000 * number + each,
                    config,
                )
                for each in range(batch)
            ]
            drawn[window, number] = [result.tokens for result in engine.run(requests)]  # type: ignore[union-attr]
            if number == 1:
                first = before
        passes[window] = (engine.num_passes - first) / rounds
    same = all(
        np.array_equal(one, other)
        for number in range(rounds + 1)
        for one, other in zip(drawn[1, number], drawn[None, number], strict=True)
    )
    return {
        "sampler": sampler,
        "top_p": top_p,
        "batch": batch,
        "passes": passes[None],
        "passes_one_by_one": passes[1],
        "codes_a_pass_and_picture": template.num_codes_per_image / passes[None],
        "same_codes": same,
    }


def main(
    work: tyro.conf.Positional[Path],
    *,
    num_pictures: int = 3000,
    num_steps: int = 1500,
    rounds: int = 4,
    seed: int = 0,
) -> None:
    """Make the pictures and the model, measure, print a table and write the figures as JSON.

    Args:
        work: a folder for pictures, tokens and the model.
        num_pictures: crops to train on.
        num_steps: of the training.
        rounds: repetitions.
        seed: of the crops.
    """
    if not (work / "pictures").is_dir():
        make_pictures(work / "pictures", num_pictures, seed)
    command = [sys.executable, "-c", "import sys; from cogview.cli.main import main; sys.exit(main())"]
    if not (work / "tokens").is_dir():
        words = [
            "tokenize",
            str(work / "pictures"),
            "--out",
            str(work / "tokens"),
            "--size-pixels",
            str(SIDE),
        ]
        subprocess.run([*command, *words], check=True)
    if not (work / "run" / "model").is_dir():
        words = [
            "train",
            "text-to-image",
            "bundled",
            "--data",
            str(work / "tokens"),
            "--out",
            str(work / "run"),
        ]
        words += ["--training.num-steps", str(num_steps)]
        words += ["--resume"] if (work / "run").is_dir() else []
        subprocess.run([*command, *words], check=True)
    figures = []
    print(
        "| sampler | top-p | batch | passes | codes a pass and picture | same codes |\n|---|---|---|---|---|---|"
    )
    samplers: tuple[Sampler, ...] = ("gumbel", "inversion")
    for batch in (1, 16):
        for top_p in (0.8, 1.0):
            for sampler in samplers:
                figure = measure(work / "run", batch, rounds, sampler, top_p)
                figures.append(figure)
                print(
                    f"| {sampler} | {top_p:g} | {batch} | {figure['passes']:.0f} "
                    f"| {figure['codes_a_pass_and_picture']:.1f} | {figure['same_codes']} |",
                    flush=True,
                )
    result = {
        "benchmark": "photographs",
        "environment": describe(torch.device("cpu")),
        "num_pictures": num_pictures,
        "num_steps": num_steps,
        "rounds": rounds,
        "figures": figures,
    }
    atomic_write_json(RESULTS / "photographs.json", result)


if __name__ == "__main__":
    tyro.cli(main)
