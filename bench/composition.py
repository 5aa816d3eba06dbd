"""Do drawn pictures show what their captions ask for? Counted over held-out compositions, for several ways to sample.

    python bench/composition.py --model RUN/model --pictures PICTURES

PICTURES is a built default data set. A picture is read by comparing every place of the lattice with every object of
the world on the picture's ground: what explains most of what stands there is what stands there, if it explains enough.
The reader is given the true scenes first, as the image tokenizer redraws them: under their own captions, which should
all be right, and under another scene's, which should hardly ever be. Writes bench/results/composition.json.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import cogview
from cogview.data.scenes import LATTICE_CELLS, SMALL_CELLS, Placement, Scene, relation_of
from cogview.data.world import GROUNDS, scene_objects
from cogview.evaluation.icon_judge import ground_of
from cogview.files import atomic_write_json
from cogview.generation.pipeline import Pipeline
from cogview.image.pixels import image_to_array, read_image, tensor_to_images
from environment import RESULTS, describe

SPLIT = "held-out-composition"
LEAST_EXPLAINED = 0.6  # of the squared difference from bare ground
RELATION_WORDS = re.compile(
    r"\b(left|right|above|below|under|over|beneath|top|bottom)\b|[左右][边侧面]|[上下][面方边]", re.IGNORECASE
)
SETTINGS = (
    (1.0, 1.0, 1.0),
    (1.0, 0.9, 1.0),
    (1.0, 0.9, 1.5),
    (1.0, 0.9, 2.0),
    (1.0, 0.9, 3.0),
    (1.0, 1.0, 2.0),
)
"""(temperature, top-p, guidance)."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A caption, and the scene that it was written for."""

    text: str
    scene: Scene
    file_name: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a picture shows."""

    ground: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What the world's objects look like on one ground, in each style, and their codes."""

    pixels: np.ndarray
    codes: list[str]


class Reader:
    """Reads which objects stand where in a picture.

    Args:
        folder: a built data set, whose training pictures show what each object looks like.
        size_pixels: side of its pictures.
    """

    def __init__(self, folder: Path, size_pixels: int) -> None:
        self.cell = size_pixels // LATTICE_CELLS
        found: dict[str, dict[tuple[str, str], np.ndarray]] = {ground: {} for ground in GROUNDS}
        for entry in entries_of(folder, "train"):
            scene = Scene.from_json(entry["scene"])
            for placement in scene.placements:
                look = (placement.code, scene.style)
                if placement.size == SMALL_CELLS and look not in found[scene.ground]:
                    picture = np.asarray(read_image(folder / entry["file_name"]), dtype=np.float32)
                    found[scene.ground][look] = self._window(picture, placement.column, placement.row)
        self.looks = {
            ground: Looks(pixels=np.stack([*looks.values()]), codes=[code for code, _ in looks])
            for ground, looks in found.items()
        }

    def _window(self, picture: np.ndarray, column: int, row: int) -> np.ndarray:
        top, left, side = row * self.cell, column * self.cell, SMALL_CELLS * self.cell
        window = picture[top : top + side, left : left + side]
        return window[::2, ::2].ravel()  # half the resolution is plenty

    def read(self, picture: np.ndarray) -> Shown:
        """Return what a picture [y x c] shows, the ground by its four edges."""
        picture = picture.astype(np.float32)
        ground = ground_of(picture)
        looks = self.looks[ground]
        bare = np.tile(np.float32(GROUNDS[ground].rgb), len(looks.pixels[0]) // 3)
        side = LATTICE_CELLS - SMALL_CELLS + 1
        places = [(column, row) for row in range(side) for column in range(side)]
        windows = np.stack([self._window(picture, *place) for place in places]) - bare
        known = looks.pixels - bare
        difference = (windows**2).sum(1)[:, None] - 2 * windows @ known.T + (known**2).sum(1)
        explained = 1 - difference / (known**2).sum(1)
        placements: list[Placement] = []
        for flat in np.argsort(-explained, axis=None):
            place, look = np.unravel_index(flat, explained.shape)
            column, row = places[place]
            if explained[place, look] < LEAST_EXPLAINED:
                break
            if all(max(abs(column - p.column), abs(row - p.row)) >= SMALL_CELLS for p in placements):
                code = looks.codes[look]
                placements.append(Placement(code=code, column=column, row=row, size=SMALL_CELLS))
        return Shown(ground=ground, placements=tuple(placements))


def entries_of(folder: Path, split: str) -> list[dict[str, Any]]:
    with (folder / "metadata.jsonl").open(encoding="utf-8") as lines:
        return [entry for entry in map(json.loads, lines) if entry["split"] == split]


def requests_of(folder: Path, num: int) -> list[Request]:
    """Return the first pictures with a caption each, Chinese and English by turns, that names the ground."""
    requests = []
    for entry in entries_of(folder, SPLIT):
        scene = Scene.from_json(entry["scene"])
        half = len(entry["texts"]) // 2
        texts = entry["texts"][:half] if len(requests) % 2 else entry["texts"][half:]
        ground = GROUNDS[scene.ground]
        named = [text for text in texts if any(name in text for name in ground.english + ground.chinese)]
        if named and len(requests) < num:
            requests.append(Request(text=named[0], scene=scene, file_name=entry["file_name"]))
    return requests


def form_of(text: str, scene: Scene) -> str:
    """Return a caption with an X for each name of its things, since "top hat" is no relation."""
    names = {name for p in scene.placements for name in names_of(p.code)}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(re.escape(name), "X", text, flags=re.IGNORECASE)
    return re.sub(r"\ban? X", "a X", text, flags=re.IGNORECASE)


def names_of(code: str) -> tuple[str, ...]:
    thing = scene_objects()[code]
    return (*thing.singular, *thing.plural, *thing.chinese)


def judge(asked: Request, shown: Shown) -> dict[str, float | None]:
    """Return what is right, 0 or 1, with the share of the objects asked for; None where nothing was asked."""
    wanted, seen = (Counter(p.code for p in scene.placements) for scene in (asked.scene, shown))
    objects = wanted == seen
    relation = None
    if asked.scene.kind == "relation" and RELATION_WORDS.search(form_of(asked.text, asked.scene)):
        by_code = {p.code: p for p in shown.placements}
        pair = [by_code.get(p.code) for p in asked.scene.placements]
        first, second = asked.scene.placements
        relation = float(
            None not in pair and set(relation_of(first, second)) <= set(relation_of(pair[0], pair[1]))  # type: ignore[arg-type]
        )
    ground = shown.ground == asked.scene.ground
    return {
        "objects_found": (wanted & seen).total() / wanted.total(),
        "number": float(wanted.total() == seen.total()),
        "objects": float(objects),
        "ground": float(ground),
        "relation": relation,
        "all": float(objects and ground and relation in (None, 1.0)),
    }


def shares(requests: list[Request], shown: list[Shown]) -> dict[str, float]:
    """Return how often each thing is right among the pictures that were asked for it."""
    verdicts = [judge(asked, scene) for asked, scene in zip(requests, shown, strict=True)]
    return {name: float(np.mean([v[name] for v in verdicts if v[name] is not None])) for name in verdicts[0]}


def redrawn(pipe: Pipeline, folder: Path, requests: list[Request]) -> list[np.ndarray]:
    """Return the true scenes as the image tokenizer sees them."""
    pictures = []
    for request in requests:
        pixels = torch.from_numpy(image_to_array(read_image(folder / request.file_name)))[None]
        pictures += tensor_to_images(pipe.image_tokenizer.decode(pipe.image_tokenizer.encode(pixels)))
    return [np.asarray(picture) for picture in pictures]


def drawn(
    pipe: Pipeline, requests: list[Request], temperature: float, top_p: float, guidance: float, seed: int
) -> list[Image.Image]:
    texts = [request.text for request in requests]
    rows = pipe.generate(texts, 1, seed=seed, temperature=temperature, top_p=top_p, guidance=guidance)
    return [row[0].image for row in rows]


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
    requests = requests_of(pictures, num_captions)
    reader = Reader(pictures, pipe.template.grid_rows * pipe.image_tokenizer.downsampling_factor)
    true = [reader.read(picture) for picture in redrawn(pipe, pictures, requests)]
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
        rows[name] = shares(requests, [reader.read(np.asarray(image)) for image in images])
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
