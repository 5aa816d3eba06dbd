"""The pictures of a style, and of objects to measure by that training never shows."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.data.image_folder import ImageFolder
from cogview.errors import UsageError
from cogview.recipes.config import DataRecipe
from cogview.recipes.default_data import (
    bundled,
    openmoji_style,
    world,
    world_3d_style,
    world_openmoji_style,
)
from cogview.world import style_pictures
from cogview.world.caption_words import STYLE_WORDS
from cogview.world.config import DefaultDataConfig, Style, StyleDataConfig
from cogview.world.icons import Icons, IconWords
from cogview.world.objects import GROUNDS, known_codes, scene_objects
from cogview.world.scenes import Scene, draw_scene, is_held_out_icon
from cogview.world.style_pictures import (
    CAPTION_NAMES,
    build_style_data,
    middle_of_picture,
    object_texts,
    select_other_icons,
    style_objects,
    visible_grounds,
)

CONFIG = StyleDataConfig(
    num_train=260,
    num_other_icons=20,
    num_ordinary=300,
    num_other_ordinary=0,
    num_held_out=40,
    known_styles=("twemoji", "fluent-flat", "outlined"),
    unnamed_share=0.0,
    size_pixels=32,
    varied_share=0.5,
)


KNOWN = set(known_codes(CONFIG.num_known_objects))


def read_metadata(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def of_split(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = [line for line in read_metadata(folder) if line["split"] == split]
    return [line for line in lines if line["scene"]["style"] == "openmoji"]


def ordinary(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metadata(folder) if line["scene"]["style"] != "openmoji"]


def of_others(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["scene"]["kind"] == "icon"]


def of_objects(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["scene"]["kind"] == "single"]


def code_of(line: dict[str, Any]) -> str:
    return Scene.from_json(line["scene"]).placements[0].code


@pytest.fixture(scope="module")
def built(icons: Icons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style") / "pictures"
    assert build_style_data(CONFIG, folder, icons=icons) == {"train": 560, "held-out-style": 40}
    return folder


@pytest.mark.slow
def test_captions_name_object_and_style(built: Path) -> None:
    for line in of_objects(read_metadata(built)):
        thing = scene_objects()[code_of(line)]
        english, chinese = line["texts"]
        style = line["scene"]["style"]
        assert english.endswith(f" {thing.singular[0]} of {style} style")
        assert chinese == f"一{thing.measure}{style}风格的{thing.chinese[0]}"
    cat = scene_objects()["1f431"]
    assert object_texts(cat, "openmoji") == ("A cat of openmoji style", "一只openmoji风格的猫")
    assert object_texts(cat, "fluent-3d") == ("A cat of 3D style", "一只立体风格的猫")
    umbrella = next(thing for thing in scene_objects().values() if thing.singular[0] == "umbrella")
    assert object_texts(umbrella, "openmoji")[0] == "An umbrella of openmoji style"


@pytest.mark.slow
def test_some_captions_leave_the_style_out(icons: Icons, built: Path, tmp_path: Path) -> None:
    build_style_data(replace(CONFIG, unnamed_share=0.4), tmp_path / "less", icons=icons)
    unnamed: Counter[tuple[str, bool, bool]] = Counter()
    for line, named in zip(read_metadata(tmp_path / "less"), read_metadata(built), strict=True):
        assert line["scene"] == named["scene"]
        style = line["scene"]["style"]
        bare = [
            text.replace(f" of {style} style", "").replace(f"{style}风格的", "") for text in named["texts"]
        ]
        assert bare[0] in named["texts"][0]
        assert bare != named["texts"]
        assert line["texts"] in (bare, named["texts"])
        unnamed[line["split"], style == "openmoji", line["texts"] == bare] += 1
    assert unnamed["held-out-style", True, True] == 0
    for of_style, number in ((True, CONFIG.num_train), (False, CONFIG.num_ordinary)):
        assert 0.25 < unnamed["train", of_style, True] / number < 0.55
    assert object_texts(scene_objects()["1f431"], None) == ("A cat", "一只猫")


def test_other_icons_are_named_by_their_labels(built: Path, icons: Icons) -> None:
    for line in of_others(read_metadata(built)):
        words = icons.words[code_of(line)].labels
        style = line["scene"]["style"]
        assert line["texts"][0].split(" ", 1)[1] == f"{words['en']} of {style} style"
        assert line["texts"][1] == f"{style}风格的{words['zh']}"


def test_no_object_to_measure_by_is_seen_in_training(built: Path) -> None:
    train = {code_of(line) for line in of_split(built, "train")}
    held_out = {code_of(line) for line in of_split(built, "held-out-style")}
    assert len(held_out) == CONFIG.num_held_out_objects
    assert not train & held_out
    assert held_out < KNOWN  # the bundled model knows them all
    assert CONFIG.num_known_objects == bundled().data.num_objects
    assert not any(is_held_out_icon(code) for code in train)


LABELS = (
    ("1f515", "bell with slash"),
    ("1f3a0", "carousel horse"),
    ("1f40e", "horse"),
    ("1f600", "grinning face"),
    ("1f4ff", "prayer beads"),
)


def test_no_other_icon_is_nearly_one_to_measure_by(icons: Icons) -> None:
    bell, horse = (code for code in known_codes(80) if scene_objects()[code].singular[0] in {"bell", "horse"})
    near = {"1f515", "1f3a0", "1f40e"}  # bell with slash, carousel horse, horse
    words = {
        code: IconWords(labels={"en": name, "zh": name}, tags={"en": (), "zh": ()}) for code, name in LABELS
    }
    art = dict.fromkeys(words, "<svg/>")
    few = Icons({"openmoji": art}, words)
    config = replace(CONFIG, num_other_icons=2, num_ordinary=0)
    assert set(select_other_icons(config, few, [bell, horse])) == set(words) - near
    with pytest.raises(UsageError, match="wanted at most 2"):
        select_other_icons(replace(config, num_other_icons=3), few, [bell, horse])


def test_other_icons_are_shown_once(built: Path) -> None:
    codes = [code_of(line) for line in of_others(of_split(built, "train"))]
    assert len(codes) == len(set(codes)) == CONFIG.num_other_icons
    assert not KNOWN.intersection(codes)
    assert not of_others(ordinary(built))


def test_ordinary_pictures_show_all_that_the_model_knows_as_it_knows_it(built: Path) -> None:
    lines = ordinary(built)
    assert {line["split"] for line in lines} == {"train"}
    assert len(lines) == CONFIG.num_ordinary
    icons = Counter((line["scene"]["style"], code_of(line)) for line in of_objects(lines))
    assert set(icons) == set(product(CONFIG.known_styles, KNOWN))
    assert max(icons.values()) - min(icons.values()) <= 1


@pytest.mark.slow
def test_other_icons_can_be_shown_in_the_known_styles_too(icons: Icons, tmp_path: Path) -> None:
    config = replace(CONFIG, num_other_ordinary=80)
    assert build_style_data(config, tmp_path / "more", icons=icons)["train"] == 640
    shown = Counter(
        (line["scene"]["style"], code_of(line)) for line in of_others(ordinary(tmp_path / "more"))
    )
    in_the_style = {code_of(line) for line in of_others(of_split(tmp_path / "more", "train"))}
    assert set(shown) == set(product(CONFIG.known_styles, in_the_style))
    assert set(shown.values()) == {1, 2}


@pytest.mark.slow
def test_the_style_can_be_shown_by_known_objects_alone(icons: Icons, tmp_path: Path) -> None:
    config = replace(CONFIG, num_train=60, num_other_icons=0, num_ordinary=0)
    assert build_style_data(config, tmp_path / "known", icons=icons)["train"] == 60
    shown = {code_of(line) for line in of_split(tmp_path / "known", "train")}
    held_out = {code_of(line) for line in of_split(tmp_path / "known", "held-out-style")}
    assert shown == KNOWN - held_out
    assert "Twitter" not in (tmp_path / "known" / "CREDITS.txt").read_text(encoding="utf-8")


def test_objects_come_equally_often_and_on_many_grounds(built: Path) -> None:
    lines = of_objects(of_split(built, "train"))
    numbers = Counter(map(code_of, lines)).values()
    assert len(numbers) == len(style_objects(CONFIG)[0])
    assert max(numbers) - min(numbers) <= 1
    grounds = Counter((code_of(line), line["scene"]["ground"]) for line in lines)
    assert max(grounds.values()) == 1
    assert {line["scene"]["ground"] for line in lines} == set(GROUNDS)


def test_icons_are_varied_in_training_alone(built: Path) -> None:
    lines = read_metadata(built)
    varied = Counter((line["split"], "variation" in line["scene"]["objects"][0]) for line in lines)
    assert min(varied["train", True], varied["train", False]) > 180
    assert varied["held-out-style", True] == 0


def test_pictures_are_the_scenes_that_they_say(built: Path, icons: Icons) -> None:
    for line in read_metadata(built)[::40]:
        scene = Scene.from_json(line["scene"])
        (placement,) = scene.placements
        size = CONFIG.style_cells if scene.style == "openmoji" else bundled().data.single_cells
        assert replace(placement, variation=0) == middle_of_picture(placement.code, size)
        with Image.open(built / line["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(draw_scene(scene, icons, 32)))


def test_an_object_is_not_put_where_it_cannot_be_seen(icons: Icons) -> None:
    code = known_codes(2)[0]
    white = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="#fff"/></svg>'
    bright = Icons({"openmoji": {code: white}}, icons.words)
    assert set(visible_grounds(bright, "openmoji", code)) == set(GROUNDS) - {"white"}


def test_the_art_is_credited_and_its_licence_named(built: Path) -> None:
    text = (built / "CREDITS.txt").read_text(encoding="utf-8")
    assert "OpenMoji" in text
    assert "Attribution-ShareAlike 4.0" in text
    packages = json.loads((built / "data-config.json").read_text(encoding="utf-8"))["packages"]
    assert {package["licence"] for package in packages} == {"CC-BY-SA-4.0", "CC-BY-4.0", "MIT"}
    for package in packages:
        assert f"{package['name']} {package['version']}" in text


@pytest.mark.slow
def test_the_same_configuration_gives_the_same_bytes(icons: Icons, tmp_path: Path) -> None:
    config = replace(CONFIG, num_train=60, num_ordinary=60, num_held_out=20)
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        build_style_data(replace(config, seed=seed), tmp_path / name, icons=icons)
    once = tmp_path / "once"
    for path in (path for path in once.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(once)).read_bytes() == path.read_bytes()
    assert read_metadata(tmp_path / "other") != read_metadata(once)


def test_the_folder_can_be_tokenized_by_split(built: Path) -> None:
    assert len(ImageFolder(built, "train")) == 560
    assert len(ImageFolder(built, "held-out-style")) == 40


RECIPES = (openmoji_style, bundled), (world_openmoji_style, world), (world_3d_style, world)


@pytest.mark.parametrize(("recipe", "base"), RECIPES)
def test_a_recipe_shows_what_its_model_knows_in_a_style_that_it_does_not(
    recipe: Callable[[], DataRecipe], base: Callable[[], DataRecipe]
) -> None:
    config, known = recipe().data, base().data
    assert isinstance(config, StyleDataConfig)
    assert isinstance(known, DefaultDataConfig)
    assert config.num_known_objects == known.num_objects
    assert config.style not in known.styles
    assert config.object_cells == known.single_cells
    assert set(config.known_styles) <= {*known.styles, "outlined"}
    assert "outlined" not in config.known_styles or "twemoji" in known.styles
    told = CAPTION_NAMES.get(config.style, (config.style, config.style))
    words = [word for style in known.styles for names in STYLE_WORDS[style].values() for word in names]
    assert not [(name, word) for name in told for word in words if name in word or word in name]


@pytest.mark.parametrize("recipe", [world_openmoji_style, world_3d_style])
def test_a_style_of_the_larger_world_is_learnt_from_over_200_objects(
    recipe: Callable[[], DataRecipe],
) -> None:
    config = recipe().data
    assert isinstance(config, StyleDataConfig)
    train, held_out = style_objects(config)
    assert len(train) > 200
    assert len(held_out) == 40


@pytest.mark.slow
def test_another_style_is_told_and_credited_as_its_own(icons: Icons, tmp_path: Path) -> None:
    few = {"num_train": 240, "num_ordinary": 260, "num_held_out": 40, "size_pixels": 16}
    config = replace(world_3d_style().data, **few)
    assert isinstance(config, StyleDataConfig)
    out = tmp_path / "soft"
    assert build_style_data(config, out, icons=icons) == {"train": 500, "held-out-style": 40}
    visible: dict[tuple[str, Style], set[str]] = {}
    for line in read_metadata(out):
        thing, style = scene_objects()[code_of(line)], line["scene"]["style"]
        assert tuple(line["texts"]) in (object_texts(thing, style), object_texts(thing, None))
        visible.setdefault((line["split"], style), set()).add(thing.code)
    train, held_out = map(set, style_objects(config))
    assert visible == {
        ("train", "fluent-3d"): train,
        ("train", "fluent-flat"): train | held_out,
        ("held-out-style", "fluent-3d"): held_out,
    }
    credits = (out / "CREDITS.txt").read_text(encoding="utf-8")
    packages = json.loads((out / "data-config.json").read_text(encoding="utf-8"))["packages"]
    assert {package["licence"] for package in packages} == {"MIT"}
    assert all(f"{package['name']} {package['version']}, under MIT" in credits for package in packages[1:])
    assert "OpenMoji" not in credits
    assert "ShareAlike" not in credits
    assert "black lines" not in credits


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"style": "fluent-3d", "known_styles": ("openmoji",)}, "other than fluent-3d and openmoji"),
        ({"num_train": 0}, "num_train"),
        ({"num_held_out": -1}, "num_held_out"),
        ({"num_ordinary": -1}, "num_ordinary"),
        ({"num_other_ordinary": -1}, "num_other_ordinary"),
        ({"num_other_ordinary": 1, "num_other_icons": 0}, "give num_other_icons"),
        ({"num_other_ordinary": 1, "num_ordinary": 0, "known_styles": ()}, "known_styles"),
        ({"known_styles": ()}, "known_styles"),
        ({"known_styles": ("openmoji",)}, "known_styles"),
        ({"num_held_out_objects": 81}, "num_held_out_objects"),
        ({"num_held_out_objects": 0}, "num_held_out_objects"),
        ({"num_known_objects": 1}, "num_objects"),
        ({"size_pixels": 40}, "size_pixels"),
        ({"object_cells": 15}, "object_cells"),
        ({"style_cells": 0}, "style_cells"),
        ({"varied_share": 1.5}, "varied_share"),
        ({"unnamed_share": -0.1}, "unnamed_share"),
        ({"num_other_icons": -1}, "num_other_icons"),
        ({"num_other_icons": 261}, "wanted 0 to num_train, 260"),
    ],
)
def test_what_cannot_be_built_is_refused(
    change: dict[str, Any], named: str, icons: Icons, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=named):
        build_style_data(replace(CONFIG, **change), tmp_path / "out", icons=icons)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_builds_what_the_recipe_says(
    icons: Icons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert openmoji_style().data == StyleDataConfig()
    monkeypatch.setattr(style_pictures, "load_icons", lambda *_: icons)
    words = ["--data.size-pixels", "16", "--data.num-held-out", "20", "--data.num-other-icons", "9"]
    words += ["--data.num-ordinary", "100", "--json"]
    assert main(["data", "build", "openmoji-style", "--out", str(tmp_path / "pictures"), *words]) == 0
    assert json.loads(capsys.readouterr().out)["num_pictures"] == {"train": 1100, "held-out-style": 20}
    assert main(["data", "build", "openmoji-style", "--out", str(tmp_path / "pictures"), *words]) == 2
    assert "already exists" in capsys.readouterr().err
