"""What int8 weights and native kernels cost in quality: CapLoss and composition, beside those of packed fp32.

    python bench/quantized.py --pictures PICTURES                        # 24 captions, some minutes on 2 cores
    python bench/quantized.py --pictures PICTURES --num-captions 500     # the full run

PICTURES is a built default data set. Both draw a picture of each held-out caption from the same seed. How a picture is
read, `cogview.evaluation.composition` says. CapLoss, in nats per piece, is told three times: of the drawn pictures, as
the captioner in fp32 judges them, which is the quality of what is drawn; and of the true pictures, as each kind's own
captioner judges them. Writes bench/results/quantized.json.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import cogview
from cogview.evaluation.composition import SPLIT, asked_scenes
from cogview.evaluation.scene_reader import SceneReader
from cogview.files import atomic_write_json
from composition import shares
from environment import RESULTS, describe


def main(
    *,
    pictures: Path,
    model: Path | None = None,
    num_captions: int = 24,
    seed: int = 0,
    kinds: tuple[str, ...] = ("float32", "float32 native", "int8", "int8 native"),
    out: str = "quantized",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        pictures: a built default data set.
        model: a model with a captioner; the bundled one by default.
        num_captions: held-out captions, each drawn once.
        seed: of the pictures.
        kinds: dtypes to be compared, some with native kernels; the captioner of the first judges what all draw.
        out: name of the result.
    """
    environment = describe(torch.device("cpu"))
    pipes = {}
    for kind in kinds:
        dtype, _, kernels = kind.partition(" ")
        pipes[kind] = cogview.load(model, device="cpu", dtype=dtype, kernels=kernels or "auto")
    judge = pipes[kinds[0]]
    most = (
        judge.template.max_text_pieces
    )  # longer texts are clipped where they are drawn, and have no CapLoss
    requests = [
        each for each in asked_scenes(pictures) if len(judge.text_tokenizer.encode(each.text)) <= most
    ]
    requests = requests[:num_captions]
    texts = [request.text for request in requests]
    tokenizer = judge.image_tokenizer
    side = judge.template.grid_rows * tokenizer.downsampling_factor
    reader = SceneReader(pictures, side)
    files = [pictures / request.file_name for request in requests]
    rows: dict[str, dict[str, Any]] = {}
    first_codes: torch.Tensor | None = None
    for kind, pipe in pipes.items():
        true_losses = pipe.caption_loss(files, texts)
        started = time.perf_counter()
        codes = pipe.generate_codes(texts, 1, seed=seed)[:, 0]
        seconds = time.perf_counter() - started
        first_codes = codes if first_codes is None else first_codes
        images = [pipe.model.decoder.decode(each) for each in codes]
        rows[kind] = {
            **shares(requests, reader.read_all(map(np.asarray, images))),
            "CapLoss of what is drawn": float(np.mean(judge.caption_loss(list(codes), texts))),
            "CapLoss of true pictures": float(np.mean(true_losses)),
            "codes as in the first": float((codes == first_codes).double().mean()),
            "seconds": seconds,
        }
    names = list(next(iter(rows.values())))
    print("| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for kind, row in rows.items():
        cells = (
            f"{value:.3f}" if "CapLoss" in name else f"{value:.1f}" if name == "seconds" else f"{value:.0%}"
            for name, value in row.items()
        )
        print(f"| {kind} | " + " | ".join(cells) + " |")
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "quantized",
            "environment": environment,
            "split": SPLIT,
            "num_captions": len(requests),
            "seed": seed,
            "rows": rows,
        },
    )
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
