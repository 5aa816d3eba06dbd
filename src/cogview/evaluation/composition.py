"""Composition score: how often pictures of scenes show what their captions ask for.

The scene that a `SceneReader` reads in a picture is compared with that of the caption, as far as the caption names it.
The reader itself is validated on the real pictures.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image

from cogview.data.folder_contents import METADATA
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.scene_reader import SceneReading
from cogview.evaluation.scores import mean_of
from cogview.image.pixels import image_to_array, tensor_to_images
from cogview.image.tokenizer import ImageTokenizer
from cogview.plain_json import parse_json
from cogview.world.caption_words import STYLE_WORDS
from cogview.world.colours import COLOURS
from cogview.world.config import Language
from cogview.world.objects import GROUNDS, scene_objects
from cogview.world.scenes import Placement, Relation, Scene, mentioned_size, middle_of, relation_of

SPLIT = "held-out-composition"
LEAST_RIGHT = 0.95  # share of the real pictures, for the reader to be valid
QUALITIES = ("number", "objects", "ground", "relation", "style", "colour", "size")
PARTS = ("objects_found", *QUALITIES, "all")
RELATION_WORDS = re.compile(
    r"\b(left|right|above|below|under|over|beneath|top|bottom)\b|[左右][边侧面]|[上下][面方边]", re.IGNORECASE
)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_MOST_OTHERS = 50  # shuffled captions per picture


@dataclass(frozen=True, kw_only=True)
class AskedScene:
    """Caption and its scene.

    Args:
        text: the caption, which names the ground.
        scene: scene of the real picture.
        file_name: file of the real picture, relative to the data set.
    """

    text: str
    scene: Scene
    file_name: str

    @cached_property
    def language(self) -> Language:
        """Language of the caption."""
        return "zh" if _CHINESE.search(self.text) else "en"

    @cached_property
    def tells_relation(self) -> bool:
        """Whether the caption names the relation of the scene's two things or groups."""
        return self.scene.kind in ("relation", "sizes", "groups") and bool(
            RELATION_WORDS.search(form_of(self.text, self.scene))
        )

    @property
    def tells_colour(self) -> bool:
        """Whether a thing has another colour than its own, which captions always name."""
        return any(placement.colour is not None for placement in self.scene.placements)

    @property
    def tells_size(self) -> bool:
        """Whether a thing is small or big, and the caption says so."""
        return any(mentioned_size(self.scene, placement) is not None for placement in self.scene.placements)

    @cached_property
    def tells_style(self) -> bool:
        """Whether the caption names the style."""
        words = STYLE_WORDS[self.scene.style]
        text = self.text.lower()
        return any(f"{word}风格".lower() in text for word in words["zh"]) or any(
            f"{word} style".lower() in text for word in words["en"]
        )


def entries_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """Return the lines of one split of a built data set, each with `file_name`, `texts` and `scene`.

    Raises:
        UsageError: the folder holds no scenes, or none of this split.
        CogViewError: the lines cannot be read.
    """
    path = folder / METADATA
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {METADATA}: give an image folder that `cogview data build` made of scenes"
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        entries = [parse_json(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): build the data set again") from error
    chosen = []
    try:
        for entry in entries:
            if entry["split"] == split:
                Scene.from_json(entry["scene"])
                _ = entry["file_name"], entry["texts"]
                chosen.append(entry)
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{path} has no scenes of the pictures ({type(error).__name__}: {error}): give a data set of scenes that "
            "`cogview data build` made"
        ) from error
    if not chosen:
        others = ", ".join(sorted({str(entry["split"]) for entry in entries})) or "none"
        raise UsageError(f"{folder} has no pictures of the split {split!r}; it has {others}")
    return chosen


def asked_scenes(folder: Path, num: int | None = None, split: str = SPLIT) -> list[AskedScene]:
    """Return the first scenes with a caption that names the ground, in English and Chinese by turns.

    Args:
        folder: a built data set.
        num: largest number of scenes; all by default.
        split: split of the data set.

    Raises:
        UsageError: the folder holds no scenes, or none of this split.
        CogViewError: its lines cannot be read.
    """
    asked: list[AskedScene] = []
    for entry in entries_of(folder, split):
        scene = Scene.from_json(entry["scene"])
        half = len(entry["texts"]) // 2
        texts = entry["texts"][:half] if len(asked) % 2 else entry["texts"][half:]
        texts = [text for text in texts if names_ground(text, scene)]
        if texts and (num is None or len(asked) < num):
            asked.append(AskedScene(text=texts[0], scene=scene, file_name=entry["file_name"]))
    return asked


def names_ground(text: str, scene: Scene) -> bool:
    """Return whether a caption names the colour of its scene's ground.

    No thing has this colour. But the word may be part of a thing's name ("red apple"), of a style's ("black outline")
    or of another colour's (红 in 粉红).
    """
    names: dict[str, tuple[str, ...]] = {}
    for words in (*COLOURS.values(), *GROUNDS.values()):
        names[words.english[0]] = (*names.get(words.english[0], ()), *words.english, *words.chinese)
    own = names[scene.ground]
    others = [name for colour in names if colour != scene.ground for name in names[colour]]
    styles = [word for words in STYLE_WORDS[scene.style].values() for word in words]
    text = form_of(text, scene)
    for other in sorted((*styles, *others), key=len, reverse=True):
        if any(name in other for name in own):  # other names may be part of the ground's own
            text = re.sub(re.escape(other), " ", text, flags=re.IGNORECASE)
    return any(
        re.search(rf"\b{name}\b" if name.isascii() else name, text, flags=re.IGNORECASE) for name in own
    )


def form_of(text: str, scene: Scene) -> str:
    """Replace the names of a caption's things by X, since "top hat" is no relation."""
    names = {name for p in scene.placements for name in _names_of(p.code)}
    for name in sorted(names, key=len, reverse=True):
        bounds = (r"(?<![a-z])", r"(?![a-z])") if name.isascii() else ("", "")  # not "car" in "cartoon"
        text = re.sub(re.escape(name).join(bounds), "X", text, flags=re.IGNORECASE)
    return re.sub(r"\ban? X", "a X", text, flags=re.IGNORECASE)


def _names_of(code: str) -> tuple[str, ...]:
    thing = scene_objects().get(code)  # single icons need not be in the table
    return (*thing.singular, *thing.plural, *thing.chinese) if thing else ()


def reconstruct(tokenizer: ImageTokenizer, picture: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x 3"]:
    """Encode and decode a picture: what a perfect model would draw."""
    pixels = torch.from_numpy(image_to_array(Image.fromarray(picture)))[None].to(tokenizer.device)
    return np.asarray(tensor_to_images(tokenizer.decode(tokenizer.encode(pixels)))[0])


def judge(
    asked: AskedScene, shown: SceneReading, qualities: Sequence[str] = QUALITIES
) -> dict[str, float | None]:
    """Return the share of objects found, and for each quality 1 if it is right, 0 if wrong, None if not asked for.

    Args:
        asked: the wanted scene.
        shown: the scene in the picture.
        qualities: qualities to judge; `all` is right if each of them is.
    """
    wanted, visible = (Counter(p.code for p in scene.placements) for scene in (asked.scene, shown))
    verdicts: dict[str, float | None] = {
        "number": float(wanted.total() == visible.total()),
        "objects": float(wanted == visible),
        "ground": float(shown.ground == asked.scene.ground),
        "relation": float(_is_relation_right(asked.scene, shown)) if asked.tells_relation else None,
        "style": float(shown.style == asked.scene.style) if asked.tells_style else None,
        "colour": float(_are_colours_right(asked.scene, shown)) if asked.tells_colour else None,
        "size": float(_sizes_of(asked.scene) == _sizes_of(shown)) if asked.tells_size else None,
    }
    return {
        "objects_found": (wanted & visible).total() / wanted.total(),
        **{quality: verdicts[quality] for quality in qualities},
        "all": float(all(verdicts[quality] in (None, 1.0) for quality in qualities)),
    }


def _is_relation_right(scene: Scene, shown: SceneReading) -> bool:
    """Return whether two things, or the centres of two groups, have the right relation.

    Equal things are told apart by colour, and those of equal colour by size.
    """
    has_codes = len({each.code for each in scene.placements}) > 1
    has_colours = len({each.colour for each in scene.placements}) > 1

    def is_it(thing: Placement, other: Placement, colours: frozenset[str | None]) -> bool:
        if has_codes or other.code != thing.code:
            return other.code == thing.code
        return thing.colour in colours if has_colours else other.size == thing.size

    first = scene.placements[0]
    second = next(each for each in scene.placements if not is_it(first, each, frozenset({each.colour})))
    wanted, visible = (
        [
            [
                each
                for each, colours in zip(reading.placements, reading.colours, strict=True)
                if is_it(thing, each, colours)
            ]
            for thing in (first, second)
        ]
        for reading in (SceneReading.of(scene), shown)
    )
    return all(visible) and set(_relation_of(*wanted)) <= set(_relation_of(*visible))


def _relation_of(first: list[Placement], second: list[Placement]) -> tuple[Relation, ...]:
    """Return the relation between the centres of two groups of things."""
    return relation_of(middle_of(first), middle_of(second))


def _are_colours_right(scene: Scene, shown: SceneReading) -> bool:
    """Return whether things and colours agree; some things have several possible colours."""
    visible = list(zip((each.code for each in shown.placements), shown.colours, strict=True))
    for code, colour in sorted(((each.code, each.colour) for each in scene.placements), key=str):
        fitting = [each for each in visible if each[0] == code and colour in each[1]]
        if not fitting:
            return False
        visible.remove(min(fitting, key=lambda each: len(each[1])))  # the least ambiguous one
    return not visible


def _sizes_of(scene: Scene | SceneReading) -> Counter[tuple[str, int]]:
    return Counter((each.code, each.size) for each in scene.placements)


def verdicts_on(asked: Sequence[AskedScene], shown: Sequence[SceneReading]) -> Float64[np.ndarray, "n q"]:
    """Return the verdicts of `judge` in the order of `PARTS`, NaN for None."""
    rows = [judge(*pair).values() for pair in zip(asked, shown, strict=True)]
    return np.array([[np.nan if each is None else each for each in row] for row in rows], dtype=np.float64)


def shares_of(verdicts: Float64[np.ndarray, "n q"]) -> dict[str, dict[str, float | int | None]]:
    """Return for each of `PARTS` the share that is right, its 95 % interval, and the number of captions."""
    shares: dict[str, dict[str, float | int | None]] = {}
    for name, column in zip(PARTS, verdicts.T, strict=True):
        values = column[~np.isnan(column)]
        shares[name] = {"value": None, "low": None, "high": None, "num": len(values)}
        if len(values) > 1:
            share = mean_of(values)
            shares[name] |= asdict(share) | {"low": max(share.low, 0.0), "high": min(share.high, 1.0)}
        elif len(values):
            shares[name]["value"] = float(values[0])
    return shares


def _with_others(asked: Sequence[AskedScene]) -> Iterator[list[AskedScene]]:
    """Yield the captions rotated by one, by two and so on, so that no picture has its own."""
    for offset in range(1, min(len(asked), _MOST_OTHERS + 1)):
        yield [*asked[offset:], *asked[:offset]]


def shuffled_shares(asked: Sequence[AskedScene], shown: Sequence[SceneReading]) -> dict[str, float | None]:
    """Return for each of `PARTS` the share that is right under the captions of up to 50 other scenes."""
    verdicts = np.concatenate([verdicts_on(others, shown) for others in _with_others(asked)])
    return {name: share["value"] for name, share in shares_of(verdicts).items()}


def validate_reader(
    asked: Sequence[AskedScene], pictures: Sequence[SceneReading], redrawn_pictures: Sequence[SceneReading]
) -> dict[str, Any]:
    """Validate the reader on the real pictures, with their own and with shuffled captions.

    Args:
        asked: two scenes or more.
        pictures: scenes read in their pictures.
        redrawn_pictures: scenes read in the pictures after encoding and decoding.

    Returns:
        The shares right with own captions, `pictures` and `redrawn`; with shuffled captions, `pictures_shuffled`
        and `redrawn_shuffled`; and `chance`, those of a perfect reader with shuffled captions. `is_valid` means that
        at least 95 % are all right, and shuffled shares are within 5 % of chance.
    """
    chance = shuffled_shares(asked, [SceneReading.of(each.scene) for each in asked])
    validation: dict[str, Any] = {"least_right": LEAST_RIGHT, "chance": chance}
    is_valid = True
    for name, shown in (("pictures", pictures), ("redrawn", redrawn_pictures)):
        shares, shuffled = shares_of(verdicts_on(asked, shown)), shuffled_shares(asked, shown)
        validation |= {name: shares, f"{name}_shuffled": shuffled}
        right = shares["all"]["value"]
        assert right is not None, "all captions ask for something"
        is_valid = is_valid and right >= LEAST_RIGHT
        for share, expected in zip(shuffled.values(), chance.values(), strict=True):
            is_valid = is_valid and abs((share or 0.0) - (expected or 0.0)) <= 1 - LEAST_RIGHT
    return validation | {"is_valid": is_valid}
