"""What the bundled model is told to know, and how often it says that something is out of its world.

    python bench/out_of_world.py --write
    python bench/out_of_world.py [--pictures FOLDER ...]

The first writes into the bundled model's folder what its own data say: the words of its training captions, likewise
those of its adapters (words.json in each folder), that it reads words in their usual spelling (text_case in its
config.json), and what its image tokenizer keeps of held-out pictures (held_out in image_tokenizer/config.json). No
weight changes. `cogview tokenize` and `cogview train` do the same for new models.

The second counts what is told of: captions and held-out pictures of its world, pictures in a style that the tokenizer
has never seen, and the pictures of each FOLDER, searched for .png and .jpg. It writes results/out_of_world.json.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cogview.files import atomic_write_json
from cogview.image.picture_reading import UnusableImage, read_image, resize_and_crop
from cogview.image.pixels import image_to_array
from cogview.image.reconstruction_quality import ReconstructionQuality
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.models.config import BUNDLED_FOLDER
from cogview.recipes import default_data
from cogview.text.known_words import KnownWords, count_words
from cogview.text.tokenizer import TextTokenizer
from cogview.world.builder import ExampleSource
from cogview.world.config import DefaultDataConfig, Split, StyleDataConfig
from cogview.world.style_pictures import build_style_data
from environment import RESULTS, describe

NUM_PICTURES, NUM_CAPTIONS = 500, 2_000
SIZE_PIXELS = 128


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--pictures", type=Path, nargs="*", default=[])
    given = arguments.parse_args()
    words = TextTokenizer.from_file(BUNDLED_FOLDER / "text.model")
    tokenizer = load_image_tokenizer(BUNDLED_FOLDER / "image_tokenizer")
    if given.write:
        write_words(words)
        write_held_out(tokenizer)
        return
    assert tokenizer.held_out is not None
    known = KnownWords.in_folder(BUNDLED_FOLDER)
    assert known is not None
    source = ExampleSource(replace(config_of("bundled"), num_held_out_style=1, seed=11))
    texts = list(texts_of(source, NUM_CAPTIONS // source.config.captions_per_picture))
    told = sum(bool(known.unknown(text, words, "usual")) for text in texts)
    figures: dict[str, Any] = {
        "environment": describe(torch.device("cpu")),
        "captions": {"num": len(texts), "told": told / len(texts)},
    }
    splits: tuple[Split, ...] = ("held-out-composition", "held-out-object", "held-out-style")
    groups = {split: drawn(source, split) for split in splits}
    groups |= {folder.name: pictures_in(folder) for folder in given.pictures}
    for name, pictures in groups.items():
        kept = torch.cat(list(kept_of(tokenizer, pictures)))
        figures[name] = {
            "num": len(kept),
            "told": float((kept < tokenizer.held_out.least_db).double().mean()),
            "median_db": float(kept.median()),
        }
        print(name, figures[name], flush=True)
    atomic_write_json(RESULTS / "out_of_world.json", figures)


def write_words(words: TextTokenizer) -> None:
    """Write the words of the training captions of the model and of its adapters beside their weights."""
    for recipe, folder in (("bundled", "."), ("bundled_captions", "adapters/caption")):
        source = ExampleSource(config_of(recipe))
        found = KnownWords.of_counts(count_words(texts_of(source, source.config.num_train), words))
        found.save(BUNDLED_FOLDER / folder)
        print(folder, len(found.counts), "words", flush=True)
    large = ExampleSource(config_of("bundled_large"))
    found = KnownWords.of_counts(count_words(texts_of(large, large.config.num_train), words))
    found.save(BUNDLED_FOLDER / "adapters/super-resolution")
    config = json.loads((BUNDLED_FOLDER / "config.json").read_text(encoding="utf-8"))
    atomic_write_json(BUNDLED_FOLDER / "config.json", config | {"text_case": "usual"})
    style = default_data.openmoji_style().data
    assert isinstance(style, StyleDataConfig)
    with tempfile.TemporaryDirectory() as folder:
        build_style_data(style, Path(folder) / "style")
        lines = (Path(folder) / "style" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    texts = [text for entry in entries if entry["split"] == "train" for text in entry["texts"]]
    KnownWords.of_counts(count_words(texts, words)).save(BUNDLED_FOLDER / "adapters/style-openmoji")


def write_held_out(tokenizer: ImageTokenizer) -> None:
    """Measure what the image tokenizer keeps of its own held-out pictures, and add it to its config."""
    source = ExampleSource(config_of("bundled_image_tokenizer"))
    splits: tuple[Split, ...] = ("held-out-composition", "held-out-object")
    pictures = (picture for split in splits for picture in drawn(source, split))
    tokenizer.held_out = ReconstructionQuality.of(kept_of(tokenizer, pictures))
    print(tokenizer.held_out)
    path = BUNDLED_FOLDER / "image_tokenizer" / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    atomic_write_json(path, content | {"held_out": vars(tokenizer.held_out)})


def config_of(recipe: str) -> DefaultDataConfig:
    config = getattr(default_data, recipe)().data
    assert isinstance(config, DefaultDataConfig)
    return config


def texts_of(source: ExampleSource, num_pictures: int) -> Iterator[str]:
    for index in range(num_pictures):
        yield from source.scene_and_texts("train", index)[1]


def drawn(source: ExampleSource, split: Split) -> Iterator[Image.Image]:
    return (source.example(split, index).image for index in range(NUM_PICTURES))


def pictures_in(folder: Path) -> Iterator[Image.Image]:
    """Yield the pictures of a folder that can be read."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg")):
        try:
            yield read_image(path)
        except UnusableImage as error:
            print(error)


def kept_of(tokenizer: ImageTokenizer, pictures: Iterable[Image.Image]) -> Iterator[torch.Tensor]:
    for picture in pictures:
        pixels = image_to_array(resize_and_crop(picture.convert("RGB"), SIZE_PIXELS))
        yield tokenizer.kept_db(torch.from_numpy(pixels)[None])


if __name__ == "__main__":
    main()
