"""The composition score: whether pictures show what their captions ask for, counted over scenes of the default data.

What a `SceneReader` reads in a picture is compared with the scene that the caption was written for, as far as the
caption tells it. The reader is itself measured on the real pictures.
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
LEAST_RIGHT = 0.95  # of the real pictures, for the reader to be believed
QUALITIES = ("number", "objects", "ground", "relation", "style", "colour", "size")
PARTS = ("objects_found", *QUALITIES, "all")
RELATION_WORDS = re.compile(
    r"\b(left|right|above|below|under|over|beneath|top|bottom)\b|[左右][边侧面]|[上下][面方边]", re.IGNORECASE
)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_MOST_OTHERS = 50  # scenes that each caption is shuffled to


@dataclass(frozen=True, kw_only=True)
class AskedScene:
    """A caption, and the scene that it was written for.

    Args:
        text: the caption, which names the ground.
        scene: what the real picture shows.
        file_name: of the real picture, relative to the data set.
    """

    text: str
    scene: Scene
    file_name: str

    @cached_property
    def language(self) -> Language:
        """The language of the caption."""
        return "zh" if _CHINESE.search(self.text) else "en"

    @cached_property
    def tells_relation(self) -> bool:
        """Whether the caption says how the two things or groups of the scene lie to each other."""
        return self.scene.kind in ("relation", "sizes", "groups") and bool(
            RELATION_WORDS.search(form_of(self.text, self.scene))
        )

    @property
    def tells_colour(self) -> bool:
        """Whether a thing of the scene has another colour than its own, which captions always tell."""
        return any(placement.colour is not None for placement in self.scene.placements)

    @property
    def tells_size(self) -> bool:
        """Whether a thing of the scene is small or big, which captions tell of one thing alone and of two."""
        return any(mentioned_size(self.scene, placement) is not None for placement in self.scene.placements)

    @cached_property
    def tells_style(self) -> bool:
        """Whether the caption names the style."""
        words = STYLE_WORDS[self.scene.style]
        said = self.text.lower()
        return any(f"{word}风格".lower() in said for word in words["zh"]) or any(
            f"{word} style".lower() in said for word in words["en"]
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
            f"{path} does not say what scenes the pictures show ({type(error).__name__}: {error}): give a data set of "
            "scenes that `cogview data build` made"
        ) from error
    if not chosen:
        others = ", ".join(sorted({str(entry["split"]) for entry in entries})) or "none"
        raise UsageError(f"{folder} has no pictures of the split {split!r}; it has {others}")
    return chosen


def asked_scenes(folder: Path, num: int | None = None, split: str = SPLIT) -> list[AskedScene]:
    """Return the first pictures with a caption each, Chinese and English by turns, that names the ground.

    Args:
        folder: a built data set.
        num: how many at most; all by default.
        split: of the data set.

    Raises:
        UsageError: the folder holds no scenes, or none of this split.
        CogViewError: its lines cannot be read.
    """
    asked: list[AskedScene] = []
    for entry in entries_of(folder, split):
        scene = Scene.from_json(entry["scene"])
        half = len(entry["texts"]) // 2
        texts = entry["texts"][:half] if len(asked) % 2 else entry["texts"][half:]
        named = [text for text in texts if names_ground(text, scene)]
        if named and (num is None or len(asked) < num):
            asked.append(AskedScene(text=named[0], scene=scene, file_name=entry["file_name"]))
    return asked


def names_ground(text: str, scene: Scene) -> bool:
    """Say whether a caption names the colour of its scene's ground.

    No thing is ever told to have it. But it may lie in a thing's name ("red apple"), in a style's ("black outline") or
    in another colour's, as 红 lies in 粉红.
    """
    names: dict[str, tuple[str, ...]] = {}
    for words in (*COLOURS.values(), *GROUNDS.values()):
        names[words.english[0]] = (*names.get(words.english[0], ()), *words.english, *words.chinese)
    own = names[scene.ground]
    others = [name for colour in names if colour != scene.ground for name in names[colour]]
    styles = [word for words in STYLE_WORDS[scene.style].values() for word in words]
    text = form_of(text, scene)
    for other in sorted((*styles, *others), key=len, reverse=True):
        if any(name in other for name in own):  # others may lie in the ground's own names
            text = re.sub(re.escape(other), " ", text, flags=re.IGNORECASE)
    return any(
        re.search(rf"\b{name}\b" if name.isascii() else name, text, flags=re.IGNORECASE) for name in own
    )


def form_of(text: str, scene: Scene) -> str:
    """Return a caption with an X for each name of its things, since "top hat" is no relation."""
    names = {name for p in scene.placements for name in _names_of(p.code)}
    for name in sorted(names, key=len, reverse=True):
        bounds = (r"(?<![a-z])", r"(?![a-z])") if name.isascii() else ("", "")  # no car is in a cartoon
        text = re.sub(re.escape(name).join(bounds), "X", text, flags=re.IGNORECASE)
    return re.sub(r"\ban? X", "a X", text, flags=re.IGNORECASE)


def _names_of(code: str) -> tuple[str, ...]:
    thing = scene_objects().get(code)  # a single icon may be none of the table
    return (*thing.singular, *thing.plural, *thing.chinese) if thing else ()


def redrawn(tokenizer: ImageTokenizer, picture: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x 3"]:
    """Return a picture as the image tokenizer redraws it: what a model without fault would draw."""
    pixels = torch.from_numpy(image_to_array(Image.fromarray(picture)))[None].to(tokenizer.device)
    return np.asarray(tensor_to_images(tokenizer.decode(tokenizer.encode(pixels)))[0])


def judge(
    asked: AskedScene, shown: SceneReading, qualities: Sequence[str] = QUALITIES
) -> dict[str, float | None]:
    """Return what is right, 0 or 1, with the share of the objects that are found; None where nothing was asked.

    Args:
        asked: what the picture should show.
        shown: what it shows.
        qualities: those of `QUALITIES` that are judged; `all` is right if each of them is.
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
    """Say whether two things, or the middles of two groups, lie to each other as they should.

    Two of the same are told apart by their colours, and two of the same colour by their sizes.
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
                for each, colours in zip(found.placements, found.colours, strict=True)
                if is_it(thing, each, colours)
            ]
            for thing in (first, second)
        ]
        for found in (SceneReading.of(scene), shown)
    )
    return all(visible) and set(_relation_of(*wanted)) <= set(_relation_of(*visible))


def _relation_of(first: list[Placement], second: list[Placement]) -> tuple[Relation, ...]:
    """Return how the middle of some things lies to that of others."""
    return relation_of(middle_of(first), middle_of(second))


def _are_colours_right(scene: Scene, shown: SceneReading) -> bool:
    """Say whether there are the same things of the same colours; one whose own colour is told may have its own look."""
    visible = list(zip((each.code for each in shown.placements), shown.colours, strict=True))
    for code, colour in sorted(((each.code, each.colour) for each in scene.placements), key=str):
        fitting = [each for each in visible if each[0] == code and colour in each[1]]
        if not fitting:
            return False
        visible.remove(min(fitting, key=lambda each: len(each[1])))  # what has one colour alone fits no other
    return not visible


def _sizes_of(found: Scene | SceneReading) -> Counter[tuple[str, int]]:
    return Counter((each.code, each.size) for each in found.placements)


def verdicts_on(asked: Sequence[AskedScene], shown: Sequence[SceneReading]) -> Float64[np.ndarray, "n q"]:
    """Return the verdicts of `judge` in the order of `PARTS`, NaN where nothing was asked."""
    rows = [judge(*pair).values() for pair in zip(asked, shown, strict=True)]
    return np.array([[np.nan if each is None else each for each in row] for row in rows], dtype=np.float64)


def shares_of(verdicts: Float64[np.ndarray, "n q"]) -> dict[str, dict[str, float | int | None]]:
    """Return by name of `PARTS` the share that is right of `num` captions that asked for it, and its 95 % interval."""
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
    """Yield the captions moved on by one scene, by two and so on: nobody has their own."""
    for offset in range(1, min(len(asked), _MOST_OTHERS + 1)):
        yield [*asked[offset:], *asked[:offset]]


def shuffled_shares(asked: Sequence[AskedScene], shown: Sequence[SceneReading]) -> dict[str, float | None]:
    """Return by name of `PARTS` the share that is right under the captions of up to 50 other scenes each."""
    verdicts = np.concatenate([verdicts_on(others, shown) for others in _with_others(asked)])
    return {name: share["value"] for name, share in shares_of(verdicts).items()}


def validated(
    asked: Sequence[AskedScene], pictures: Sequence[SceneReading], redrawn_pictures: Sequence[SceneReading]
) -> dict[str, Any]:
    """Return how good the reader is on the real pictures, under their own captions and under others'.

    Args:
        asked: two scenes or more.
        pictures: what is read in their pictures.
        redrawn_pictures: what is read in them after the image tokenizer has redrawn them.

    Returns:
        `pictures` and `redrawn`, which have to be right; `pictures_shuffled` and `redrawn_shuffled`, which have to be
        right as often as `chance`, what a reader without fault finds on the same pairings; and whether it `is_valid`:
        95 % are right in all that is asked for, and no share is further from chance than the other 5 %.
    """
    chance = shuffled_shares(asked, [SceneReading.of(each.scene) for each in asked])
    found: dict[str, Any] = {"least_right": LEAST_RIGHT, "chance": chance}
    is_valid = True
    for name, shown in (("pictures", pictures), ("redrawn", redrawn_pictures)):
        shares, shuffled = shares_of(verdicts_on(asked, shown)), shuffled_shares(asked, shown)
        found |= {name: shares, f"{name}_shuffled": shuffled}
        right = shares["all"]["value"]
        assert right is not None, "all captions ask for something"
        is_valid = is_valid and right >= LEAST_RIGHT
        for share, expected in zip(shuffled.values(), chance.values(), strict=True):
            is_valid = is_valid and abs((share or 0.0) - (expected or 0.0)) <= 1 - LEAST_RIGHT
    return found | {"is_valid": is_valid}
