"""People for measuring word replacing: captions in its words, shares as asked for, a held-out split."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogview.cli.main import main
from cogview.errors import UsageError
from cogview.recipes.default_data import people as recipe
from cogview.text.word_replacing import NUM_COMBINATIONS, SKIN_TONES, Language, replace_words
from cogview.world import people
from cogview.world.config import PeopleDataConfig
from cogview.world.icons import Icons
from cogview.world.packages import EMOJIBASE, cache_folder
from cogview.world.people import (
    GENDERS,
    HELD_OUT_SPLIT,
    PEOPLE,
    Person,
    build_people_data,
    everyone,
    load_people,
    person_phrase,
)
from cogview.world.scenes import Scene, draw_scene
from people_icons import people_icons

NAMES = ("firefighter", "artist", "child")
CONFIG = PeopleDataConfig(people=NAMES, num_train=600, num_held_out=60, size_pixels=32)
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@pytest.fixture(scope="module")
def icons() -> Icons:
    return people_icons(tuple(PEOPLE), CONFIG.styles)


@pytest.fixture(scope="module")
def built(icons: Icons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "pictures"
    assert build_people_data(CONFIG, folder, icons=icons) == {"train": 600, HELD_OUT_SPLIT: 60}
    return folder


def of_split(folder: Path, split: str) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["split"] == split]


def shown_on(line: dict[str, Any]) -> tuple[str, str, str]:
    scene = Scene.from_json(line["scene"])
    return scene.placements[0].code, scene.style, scene.ground


def test_everyone_is_every_gender_in_every_skin_tone() -> None:
    codes = [person.code for person in everyone(list(PEOPLE))]
    assert len(set(codes)) == len(codes) == NUM_COMBINATIONS * len(PEOPLE)
    assert Person(name="firefighter", gender="woman", tone=2).code == "1f469-1f3fd-200d-1f692"
    assert Person(name="police officer", gender="man", tone=0).code == "1f46e-1f3fb-200d-2642"
    assert Person(name="child", gender="woman", tone=4).code == "1f467-1f3ff"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.slow
def test_what_names_a_person_is_what_word_replacing_makes(
    name: str, language: Language, icons: Icons
) -> None:
    for attempt in range(4):  # with and without an article
        each, plain = (
            {
                person_phrase(person, icons, random.Random(attempt), language, named=named)
                for person in everyone([name])
            }
            for named in (True, False)
        )
        assert len(plain) == 1
        assert {replace_words(text, seed) for text in plain for seed in range(NUM_COMBINATIONS)} == each


@pytest.mark.slow
def test_half_of_the_captions_leave_open_what_the_others_name(built: Path) -> None:
    genders = {"woman", "man", "girl", "boy", "女", "男"}
    for line in of_split(built, "train"):
        texts, tone = line["texts"], line["person"]["tone"]
        assert len(texts) == 4
        for (language, named), text in zip(product(("zh", "en"), (False, True)), texts, strict=True):
            assert (f": {SKIN_TONES[language][tone]}" in text) == named
            assert any(gender in text.lower() for gender in genders) == named
            if not named:
                assert replace_words(text, 0) != text  # so it is what word replacing is for


def test_shares_are_as_asked_for_whatever_is_said(built: Path) -> None:
    shown = [line["person"] for line in of_split(built, "train")]
    assert abs(sum(each["gender"] == "man" for each in shown) / len(shown) - CONFIG.man_share) < 0.05
    assert abs(sum(each["tone"] < 2 for each in shown) / len(shown) - CONFIG.light_share) < 0.05
    assert set(Counter(each["name"] for each in shown).values()) == {200}
    assert len({(each["gender"], each["tone"]) for each in shown}) == NUM_COMBINATIONS


def test_shares_can_be_changed(icons: Icons, tmp_path: Path) -> None:
    config = replace(CONFIG, num_train=30, num_held_out=0, man_share=0.0, light_share=1.0)
    build_people_data(config, tmp_path / "out", icons=icons)
    shown = [line["person"] for line in of_split(tmp_path / "out", "train")]
    assert {(each["gender"], each["tone"]) for each in shown} == {("woman", 0), ("woman", 1)}


def test_the_held_out_split_has_each_icon_once_on_a_ground_that_is_new(built: Path) -> None:
    held_out = [shown_on(line) for line in of_split(built, HELD_OUT_SPLIT)]
    assert not set(held_out) & {shown_on(line) for line in of_split(built, "train")}
    numbers = Counter((code, style) for code, style, _ in held_out)
    assert set(numbers) == set(product((person.code for person in everyone(NAMES)), CONFIG.styles))
    assert set(numbers.values()) == {1}


def test_pictures_are_the_scenes_that_they_say(built: Path, icons: Icons) -> None:
    for line in [*of_split(built, "train")[::60], *of_split(built, HELD_OUT_SPLIT)[::10]]:
        scene = Scene.from_json(line["scene"])
        assert scene.placements[0].code == Person(**line["person"]).code
        with Image.open(built / line["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(draw_scene(scene, icons, 32)))


def test_the_art_is_credited_and_its_licence_named(built: Path) -> None:
    text = (built / "CREDITS.txt").read_text(encoding="utf-8")
    assert all(word in text for word in ("Twitter", "CC-BY-4.0", "Microsoft", "MIT", "Miles Johnson"))


@pytest.mark.slow
def test_the_same_configuration_gives_the_same_bytes(icons: Icons, tmp_path: Path) -> None:
    config = replace(CONFIG, num_train=20, num_held_out=20)
    for name, each in (("first", config), ("again", config), ("other", replace(config, seed=1))):
        build_people_data(each, tmp_path / name, icons=icons)
    first = [path for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(first) == 40 + 3
    for path in first:
        again = tmp_path / "again" / path.relative_to(tmp_path / "first")
        assert again.read_bytes() == path.read_bytes()
    assert of_split(tmp_path / "other", "train") != of_split(tmp_path / "first", "train")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"people": ()}, "people are none"),
        ({"people": ("firefighter", "wizard")}, "wizard"),
        ({"num_train": 0}, "num_train"),
        ({"num_held_out": -1}, "num_held_out"),
        ({"man_share": 1.5}, "man_share"),
        ({"light_share": -0.1}, "light_share"),
        ({"styles": ("openmoji",)}, "openmoji"),
        ({"styles": ()}, "styles are none"),
        ({"size_pixels": 40}, "size_pixels"),
        ({"object_cells": 15}, "object_cells"),
    ],
)
def test_what_cannot_be_built_is_refused(
    change: dict[str, Any], named: str, icons: Icons, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=named):
        build_people_data(replace(CONFIG, **change), tmp_path / "out", icons=icons)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_builds_what_the_recipe_says(
    icons: Icons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe().data == PeopleDataConfig()
    monkeypatch.setattr(people, "load_people", lambda *_: icons)
    words = ["--data.size-pixels", "16", "--data.num-train", "30", "--data.num-held-out", "0", "--json"]
    assert main(["data", "build", "people", "--out", str(tmp_path / "pictures"), *words]) == 0
    assert json.loads(capsys.readouterr().out)["num_pictures"] == {"train": 30}
    assert main(["data", "build", "people", "--out", str(tmp_path / "pictures"), *words]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.skipif(
    not (cache_folder() / "packages" / EMOJIBASE.file_name).is_file(), reason="the words are not fetched"
)
def test_emojibase_calls_everyone_what_these_tests_say(icons: Icons) -> None:
    true = load_people(list(PEOPLE), ())
    assert {code: words.labels for code, words in true.words.items()} == {
        code: words.labels for code, words in icons.words.items()
    }
    assert GENDERS == ("woman", "man")
