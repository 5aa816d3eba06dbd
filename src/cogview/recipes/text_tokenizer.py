"""The bundled text tokenizer.

Claim: with 8,000 pieces, captions of the default data set have 16 pieces on average, 99 of 100 at most 28 and all at
most 32. Nearly every name of a thing or colour is one piece; any other text is written in words, characters and bytes,
so that nothing is unknown. The bundled one was trained on earlier, shorter captions: 17 on average, 99 of 100 at most
33.

Command: `cogview train text-tokenizer --out text.model`

Cost: 20 seconds on one core and 200 MB of memory; the words of emojibase are fetched with npm (3 MB).
"""

import random
from collections.abc import Iterator
from pathlib import Path

from cogview.recipes.config import TextTokenizerRecipe
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import TextTokenizer
from cogview.text.training import train_text_tokenizer
from cogview.world import captions, objects, scene_maker
from cogview.world.config import TRAINING_STYLES, DefaultDataConfig, Split
from cogview.world.packages import EMOJIBASE, find_package, read_json_member

MAX_WORD_CHARACTERS = 4  # longer labels are phrases: 穿西装的人

# Words of captions besides names of things and colours.
NUMBERS = ("一", "两", "三", "四", "五", "六")
TEMPLATE_WORDS = (
    *NUMBERS,
    *("的", "在", "是", "有", "中", "里", "和", "与", "还有", "色", "底", "底色", "背景", "风格"),
    *("图", "图片", "画", "画面", "张", "幅", "请", "出", "着"),
    *("上", "下", "左", "右", "上面", "下面", "左面", "右面", "上边", "下边", "左边", "右边"),
    *("上方", "下方", "左侧", "右侧", "旁边", "小", "大", "很小的", "很大的"),
    *("卡通", "贴纸", "简洁", "渐变", "柔和", "扁平", "平面", "立体", "线描", "描边"),
)


def bundled_text_tokenizer() -> TextTokenizerRecipe:
    """Return the recipe of the bundled text tokenizer."""
    return TextTokenizerRecipe()


def train_bundled_text_tokenizer(run: TextTokenizerRecipe, path: Path) -> TextTokenizer:
    """Train on the captions of scenes and on the labels and tags of icons.

    Args:
        run: what to train on.
        path: the model file to write.

    Raises:
        CogViewError: emojibase cannot be fetched.
    """
    icons = list(_icon_texts(run))
    # Numbers are separate from what they count, so that they are the same piece before every measure word.
    short = (text for text in icons if len(text) <= MAX_WORD_CHARACTERS and not text.startswith(NUMBERS))
    words = {*_scene_words(), *short}
    train_text_tokenizer([*_scene_captions(run), *icons], path, run.tokenizer, words)
    return TextTokenizer.from_file(path)


def train_text_tokenizer_on(source: Path, path: Path, config: TextTokenizerConfig) -> TextTokenizer:
    """Train on the captions of one's own pictures.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.
        path: the model file to write.
        config: size and coverage.

    Raises:
        CogViewError: there are no pictures with captions.
        UsageError: the pieces are fewer than the captions' characters.
    """
    from cogview.data.pairs import CaptionedImage
    from cogview.data.sources import open_pairs

    texts = (
        text for image in open_pairs(source) if isinstance(image, CaptionedImage) for text in image.texts
    )
    train_text_tokenizer(texts, path, config)
    return TextTokenizer.from_file(path)


def _scene_captions(run: TextTokenizerRecipe) -> Iterator[str]:
    """Yield captions of scenes of all objects in all training styles.

    Includes objects that are held out of training: a model must not know their look, but their names should be words
    for users who finetune it.
    """
    config = DefaultDataConfig(
        seed=run.seed,
        num_objects=sum(not thing.held_out for thing in objects.scene_objects().values()),
        styles=TRAINING_STYLES,
        groups_share=0.2,
        sizes_share=0.2,
        most_counted=6,
        sized_share=0.4,
        coloured_share=0.35,
    )
    splits: dict[Split, int] = {"train": run.num_scenes, "held-out-object": run.num_scenes // 10}
    for split, num_scenes in splits.items():
        for index in range(num_scenes):
            scene = scene_maker.make_scene(config, split, index)
            rng = random.Random(f"{run.seed}/text tokenizer/{split}/{index}")
            yield from captions.captions(scene, rng, 1, "zh")
            yield from captions.captions(scene, rng, 1, "en")


def _icon_texts(run: TextTokenizerRecipe) -> Iterator[str]:
    """Yield the labels and tags of all icons, in simplified and traditional Chinese and in English."""
    archive = find_package(EMOJIBASE, run.packages_folder)
    for language in ("zh", "zh-hant", "en"):
        for entry in read_json_member(archive, f"{language}/data.json"):
            yield entry["label"]
            yield from entry.get("tags", ())


def _scene_words() -> Iterator[str]:
    """Yield the Chinese words of captions of scenes."""
    yield from TEMPLATE_WORDS
    for ground in objects.GROUNDS.values():
        yield from ground.chinese
        yield from (f"{name}色" for name in ground.chinese)
    for thing in objects.scene_objects().values():
        yield from (thing.measure, *thing.chinese)
