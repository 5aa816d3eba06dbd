"""Does a model know which of two things a caption puts where? True captions against the same with the things swapped.

    python bench/binding.py --model RUN/model --pictures PICTURES

PICTURES is a built default data set. For held-out pictures of two things in a relation, the codes' loss is measured
after the true caption and after the same sentence with the two things' names exchanged, which is wrong and has the same
words. A model that reads captions as bags of words finds both equally likely. A drawn picture needs luck as well as
knowledge; this needs knowledge alone, so it shows after minutes whether a run learns what it should. Writes
bench/results/binding.json.
"""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro

import cogview
from cogview.evaluation.composition import RELATION_WORDS, SPLIT, entries_of, form_of
from cogview.files import atomic_write_json
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.image.pixels import image_to_array
from cogview.sequence.template import Codes, Pieces
from cogview.training.transformer import evaluate_losses
from cogview.world.captions import captions
from cogview.world.config import Language
from cogview.world.scenes import Scene
from environment import RESULTS, describe


def swapped(scene: Scene) -> Scene:
    """Return a scene whose two things have changed places."""
    first, second = scene.placements
    there, here = (
        replace(first, code=second.code, colour=second.colour),
        replace(second, code=first.code, colour=first.colour),
    )
    return replace(scene, placements=(there, here))


def caption_pair(scene: Scene, language: Language, seed: str) -> tuple[str, str]:
    """Return a true caption that tells a relation, and the same words with the things exchanged."""
    other = swapped(scene)
    for number in range(1000):
        true, wrong = (
            captions(each, random.Random(f"{seed}/{number}"), 1, language)[0] for each in (scene, other)
        )
        form = form_of(true, scene)
        same_words = words_of(true) == words_of(wrong) and form == form_of(wrong, scene)
        if same_words and true != wrong and RELATION_WORDS.search(form):
            return true, wrong
    raise AssertionError("no pair of captions in 1,000 attempts")


def words_of(text: str) -> list[str]:
    """Return the words of an English text, or the characters of a Chinese one, in no order and without articles."""
    words = re.findall(r"[a-z]+|[\u4e00-\u9fff]", text.lower())
    return sorted(word for word in words if word not in ("a", "an"))


def picture_nats(pipe: Pipeline, pairs: list[tuple[Pieces, Codes]]) -> np.ndarray:
    """Return what each picture's codes cost after its text, in nats."""
    num_codes = pipe.template.num_codes_per_image
    return np.array(
        [
            evaluate_losses(pipe.transformer, pipe.template, [pair])["image_loss_nats"] * num_codes
            for pair in pairs
        ]
    )


def main(*, model: Path | None = None, pictures: Path, num_pictures: int = 200, out: str = "binding") -> None:
    """Measure, print and write the figures as JSON.

    Args:
        model: a model or a run; the bundled one by default.
        pictures: a built default data set.
        num_pictures: held-out pictures of two things in a relation.
        out: name of the result; nothing is written if empty.
    """
    pipe = cogview.load(model, device="cpu", dtype=torch.float32)
    pipe.transformer.eval()
    true: list[tuple[Pieces, Codes]] = []
    wrong: list[tuple[Pieces, Codes]] = []
    for entry in entries_of(pictures, SPLIT):
        scene = Scene.from_json(entry["scene"])
        if scene.kind != "relation" or len(true) == num_pictures:
            continue
        language: Language = "zh" if len(true) % 2 else "en"
        texts = caption_pair(scene, language, entry["file_name"])
        pixels = torch.from_numpy(image_to_array(read_image(pictures / entry["file_name"])))[None]
        codes = pipe.image_tokenizer.encode(pixels)[0].numpy()
        for pairs, text in zip((true, wrong), texts, strict=True):
            pairs.append((np.asarray(pipe.text_tokenizer.encode(text)), codes))
    nats, wrong_nats = picture_nats(pipe, true), picture_nats(pipe, wrong)
    figures = {
        "nats_a_picture": float(nats.mean()),
        "more_nats_with_the_things_swapped": float((wrong_nats - nats).mean()),
        "true_caption_preferred": float((wrong_nats > nats).mean()),
    }
    print(
        f"{len(true)} pictures: {figures['nats_a_picture']:.1f} nats a picture, with the things swapped "
        f"{figures['more_nats_with_the_things_swapped']:+.1f}; the true caption is preferred in "
        f"{figures['true_caption_preferred']:.0%}"
    )
    if out:
        path = RESULTS / f"{out}.json"
        environment = describe(torch.device("cpu"))
        atomic_write_json(
            path,
            {
                "benchmark": "binding",
                "environment": environment,
                "num_pictures": len(true),
                "figures": figures,
            },
        )
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
