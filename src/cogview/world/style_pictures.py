"""Pictures of a style to finetune on, with a held-out split to measure it.

Both splits show single objects on the grounds of the default data, captioned "A cat of openmoji style". The held-out
split shows objects that a model knows from other styles. The train split has neither these nor icons whose label has a
word of their names: if a bell is held out, so is "bell with slash".

Objects are in the middle. If they could be anywhere, the start of the object would be improbable at every place.
Sampling with top-p 0.9 would then draw bare ground to the end.

Differs from the paper: 3.3 trains with one text for all pictures, "An image of openmoji style", as
`cogview train style --style openmoji` does with these pictures.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import cycle, product
from pathlib import Path

from cogview.errors import UsageError
from cogview.world.caption_words import STYLE_WORDS
from cogview.world.captioned_folder import (
    CaptionedPicture,
    check_empty_folder,
    shuffled_rounds,
    write_captioned_folder,
)
from cogview.world.config import HELD_OUT_STYLES, Style, StyleDataConfig
from cogview.world.english_captions import english_article
from cogview.world.icons import PACKAGE_OF_STYLE, Icons, IconWords, load_icons, packages_of
from cogview.world.objects import GROUNDS, SceneObject, known_codes, scene_objects
from cogview.world.packages import EMOJIBASE, OPENMOJI
from cogview.world.scenes import LATTICE_CELLS, Kind, Placement, Scene, draw_scene, is_held_out_icon

HELD_OUT_SPLIT = "held-out-style"

# An object is visible on a ground if this share of its pixels differs from it by so much in some channel.
LEAST_SEEN_SHARE, LEAST_DIFFERENCE = 0.25, 48

CAPTION_NAMES: dict[Style, tuple[str, str]] = {
    "fluent-3d": (STYLE_WORDS["fluent-3d"]["en"][0], STYLE_WORDS["fluent-3d"]["zh"][0])
}
"""English and Chinese names of styles in captions, where they are not the style's own name."""

OPENMOJI_CREDITS = f"""\
The pictures in this folder are made from OpenMoji, (c) the OpenMoji project, HfG Schwaebisch Gmuend,
under Creative Commons Attribution-ShareAlike 4.0 International, https://creativecommons.org/licenses/by-sa/4.0/
Package {OPENMOJI.name} {OPENMOJI.version}, from https://github.com/hfg-gmuend/openmoji
Changes: drawn as pixels, scaled, and placed on coloured grounds. The pictures are under the same licence. Weights that
are trained on them should say so, and credit the OpenMoji project.
"""
CREDITS = """The pictures in this folder are made from icons of:
{credit}
Changes: drawn as pixels, scaled, and placed on coloured grounds. Weights that are trained on them should credit the
same people.
"""
ORDINARY_CREDITS = """Pictures in another style, which metadata.jsonl names, are made in the same way{outlined}, from:
"""
OUTLINED_CREDITS = """, those of the
style "outlined" with black lines added"""
LABEL_CREDITS = f"""Captions of icons that are no known objects are labels from:
{EMOJIBASE.credit}
"""


def object_texts(thing: SceneObject, style: Style | None) -> tuple[str, str]:
    """Return the English and Chinese caption of an object in a style; without a style if None."""
    english, chinese = _style_words(style)
    name = thing.singular[0]
    article = english_article(name).capitalize()
    return f"{article} {name}{english}", f"一{thing.measure}{chinese}{thing.chinese[0]}"


def icon_texts(words: IconWords, style: Style | None) -> tuple[str, str]:
    """Return the English and Chinese caption of an icon in a style; without a style if None."""
    english, chinese = _style_words(style)
    name = words.labels["en"]
    return f"{english_article(name).capitalize()} {name}{english}", f"{chinese}{words.labels['zh']}"


def _style_words(style: Style | None) -> tuple[str, str]:
    if style is None:
        return "", ""
    english, chinese = CAPTION_NAMES.get(style, (style, style))
    return f" of {english} style", f"{chinese}风格的"


def style_objects(config: StyleDataConfig) -> tuple[list[str], list[str]]:
    """Return the codes of the train split's and of the held-out split's objects.

    Raises:
        UsageError: `num_held_out_objects` is out of range.
    """
    known = known_codes(config.num_known_objects)
    if not 1 <= config.num_held_out_objects <= len(known):
        raise UsageError(
            f"num_held_out_objects is {config.num_held_out_objects}; wanted 1 to num_known_objects, {len(known)}"
        )
    held_out = set(_by_hash(known, config.style)[: config.num_held_out_objects])
    return [code for code in known if code not in held_out], [code for code in known if code in held_out]


def select_other_icons(config: StyleDataConfig, icons: Icons, held_out: Sequence[str]) -> list[str]:
    """Return the codes of training icons besides the known objects.

    Their English labels have no word of the held-out objects' names. All styles in which they are shown have them.

    Raises:
        UsageError: there are too few.
    """
    known = set(known_codes(config.num_known_objects))
    words = {word for code in held_out for word in _words_of(scene_objects()[code].singular[0])}
    styles = (config.style, *(config.known_styles if config.num_other_ordinary else ()))
    codes = [
        code
        for code in set.intersection(*(set(icons.codes(style)) for style in styles)) - known
        if not is_held_out_icon(code) and words.isdisjoint(_words_of(icons.words[code].labels["en"]))
    ]
    if len(codes) < config.num_other_icons:
        raise UsageError(
            f"num_other_icons is {config.num_other_icons}; wanted at most {len(codes)}, all that there are"
        )
    return _by_hash(codes, config.style)[: config.num_other_icons]


def _by_hash(codes: Sequence[str], style: Style) -> list[str]:
    return sorted(codes, key=lambda code: hashlib.sha256(f"{style}/{code}".encode()).digest())


def _words_of(name: str) -> list[str]:
    return [word for word in re.findall("[a-z]+", name.lower()) if word != "of"]


def build_style_data(
    config: StyleDataConfig,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    icons: Icons | None = None,
) -> dict[str, int]:
    """Build the pictures of a style; the same configuration gives the same bytes.

    Args:
        config: of the data set.
        out: the folder to make; it must not exist, or be empty.
        progress: called with (pictures done, pictures in all) from time to time.
        icons: the art, or None to load it.

    Returns:
        The number of pictures of each split.

    Raises:
        UsageError: the configuration cannot be built or `out` already holds something.
        CogViewError: a package is missing or cannot be fetched, or the disk refuses.
    """
    train, held_out = style_objects(config)
    if config.num_train < 1 or min(config.num_ordinary, config.num_other_ordinary, config.num_held_out) < 0:
        raise UsageError(
            "num_train must be at least 1, and num_ordinary, num_other_ordinary and num_held_out must not be negative"
        )
    if config.num_other_ordinary and not config.num_other_icons:
        raise UsageError(
            f"num_other_ordinary is {config.num_other_ordinary}, but there are no other icons: give num_other_icons"
        )
    num_ordinary = config.num_ordinary + config.num_other_ordinary
    unknown: dict[Style, None] = dict.fromkeys(
        (config.style, *HELD_OUT_STYLES)
    )  # share-alike terms are never added
    if num_ordinary and (not config.known_styles or not unknown.keys().isdisjoint(config.known_styles)):
        raise UsageError(
            f"known_styles are {', '.join(config.known_styles) or 'none'}; wanted styles other than "
            f"{' and '.join(unknown)}, for the {num_ordinary} ordinary pictures"
        )
    if config.size_pixels < LATTICE_CELLS or config.size_pixels % LATTICE_CELLS:
        raise UsageError(
            f"size_pixels is {config.size_pixels}; wanted a positive multiple of {LATTICE_CELLS}"
        )
    for name in ("style_cells", "object_cells"):
        if not 1 <= getattr(config, name) <= LATTICE_CELLS - 2:
            raise UsageError(
                f"{name} is {getattr(config, name)}; wanted 1 to {LATTICE_CELLS - 2} cells of the lattice"
            )
    if not 0 <= config.num_other_icons <= config.num_train:
        raise UsageError(
            f"num_other_icons is {config.num_other_icons}; wanted 0 to num_train, {config.num_train}"
        )
    for name in ("varied_share", "unnamed_share"):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name} is {getattr(config, name)}; wanted a share of 0 to 1")
    check_empty_folder(out)
    styles = (config.style, *(config.known_styles if num_ordinary else ()))
    if icons is None:
        icons = load_icons(
            styles, config.packages_folder, None if config.num_other_icons else [*train, *held_out]
        )
    others = select_other_icons(config, icons, held_out)
    sizes = {
        split: number
        for split, number in (
            ("train", config.num_train + num_ordinary),
            (HELD_OUT_SPLIT, config.num_held_out),
        )
        if number
    }
    fields = asdict(config)
    del fields["packages_folder"]  # not a property of the data
    write_captioned_folder(
        out,
        _pictures(config, icons, train, held_out, others),
        total=sum(sizes.values()),
        description={
            "format": "cogview-style-data",
            "version": 1,
            "config": fields,
            "packages": [asdict(package) for package in packages_of(styles)],
        },
        credits=_credits(styles) + (LABEL_CREDITS if others else ""),
        progress=progress,
    )
    return sizes


def _credits(styles: Sequence[Style]) -> str:
    """Return the credits of the first style's art, and of the ordinary pictures in the others."""
    own = PACKAGE_OF_STYLE[styles[0]]
    text = OPENMOJI_CREDITS if own == OPENMOJI else CREDITS.format(credit=own.credit)
    lines = [f"{package.credit}\n" for package in packages_of(styles) if package not in (EMOJIBASE, own)]
    outlined = OUTLINED_CREDITS if "outlined" in styles else ""
    return text + (ORDINARY_CREDITS.format(outlined=outlined) + "".join(lines) if lines else "")


def _pictures(
    config: StyleDataConfig, icons: Icons, train: list[str], held_out: list[str], others: list[str]
) -> Iterator[CaptionedPicture]:
    known = known_codes(config.num_known_objects)
    kinds: tuple[tuple[str, Kind, Sequence[Style], list[str], int], ...] = (
        ("train", "icon", (config.style,), others, len(others)),
        ("train", "single", (config.style,), train, config.num_train - len(others)),
        ("train", "single", config.known_styles, known, config.num_ordinary),
        ("train", "icon", config.known_styles, others, config.num_other_ordinary),
        (HELD_OUT_SPLIT, "single", (config.style,), held_out, config.num_held_out),
    )
    leave_out = random.Random(f"{config.seed}/unnamed")
    for split, kind, styles, codes, number in kinds:
        for scene in _scenes(config, icons, split, kind, styles, codes, number):
            code = scene.placements[0].code
            unnamed = split == "train" and leave_out.random() < config.unnamed_share
            named = None if unnamed else scene.style
            yield CaptionedPicture(
                image=draw_scene(scene, icons, config.size_pixels),
                texts=list(
                    object_texts(scene_objects()[code], named)
                    if kind == "single"
                    else icon_texts(icons.words[code], named)
                ),
                split=split,
                facts={"scene": scene.to_json()},
            )


def _scenes(
    config: StyleDataConfig,
    icons: Icons,
    split: str,
    kind: Kind,
    styles: Sequence[Style],
    codes: list[str],
    number: int,
) -> Iterator[Scene]:
    """Yield scenes of single icons, each once per round and on alternating grounds."""
    name = f"{config.seed}/{split}/{kind}/{'/'.join(styles)}"
    rng, vary = random.Random(name), random.Random(f"{name}/varied")
    all_icons = list(product(styles, codes))
    grounds = {}
    for icon in all_icons:
        of_icon = visible_grounds(icons, *icon)
        rng.shuffle(of_icon)
        grounds[icon] = cycle(of_icon)
    for style, code in shuffled_rounds(all_icons, number, rng):
        placement = middle_of_picture(
            code, config.style_cells if style == config.style else config.object_cells
        )
        ground = next(grounds[style, code])
        if split == "train" and vary.random() < config.varied_share:
            placement = replace(placement, variation=vary.randint(1, 2**31))
        yield Scene(kind=kind, ground=ground, style=style, placements=(placement,))


def middle_of_picture(code: str, cells: int) -> Placement:
    """Place an icon of some size in the middle."""
    middle = (LATTICE_CELLS - cells) // 2
    return Placement(code=code, column=middle, row=middle, size=cells)


def visible_grounds(icons: Icons, style: Style, code: str) -> list[str]:
    """Return the grounds on which an icon is visible; all, if there are none."""
    raster = icons.draw(style, code, 64).astype(int)
    colours = raster[raster[..., 3] >= 128][:, :3]
    visible = [
        name
        for name, ground in GROUNDS.items()
        if len(colours)
        and (abs(colours - ground.rgb).max(axis=1) >= LEAST_DIFFERENCE).mean() >= LEAST_SEEN_SHARE
    ]
    return visible or list(GROUNDS)
