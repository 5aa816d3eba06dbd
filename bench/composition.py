"""Do drawn pictures show what their captions ask for? Counted over held-out compositions, for several ways to sample.

    python bench/composition.py --model RUN/model --pictures PICTURES

PICTURES is a built default data set. How a picture is read, `cogview.evaluation.composition` says; `cogview evaluate
composition` measures one way to sample, by style as well, and this several of them in one run. The reader is given the
true scenes first, as the image tokenizer redraws them: under their own captions, which should all be right, and under
another scene's, which should hardly ever be. Writes bench/results/composition.json.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.evaluation.composition import (
    SPLIT,
    AskedScene,
    asked_scenes,
    judge,
    reconstruct,
)
from cogview.evaluation.scene_reader import SceneReader, SceneReading
from cogview.files import atomic_write_json
from cogview.generation.pipeline import Pipeline
from environment import RESULTS, describe

QUALITIES = ("number", "objects", "ground", "relation", "colour", "size")
SETTINGS = (
    (1.0, 1.0, 1.0),
    (1.0, 0.9, 1.0),
    (1.0, 0.9, 1.5),
    (1.0, 0.9, 2.0),
    (1.0, 0.9, 3.0),
    (1.0, 1.0, 2.0),
)
"""(temperature, top-p, guidance)."""


def shares(requests: Sequence[AskedScene], shown: Sequence[SceneReading]) -> dict[str, float]:
    """Return how often each thing is right among the pictures that were asked for it, if any was."""
    verdicts = [judge(asked, scene, QUALITIES) for asked, scene in zip(requests, shown, strict=True)]
    values = {name: [v[name] for v in verdicts if v[name] is not None] for name in verdicts[0]}
    return {name: float(np.mean(each)) for name, each in values.items() if each}


def drawn(
    pipe: Pipeline, requests: list[AskedScene], temperature: float, top_p: float, guidance: float, seed: int
) -> list[Image.Image]:
    texts = [request.text for request in requests]
    rows = pipe.generate(texts, 1, seed=seed, temperature=temperature, top_p=top_p, guidance=guidance)
    return [pipe.model.decoder.decode(row[0].codes) for row in rows]


def main(
    *,
    model: Path | None = None,
    pictures: Path,
    num_captions: int = 200,
    settings: tuple[tuple[float, float, float], ...] = SETTINGS,
    seed: int = 0,
    out: str = "composition",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        model: a model or a run; the bundled one by default.
        pictures: a built default data set.
        num_captions: held-out captions, each drawn once in every way to sample.
        settings: temperature, top-p and guidance, for each way to sample.
        seed: of the pictures.
        out: name of the result.
    """
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    environment = describe(torch.device("cpu"))
    requests = asked_scenes(pictures, num_captions)
    reader = SceneReader(pictures, pipe.template.grid_rows * pipe.image_tokenizer.downsampling_factor)
    files = [reader.picture(pictures, request.file_name) for request in requests]
    true = reader.read_all(reconstruct(pipe.image_tokenizer, picture) for picture in files)
    rows = {
        "true scenes": shares(requests, true),
        "true scenes, another's caption": shares(requests[1:] + requests[:1], true),
    }
    print_row("", dict.fromkeys(rows["true scenes"]))
    for name in rows:
        print_row(name, rows[name])
    for temperature, top_p, guidance in settings:
        images = drawn(pipe, requests, temperature, top_p, guidance, seed)
        name = f"temperature {temperature:g}, top-p {top_p:g}, guidance {guidance:g}"
        rows[name] = shares(requests, reader.read_all(map(np.asarray, images)))
        print_row(name, rows[name])
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "composition",
            "environment": environment,
            "split": SPLIT,
            "num_captions": len(requests),
            "seed": seed,
            "shares": rows,
        },
    )
    print(path)


def print_row(name: str, row: dict[str, Any]) -> None:
    cells = (each if value is None else f"{value:.0%}" for each, value in row.items())
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
