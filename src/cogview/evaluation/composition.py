"""The composition score: whether pictures show what their captions ask for, counted over scenes of the default data.

A picture is read by comparing every place of the lattice with every object of the world on the picture's ground: what
explains most of what stands there is what stands there, if it explains enough. What is read is compared with the scene
that the caption was written for, as far as the caption tells it. The reader is itself measured on the real pictures.
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
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from cogview.data.captions import STYLE_WORDS
from cogview.data.config import Style
from cogview.data.folder_contents import METADATA
from cogview.data.scenes import LATTICE_CELLS, SMALL_CELLS, Placement, Scene, relation_of
from cogview.data.world import GROUNDS, scene_objects
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.icon_judge import LEAST_EXPLAINED, ground_of
from cogview.evaluation.scores import mean_of
from cogview.image.picture_reading import read_image
from cogview.image.pixels import image_to_array, tensor_to_images
from cogview.image.tokenizer import ImageTokenizer
from cogview.plain_json import parse_json

SPLIT = "held-out-composition"
LEAST_RIGHT = 0.95  # of the real pictures, for the reader to be believed
QUALITIES = ("number", "objects", "ground", "relation", "style")
PARTS = ("objects_found", *QUALITIES, "all")
RELATION_WORDS = re.compile(
    r"\b(left|right|above|below|under|over|beneath|top|bottom)\b|[左右][边侧面]|[上下][面方边]", re.IGNORECASE
)
_STEP = 2  # every second pixel is plenty
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
    def tells_relation(self) -> bool:
        """Whether the caption says how the two things of the scene lie to each other."""
        return self.scene.kind == "relation" and bool(RELATION_WORDS.search(form_of(self.text, self.scene)))

    @cached_property
    def tells_style(self) -> bool:
        """Whether the caption names the style."""
        words = STYLE_WORDS[self.scene.style]
        said = self.text.lower()
        return any(f"{word}风格".lower() in said for word in words["zh"]) or any(
            f"{word} style".lower() in said for word in words["en"]
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a picture shows.

    Args:
        ground: a key of `world.GROUNDS`.
        placements: the things.
        style: of all of them; None if there are none, or of several styles.
    """

    ground: str
    placements: tuple[Placement, ...]
    style: Style | None

    @staticmethod
    def of(scene: Scene) -> "Shown":
        """Return what a reader without fault would see in a scene's picture."""
        return Shown(ground=scene.ground, placements=scene.placements, style=scene.style)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looks:
    """What objects look like on one ground: code and style, and how the pixels differ from the bare ground."""

    known: list[tuple[str, Style]]
    bare: Float32[np.ndarray, "v"]
    pixels: Float32[np.ndarray, "n v"]
    energy: Float32[np.ndarray, "n"]


class SceneReader:
    """Reads which objects stand where in a picture.

    Args:
        folder: a built data set, whose training pictures show what each object looks like.
        size_pixels: side of the pictures.

    Raises:
        UsageError: the training pictures have another size, or are no scenes.
        CogViewError: one cannot be read.
    """

    def __init__(self, folder: Path, size_pixels: int) -> None:
        if size_pixels % LATTICE_CELLS:
            raise UsageError(
                f"the pictures have {size_pixels} pixels a side, and scenes lie on a lattice of {LATTICE_CELLS} cells: "
                f"their composition can be read only with a multiple of {LATTICE_CELLS}"
            )
        self._size_pixels, self._cell = size_pixels, size_pixels // LATTICE_CELLS
        found: dict[str, dict[tuple[str, Style], Float32[np.ndarray, "v"]]] = {
            ground: {} for ground in GROUNDS
        }
        for entry in entries_of(folder, "train"):
            scene = Scene.from_json(entry["scene"])
            for placement in scene.placements:
                look = (placement.code, scene.style)
                if _is_plain(placement) and look not in found[scene.ground]:
                    picture = self.picture(folder, entry["file_name"]).astype(np.float32)
                    found[scene.ground][look] = self._window(picture, placement.column, placement.row)
        self._looks = {ground: self._looks_on(ground, looks) for ground, looks in found.items()}
        self._styles: dict[str, set[Style]] = {}
        for looks in found.values():
            for code, style in looks:
                self._styles.setdefault(code, set()).add(style)

    def picture(self, folder: Path, file_name: str) -> UInt8[np.ndarray, "y x 3"]:
        """Return a picture of a data set.

        Raises:
            UsageError: it has not the size that this reader is for.
            CogViewError: it cannot be read.
        """
        image = read_image(folder / file_name)
        if image.size != (self._size_pixels, self._size_pixels):
            raise UsageError(
                f"the pictures of {folder} have {image.width} x {image.height} pixels, and those to be read "
                f"{self._size_pixels} x {self._size_pixels}: build the data set with --data.size-pixels "
                f"{self._size_pixels}"
            )
        return np.asarray(image)

    def unknown_in(self, scene: Scene) -> str | None:
        """Return in words what of a scene the training pictures do not show; None if all of it can be read.

        An object has to be known on the ground in each style that they show it in, since a model may draw any of them.
        """
        for placement in scene.placements:
            if not _is_plain(placement):
                return f"no small icon of the table of objects as it is (code {placement.code}, {placement.size} cells)"
            thing = scene_objects()[placement.code]
            name, styles = thing.singular[0], self._styles.get(placement.code, set())
            if scene.style not in styles:
                return f"the {name} in the style {scene.style}"
            wanted = {style for style in styles if (style, scene.ground) not in thing.swallowed_by}
            for style in sorted(wanted | {scene.style}):
                if (placement.code, style) not in self._looks[scene.ground].known:
                    return f"the {name} in the style {style} on {scene.ground} ground"
        return None

    def read(self, picture: UInt8[np.ndarray, "y x 3"]) -> Shown:
        """Return what a picture shows, the ground by its four edges."""
        values = picture.astype(np.float32)
        ground = ground_of(values)
        looks = self._looks[ground]
        side = LATTICE_CELLS - SMALL_CELLS + 1
        places = [(column, row) for row in range(side) for column in range(side)]
        windows = np.stack([self._window(values, *place) for place in places]) - looks.bare
        difference = (windows**2).sum(1)[:, None] - 2 * windows @ looks.pixels.T + looks.energy
        explained = 1 - difference / looks.energy
        placements: list[Placement] = []
        styles: set[Style] = set()
        for flat in np.argsort(-explained, axis=None):
            place, look = np.unravel_index(flat, explained.shape)
            column, row = places[place]
            if explained[place, look] < LEAST_EXPLAINED:
                break
            if all(max(abs(column - p.column), abs(row - p.row)) >= SMALL_CELLS for p in placements):
                code, style = looks.known[look]
                placements.append(Placement(code=code, column=column, row=row, size=SMALL_CELLS))
                styles.add(style)
        style_seen = styles.pop() if len(styles) == 1 else None
        return Shown(ground=ground, placements=tuple(placements), style=style_seen)

    def _looks_on(self, ground: str, looks: dict[tuple[str, Style], Float32[np.ndarray, "v"]]) -> _Looks:
        num_seen = len(range(0, SMALL_CELLS * self._cell, _STEP)) ** 2
        bare = np.tile(np.array(GROUNDS[ground].rgb, dtype=np.float32), num_seen)
        pixels = np.stack([*looks.values()]) - bare if looks else np.empty((0, len(bare)), dtype=np.float32)
        return _Looks(known=[*looks], bare=bare, pixels=pixels, energy=(pixels**2).sum(1))

    def _window(
        self, values: Float32[np.ndarray, "y x 3"], column: int, row: int
    ) -> Float32[np.ndarray, "v"]:
        top, left, side = row * self._cell, column * self._cell, SMALL_CELLS * self._cell
        return values[top : top + side : _STEP, left : left + side : _STEP].ravel()


def _is_plain(placement: Placement) -> bool:
    """Return whether an icon is an object of the world, of the size of objects in company, and not drawn otherwise."""
    return placement.size == SMALL_CELLS and not placement.variation and placement.code in scene_objects()


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
        ground = GROUNDS[scene.ground]
        named = [text for text in texts if any(name in text for name in ground.english + ground.chinese)]
        if named and (num is None or len(asked) < num):
            asked.append(AskedScene(text=named[0], scene=scene, file_name=entry["file_name"]))
    return asked


def form_of(text: str, scene: Scene) -> str:
    """Return a caption with an X for each name of its things, since "top hat" is no relation."""
    names = {name for p in scene.placements for name in _names_of(p.code)}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(re.escape(name), "X", text, flags=re.IGNORECASE)
    return re.sub(r"\ban? X", "a X", text, flags=re.IGNORECASE)


def _names_of(code: str) -> tuple[str, ...]:
    thing = scene_objects()[code]
    return (*thing.singular, *thing.plural, *thing.chinese)


def redrawn(tokenizer: ImageTokenizer, picture: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x 3"]:
    """Return a picture as the image tokenizer redraws it: what a model without fault would draw."""
    pixels = torch.from_numpy(image_to_array(Image.fromarray(picture)))[None].to(tokenizer.device)
    return np.asarray(tensor_to_images(tokenizer.decode(tokenizer.encode(pixels)))[0])


def judge(asked: AskedScene, shown: Shown, qualities: Sequence[str] = QUALITIES) -> dict[str, float | None]:
    """Return what is right, 0 or 1, with the share of the objects that are found; None where nothing was asked.

    Args:
        asked: what the picture should show.
        shown: what it shows.
        qualities: those of `QUALITIES` that are judged; `all` is right if each of them is.
    """
    wanted, seen = (Counter(p.code for p in scene.placements) for scene in (asked.scene, shown))
    verdicts: dict[str, float | None] = {
        "number": float(wanted.total() == seen.total()),
        "objects": float(wanted == seen),
        "ground": float(shown.ground == asked.scene.ground),
        "relation": float(_is_relation_right(asked.scene, shown)) if asked.tells_relation else None,
        "style": float(shown.style == asked.scene.style) if asked.tells_style else None,
    }
    return {
        "objects_found": (wanted & seen).total() / wanted.total(),
        **{quality: verdicts[quality] for quality in qualities},
        "all": float(all(verdicts[quality] in (None, 1.0) for quality in qualities)),
    }


def _is_relation_right(scene: Scene, shown: Shown) -> bool:
    by_code = {placement.code: placement for placement in shown.placements}
    first, second = scene.placements
    if first.code not in by_code or second.code not in by_code:
        return False
    return set(relation_of(first, second)) <= set(relation_of(by_code[first.code], by_code[second.code]))


def verdicts_on(asked: Sequence[AskedScene], shown: Sequence[Shown]) -> Float64[np.ndarray, "n q"]:
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


def shuffled_shares(asked: Sequence[AskedScene], shown: Sequence[Shown]) -> dict[str, float | None]:
    """Return by name of `PARTS` the share that is right under the captions of up to 50 other scenes each."""
    verdicts = np.concatenate([verdicts_on(others, shown) for others in _with_others(asked)])
    return {name: share["value"] for name, share in shares_of(verdicts).items()}


def validated(
    asked: Sequence[AskedScene], pictures: Sequence[Shown], redrawn_pictures: Sequence[Shown]
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
    chance = shuffled_shares(asked, [Shown.of(each.scene) for each in asked])
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
