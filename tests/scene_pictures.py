"""Scenes made up for tests: one coloured shape per object and style, and a folder of them as the default data's."""

import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

from cogview.world.captions import captions
from cogview.world.config import DefaultDataConfig, Style
from cogview.world.icon_sheets import IconSheets
from cogview.world.icons import Icons
from cogview.world.objects import known_codes
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import Placement, Scene, draw_scene

CODES = known_codes(8)
STYLES: tuple[Style, ...] = ("twemoji", "fluent-flat")


def scene_art(codes: Iterable[str], styles: Iterable[Style]) -> dict[Style, dict[str, str | bytes]]:
    """Return art in which all icons differ."""
    return {style: {code: _shape(style, code) for code in codes} for style in styles}


def scene_icons() -> Icons:
    """Return icons of six objects in two styles."""
    return Icons(scene_art(CODES, STYLES), {})


SIZES = (4, 7, 9)


def scene_folder(folder: Path, size_pixels: int, num_held_out: int) -> Path:
    """Write a picture of each object, held-out scenes of objects in all colours and sizes, and the icons."""
    singles = [
        Scene(
            kind="single",
            ground="gray",
            style=STYLES[0],
            placements=(Placement(code=code, column=4, row=5, size=7),),
        )
        for code in CODES
    ]
    config = DefaultDataConfig(
        num_objects=len(CODES),
        styles=STYLES,
        single_cells=7,
        sized_share=0.5,
        groups_share=0.2,
        sizes_share=0.2,
        coloured_share=0.4,
    )
    composed = [make_scene(config, "train", number) for number in range(num_held_out)]
    folder.mkdir(parents=True)
    icons, lines = scene_icons(), []
    for split, scenes in (("train", singles), ("held-out-composition", composed)):
        for number, scene in enumerate(scenes):
            name = f"{split}-{number}.png"
            draw_scene(scene, icons, size_pixels).save(folder / name)
            rng = random.Random(name)
            texts = [*captions(scene, rng, 3, "zh"), *captions(scene, rng, 3, "en")]
            entry = {"file_name": name, "texts": texts, "split": split, "scene": scene.to_json()}
            lines.append(json.dumps(entry) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    IconSheets.write(folder, icons, STYLES, CODES, SIZES, size_pixels, with_colours=True)
    return folder


def _shape(style: str, code: str) -> str:
    """Return a disc of a colour of its own, with holes of its own, by which it is known in any colour."""
    digest = hashlib.sha256(f"{style}{code}".encode()).hexdigest()
    pattern = int(digest[6:10], 16)
    holes = "".join(
        f"M{2 + 4 * (number % 3)} {2 + 4 * (number // 3)}h4v4h-4z"
        for number in range(9)
        if pattern >> number & 1
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16">'
        f'<path fill-rule="evenodd" fill="#{digest[:6]}" d="M.5 8a7.5 7.5 0 1 0 15 0a7.5 7.5 0 1 0 -15 0z{holes}"/>'
        "</svg>"
    )
