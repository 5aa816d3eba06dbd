"""Scenes are read to the cell, in all colours and sizes; no thing is read within another, or across several."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.composition import entries_of
from cogview.evaluation.scene_reader import SceneReader
from cogview.world.colours import COLOURS
from cogview.world.icon_sheets import ICONS_FOLDER, INDEX, IconSheets
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS, scene_objects
from cogview.world.scenes import Placement, Scene, draw_scene
from scene_pictures import CODES, STYLES, scene_folder, scene_icons

SIZE = 32
NAME = scene_objects()[CODES[0]].singular[0]
THING = Placement(code=CODES[0], column=4, row=5, size=7)
SCENE = Scene(kind="single", ground="red", style="twemoji", placements=(THING,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_folder(tmp_path_factory.mktemp("home") / "pictures", SIZE, 60)


@pytest.fixture(scope="module")
def reader(folder: Path) -> SceneReader:
    return SceneReader(folder, SIZE)


@pytest.mark.slow
def test_scenes_are_read_to_the_cell(folder: Path, reader: SceneReader) -> None:
    scenes = [Scene.from_json(entry["scene"]) for entry in entries_of(folder, "held-out-composition")]
    pictures = [reader.picture(folder, f"held-out-composition-{number}.png") for number in range(len(scenes))]
    calls: list[int] = []
    for scene, shown in zip(scenes, reader.read_all(pictures, calls.append), strict=True):
        assert (shown.ground, shown.style) == (scene.ground, scene.style)
        assert set(shown.placements) == set(scene.placements)
        assert all(each.colour in said for each, said in zip(shown.placements, shown.colours, strict=True))
        assert reader.unknown_in(scene) is None
    assert calls == list(range(1, len(scenes) + 1))
    assert {scene.kind for scene in scenes} == {"single", "count", "relation", "group", "groups", "sizes"}
    assert {each.size for scene in scenes for each in scene.placements} == {4, 7, 9}


@pytest.mark.slow
def test_every_colour_is_told_on_every_ground(reader: SceneReader) -> None:
    scenes = [
        replace(SCENE, ground=ground, placements=(replace(THING, colour=colour, size=4),))
        for ground in GROUNDS
        for colour in COLOURS
        if colour != ground
    ]
    pictures = [np.asarray(draw_scene(scene, scene_icons(), SIZE)) for scene in scenes]
    for scene, shown in zip(scenes, reader.read_all(pictures), strict=True):
        assert shown.placements == scene.placements


def test_where_there_is_nothing_nothing_is_read(reader: SceneReader) -> None:
    bare = np.full((SIZE, SIZE, 3), GROUNDS["red"].rgb, dtype=np.uint8)
    assert reader.read(bare).placements == ()
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert reader.read(noise).placements == ()


DISC = '<circle cx="8" cy="8" r="8" fill="#fff"/>'
FOUR_DISCS = "".join(f'<circle cx="{x}" cy="{y}" r="4" fill="#fff"/>' for x in (4, 12) for y in (4, 12))
SQUARE = '<rect width="16" height="16" fill="#fff"/>'


def reader_of(folder: Path, *drawings: str) -> tuple[SceneReader, Icons]:
    """Return a reader of some drawings, and their icons, in the order of `CODES`."""
    start = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16">'
    art = {code: f"{start}{drawing}</svg>" for code, drawing in zip(CODES, drawings, strict=False)}
    icons = Icons({"twemoji": art}, {})
    IconSheets.write(folder, icons, ("twemoji",), list(art), (4, 7, 8, 9), 128, with_colours=False)
    return SceneReader(folder, 128), icons


@pytest.mark.parametrize("size", [4, 7, 8, 9])
@pytest.mark.parametrize("drawing", [DISC, SQUARE])
def test_a_thing_is_not_read_within_itself(drawing: str, size: int, tmp_path: Path) -> None:
    reader, icons = reader_of(tmp_path, drawing)
    scene = replace(SCENE, placements=(replace(THING, size=size),))
    assert reader.read(np.asarray(draw_scene(scene, icons, 128))).placements == scene.placements


@pytest.mark.parametrize("drawing", [DISC, SQUARE])
def test_small_things_side_by_side_are_not_a_large_one(drawing: str, tmp_path: Path) -> None:
    reader, icons = reader_of(tmp_path, drawing, FOUR_DISCS)
    places = [(1, 1), (6, 1), (1, 6), (6, 6)]
    placements = tuple(replace(THING, column=column, row=row, size=4) for column, row in places)
    scene = replace(SCENE, kind="count", placements=placements)
    assert set(reader.read(np.asarray(draw_scene(scene, icons, 128))).placements) == set(placements)
    # What explains several at once explains more than each of them, and less than all.
    touching = tuple(
        replace(THING, column=column, row=row, size=4) for column, row in [(2, 2), (6, 2), (2, 6), (6, 6)]
    )
    scene = replace(SCENE, kind="count", placements=touching)
    reader, icons = reader_of(tmp_path, DISC)
    assert set(reader.read(np.asarray(draw_scene(scene, icons, 128))).placements) == set(touching)


def test_what_the_icons_do_not_show_is_named(reader: SceneReader) -> None:
    stranger = next(code for code in scene_objects() if code not in CODES)
    name = scene_objects()[stranger].singular[0]
    plain = next(code for code in CODES if not scene_objects()[code].has_colours)
    for placement, said in (
        (replace(THING, code=stranger), f"the {name} in the style twemoji"),
        (replace(THING, code="1f700"), "no icon of the table"),
        (replace(THING, size=12), "12 cells"),
        (replace(THING, variation=3), "no icon of the table"),
        (replace(THING, code=plain, colour="blue"), "in blue"),
    ):
        assert said in str(reader.unknown_in(replace(SCENE, placements=(placement,))))
    assert reader.unknown_in(replace(SCENE, style="noto")) == f"the {NAME} in the style noto"


def test_data_sets_without_icons_or_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"icons/index.json"):
        SceneReader(tmp_path, SIZE)
    with pytest.raises(UsageError, match=r"32 x 32 pixels, .* 64 x 64: .* --data.size-pixels 64"):
        SceneReader(folder, 64)
    with pytest.raises(UsageError, match="multiple of 16"):
        SceneReader(folder, 40)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "cogview-icon-sheets", "version": 2}'])
def test_a_damaged_index_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / ICONS_FOLDER).mkdir()
    (tmp_path / ICONS_FOLDER / INDEX).write_text(content)
    with pytest.raises(CogViewError, match="cannot be read"):
        IconSheets.of(tmp_path)


def test_damaged_icons_are_one_line(tmp_path: Path) -> None:
    IconSheets.write(tmp_path, scene_icons(), STYLES, CODES, (4,), SIZE, with_colours=False)
    sheet = next((tmp_path / ICONS_FOLDER).glob("*.npz"))
    whole = sheet.read_bytes()
    index = tmp_path / ICONS_FOLDER / INDEX
    for content in (b"", b"PK", whole[:-40], None):
        sheet.unlink()
        if content is not None:
            sheet.write_bytes(content)
        with pytest.raises(CogViewError, match="cannot be read"):
            SceneReader(tmp_path, SIZE).read(np.zeros((SIZE, SIZE, 3), np.uint8))
        sheet.write_bytes(whole)
    told = json.loads(index.read_text())
    index.write_text(json.dumps(told | {"codes": dict.fromkeys(STYLES, CODES[1:])}))
    with pytest.raises(CogViewError, match=r"got uint8 \(8, 8, 8, 4\), wanted uint8 \(7, 8, 8, 4\)"):
        SceneReader(tmp_path, SIZE).read(np.zeros((SIZE, SIZE, 3), np.uint8))
