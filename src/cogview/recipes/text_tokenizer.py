"""The bundled text tokenizer.

Claim: 8,000 pieces or fewer tell every caption of the default data set in at most 40 pieces, half of them in 15, with
each Chinese and English word of its scenes one piece; any other text is spelt in words, characters and bytes, so that
nothing is unknown.

Command: `cogview train text-tokenizer --out text.model`

Cost: ten seconds on one core and 100 MB of memory; the words of emojibase are fetched with npm (3 MB).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cogview.data import captions, scenes, world
from cogview.data.config import DefaultDataConfig
from cogview.data.packages import EMOJIBASE, find_package, read_json_member
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import TextTokenizer
from cogview.text.training import train_text_tokenizer

MAX_WORD_CHARACTERS = 4  # longer labels are phrases: 穿西装的人

# What the captions' templates say beside the names of things.
TEMPLATE_WORDS = (
    *("的", "在", "是", "有", "上", "中", "里", "和", "与", "还有", "色", "底", "底色", "背景", "风格"),
    *("图", "图片", "画", "画面", "一张", "一幅", "请", "出", "着"),
)


@dataclass(frozen=True, kw_only=True)
class TextTokenizerRun:
    """What the bundled text tokenizer is trained on.

    Args:
        tokenizer: size and coverage.
        num_scenes: scenes whose captions are learnt from, each once in Chinese and once in English.
        seed: of the scenes and captions.
        packages_folder: a folder with the archive of emojibase; None fetches it with npm.
    """

    tokenizer: TextTokenizerConfig = field(default_factory=TextTokenizerConfig)
    num_scenes: int = 20_000
    seed: int = 0
    packages_folder: Path | None = None


def bundled_text_tokenizer() -> TextTokenizerRun:
    """Return the run that made the bundled model."""
    return TextTokenizerRun()


def train_bundled_text_tokenizer(run: TextTokenizerRun, path: Path) -> TextTokenizer:
    """Train on the captions of scenes and on the labels and tags of icons.

    Args:
        run: what to train on.
        path: the model file to write.

    Raises:
        CogViewError: emojibase cannot be fetched.
    """
    icons = list(_icon_texts(run))
    # A number stays apart from what is counted, so that it is the same piece before every measure word.
    numbers = tuple(captions.CHINESE_NUMBERS.values())
    short = (text for text in icons if len(text) <= MAX_WORD_CHARACTERS and not text.startswith(numbers))
    words = {*_scene_words(), *short}
    train_text_tokenizer([*_scene_captions(run), *icons], path, run.tokenizer, words)
    return TextTokenizer.from_file(path)


def _scene_captions(run: TextTokenizerRun) -> Iterator[str]:
    """Yield captions of scenes of all objects that training may show, in every style that it may."""
    things = world.scene_objects().values()
    config = DefaultDataConfig(
        seed=run.seed,
        num_objects=sum(not thing.held_out for thing in things),
        styles=("noto", "twemoji", "fluent", "fluent-flat", "fluent-3d"),
    )
    for index in range(run.num_scenes):
        scene = scenes.make_scene(config, "train", index)
        rng = random.Random(f"{run.seed}/text tokenizer/{index}")
        yield from captions.captions(scene, rng, 1, "zh")
        yield from captions.captions(scene, rng, 1, "en")


def _icon_texts(run: TextTokenizerRun) -> Iterator[str]:
    """Yield the labels and tags of all icons, in simplified and traditional Chinese and in English."""
    archive = find_package(EMOJIBASE, run.packages_folder)
    for language in ("zh", "zh-hant", "en"):
        for entry in read_json_member(archive, f"{language}/data.json"):
            yield entry["label"]
            yield from entry.get("tags", ())


def _scene_words() -> Iterator[str]:
    """Yield the Chinese words that captions of scenes are made of."""
    yield from TEMPLATE_WORDS
    yield from captions.CHINESE_NUMBERS.values()
    for ground in world.GROUNDS.values():
        yield from ground.chinese
        yield from (f"{name}色" for name in ground.chinese)
    for sides in captions.CHINESE_RELATIONS.values():
        yield from sides
    for style in captions.STYLE_WORDS.values():
        yield from style["zh"]
    for thing in world.scene_objects().values():
        yield from (thing.measure, *thing.chinese)
