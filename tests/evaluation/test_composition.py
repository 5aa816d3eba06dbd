"""The composition score: scenes are read exactly, each fault is seen as what it is, and the reader is measured."""

import random
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogview.errors import CogViewError, UsageError
from cogview.evaluation import composition
from cogview.evaluation.composition import (
    PARTS,
    AskedScene,
    asked_scenes,
    entries_of,
    judge,
    names_ground,
    shares_of,
    validate_reader,
    verdicts_on,
)
from cogview.evaluation.scene_reader import SceneReader, SceneReading
from cogview.world import captions as captions_module
from cogview.world.captions import captions
from cogview.world.objects import scene_objects
from cogview.world.scenes import Placement, Scene, draw_scene
from scene_pictures import CODES, STYLES, scene_folder, scene_icons

SIZE, NUM = 32, 24
NAMES = [scene_objects()[code].singular[0] for code in CODES]
LEFT, RIGHT = (
    Placement(code=CODES[0], column=1, row=4, size=7),
    Placement(code=CODES[1], column=8, row=4, size=7),
)
SCENE = Scene(kind="relation", ground="red", style="twemoji", placements=(LEFT, RIGHT))
THIRD = Placement(code=CODES[2], column=4, row=9, size=7)
ASKED = AskedScene(
    text=f"sticker style, a {NAMES[0]} left of a {NAMES[1]}, red background", scene=SCENE, file_name=""
)
RIGHT_IN_ALL = dict.fromkeys(PARTS, 1.0) | {"colour": None, "size": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_folder(tmp_path_factory.mktemp("home") / "pictures", SIZE, NUM)


@pytest.fixture(scope="module")
def reader(folder: Path) -> SceneReader:
    return SceneReader(folder, SIZE)


def drawn(scene: Scene) -> np.ndarray:
    return np.asarray(draw_scene(scene, scene_icons(), SIZE))


@pytest.mark.parametrize(
    ("scene", "faults"),
    [
        (SCENE, {}),
        (replace(SCENE, ground="green"), {"ground": 0.0}),
        (replace(SCENE, style="fluent-flat"), {"style": 0.0}),
        (
            replace(SCENE, placements=(replace(LEFT, column=8), replace(RIGHT, column=1))),
            {"relation": 0.0},
        ),
        (
            replace(SCENE, placements=(replace(LEFT, row=9), replace(RIGHT, column=1, row=0))),
            {"relation": 0.0},
        ),
        (
            replace(SCENE, placements=(LEFT,)),
            {"objects_found": 0.5, "number": 0.0, "objects": 0.0, "relation": 0.0},
        ),
        (
            replace(SCENE, placements=(replace(LEFT, row=1), replace(RIGHT, row=1), THIRD)),
            {"number": 0.0, "objects": 0.0},
        ),
        (
            replace(SCENE, placements=(LEFT, replace(RIGHT, code=CODES[2]))),
            {"objects_found": 0.5, "objects": 0.0, "relation": 0.0},
        ),
        (
            replace(SCENE, placements=()),
            {"objects_found": 0.0, "number": 0.0, "objects": 0.0, "relation": 0.0, "style": 0.0},
        ),
    ],
)
@pytest.mark.slow
def test_each_fault_is_seen_as_what_it_is(
    scene: Scene, faults: dict[str, float], reader: SceneReader
) -> None:
    wrong = {"all": 0.0} if faults else {}
    assert judge(ASKED, reader.read(drawn(scene))) == RIGHT_IN_ALL | faults | wrong


@pytest.mark.slow
def test_two_styles_in_one_picture_are_none(reader: SceneReader) -> None:
    picture = drawn(SCENE).copy()
    picture[:, SIZE // 2 :] = drawn(replace(SCENE, style="fluent-flat"))[:, SIZE // 2 :]
    shown = reader.read(picture)
    assert {each.code for each in shown.placements} == set(CODES[:2])
    assert shown.style is None
    assert judge(ASKED, shown)["style"] == 0


def test_only_what_the_caption_tells_is_judged(reader: SceneReader) -> None:
    asked = replace(ASKED, text=f"a {NAMES[0]} and a {NAMES[1]} on a red background")
    swapped = (replace(LEFT, column=8), replace(RIGHT, column=1))
    shown = reader.read(drawn(replace(SCENE, style="fluent-flat", placements=swapped)))
    assert judge(asked, shown) == RIGHT_IN_ALL | {"relation": None, "style": None}
    assert judge(ASKED, shown)["all"] == 0
    assert judge(ASKED, shown, ("objects", "ground")) == dict.fromkeys(
        ("objects_found", "objects", "ground", "all"), 1.0
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_what_a_caption_tells_is_known(share: float, language: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions_module, "STYLE_SHARE", share)
    monkeypatch.setattr(captions_module, "RELATION_SHARE", share)
    for style in STYLES:
        scene = replace(SCENE, style=style)
        for text in captions(scene, random.Random(0), 60, language):
            asked = AskedScene(text=text, scene=scene, file_name="")
            assert asked.tells_style == bool(share), text
            assert asked.tells_relation == bool(share), text


def test_captions_name_the_ground_in_both_languages_by_turns(folder: Path) -> None:
    asked = asked_scenes(folder, 10)
    assert [each.text.isascii() for each in asked] == [True, False] * 5
    assert asked == asked_scenes(folder)[:10]


@pytest.mark.slow
def test_a_reader_without_fault_is_valid_and_finds_chance(folder: Path) -> None:
    asked = asked_scenes(folder)
    true = [SceneReading.of(each.scene) for each in asked]
    found = validate_reader(asked, true, true)
    assert found["is_valid"]
    assert {share["value"] for share in found["pictures"].values() if share["num"]} == {1.0}
    assert min(found["pictures"][name]["num"] for name in ("colour", "size")) > 2
    assert found["pictures_shuffled"] == found["redrawn_shuffled"] == found["chance"]
    # There are fewer scenes than others are taken of each: chance is the mean over all pairs.
    pairs = [judge(one, shown) for one, shown in _others(asked, true)]
    for name, share in found["chance"].items():
        plain = [pair[name] for pair in pairs if pair[name] is not None]
        assert share == pytest.approx(sum(plain) / len(plain))
    assert found["chance"]["ground"] < 0.3 > found["chance"]["all"]


def _others(asked: list[AskedScene], shown: list[SceneReading]) -> list[tuple[AskedScene, SceneReading]]:
    return [(asked[i], shown[j]) for i, j in permutations(range(len(asked)), 2)]


@pytest.mark.slow
def test_a_reader_that_errs_is_not_valid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "_MOST_OTHERS", 8)
    asked = asked_scenes(folder)
    true = [SceneReading.of(each.scene) for each in asked]
    other = "blue" if true[0].ground != "blue" else "red"
    blind = [replace(shown, ground=other) for shown in true]
    for pictures, redrawn in ((true, blind), (blind, true)):
        assert not validate_reader(asked, pictures, redrawn)["is_valid"]
    for num_wrong, is_valid in ((1, True), (2, False)):
        mostly = [*blind[:num_wrong], *true[num_wrong:]]
        found = validate_reader(asked, true, mostly)
        assert found["redrawn"]["all"]["value"] == 1 - num_wrong / len(asked)
        assert found["is_valid"] == is_valid


@pytest.mark.slow
def test_a_reader_that_is_far_from_chance_under_others_captions_is_not_valid(folder: Path) -> None:
    asked = asked_scenes(folder)
    true = [SceneReading.of(each.scene) for each in asked]
    # Right wherever it is asked, and blind elsewhere: it knows more of the captions than it should.
    told = [
        shown if each.tells_style else replace(shown, style=None)
        for each, shown in zip(asked, true, strict=True)
    ]
    found = validate_reader(asked, true, told)
    assert found["redrawn"]["all"]["value"] == 1.0
    assert found["redrawn_shuffled"]["style"] < found["chance"]["style"] - 0.05
    assert not found["is_valid"]


def test_shares_count_those_that_were_asked() -> None:
    scene = replace(SCENE, kind="group")
    silent = AskedScene(text=f"a {NAMES[0]} and a {NAMES[1]} on red", scene=scene, file_name="")
    half = replace(SceneReading.of(SCENE), ground="blue")
    shares = shares_of(
        verdicts_on([silent, ASKED, silent, silent], [half, half, *[SceneReading.of(SCENE)] * 2])
    )
    assert shares["ground"]["num"] == 4
    assert shares["ground"]["value"] == 0.5
    assert (shares["ground"]["low"], shares["ground"]["high"]) == (0.0, 1.0)
    assert shares["objects"] == {"value": 1.0, "low": 1.0, "high": 1.0, "num": 4}
    assert shares["style"] == {"value": 1.0, "low": None, "high": None, "num": 1}
    assert shares_of(verdicts_on([silent], [half]))["relation"] == dict.fromkeys(("value", "low", "high")) | {
        "num": 0
    }


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, UsageError, "metadata.jsonl"),
        ("{", CogViewError, "cannot be read"),
        ('{"file_name": "0.png", "texts": ["a cat"]}\n', UsageError, "scenes"),
        (
            '{"file_name": "0.png", "texts": ["a cat"], "split": "train"}\n',
            UsageError,
            "scenes",
        ),
        ("", UsageError, "split 'train'"),
    ],
)
def test_what_is_no_data_set_of_scenes_is_refused(
    content: str | None, error: type[CogViewError], said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(error, match=said):
        entries_of(tmp_path, "train")


def test_a_split_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="held-out-composition, train"):
        entries_of(folder, "held-out-object")


@pytest.mark.parametrize(
    ("placements", "verdict"),
    [
        ((replace(LEFT, colour="blue"), RIGHT), 1.0),
        ((replace(LEFT, colour="white"), RIGHT), 0.0),
        ((LEFT, RIGHT), 0.0),
        ((LEFT, replace(RIGHT, colour="blue")), 0.0),
        ((replace(LEFT, colour="blue"), replace(RIGHT, colour="blue")), 0.0),
        ((replace(LEFT, colour="blue"),), 0.0),
    ],
)
def test_a_colour_belongs_to_its_thing(
    placements: tuple[Placement, ...], verdict: float, reader: SceneReader
) -> None:
    scene = replace(SCENE, placements=(replace(LEFT, colour="blue"), RIGHT))
    shown = reader.read(drawn(replace(SCENE, placements=placements)))
    assert judge(replace(ASKED, scene=scene), shown)["colour"] == verdict


def test_a_thing_that_has_the_colour_by_itself_may_look_as_it_does() -> None:
    asked = replace(ASKED, scene=replace(SCENE, placements=(replace(LEFT, colour="blue"), RIGHT)))
    either, own = frozenset({None, "blue"}), frozenset({None})
    for colours, verdict in (((either, own), 1.0), ((own, own), 0.0), ((either, either), 1.0)):
        assert judge(asked, replace(SceneReading.of(SCENE), colours=colours))["colour"] == verdict
    # What has one colour alone is counted first.
    two = replace(SCENE, kind="count", placements=(LEFT, replace(LEFT, column=8, colour="blue")))
    for colours in ((either, own), (own, either), (either, frozenset({"blue"})), (either, either)):
        assert (
            judge(replace(asked, scene=two), replace(SceneReading.of(two), colours=colours))["colour"] == 1.0
        )


@pytest.mark.parametrize(
    ("kind", "sizes", "is_asked"),
    [
        ("sizes", (4, 7), True),
        ("sizes", (9, 4), True),
        ("single", (9,), True),
        ("single", (7,), False),
        ("count", (4, 4), False),
    ],
)
def test_sizes_are_judged_where_they_are_told(kind: Any, sizes: tuple[int, ...], is_asked: bool) -> None:
    placements = tuple(replace(LEFT, size=size, column=number * 8) for number, size in enumerate(sizes))
    scene = replace(SCENE, kind=kind, placements=placements)
    other = replace(placements[0], size=5)
    asked = AskedScene(text="red", scene=scene, file_name="")
    assert judge(asked, SceneReading.of(scene))["size"] == (1.0 if is_asked else None)
    wrong = SceneReading.of(replace(scene, placements=(other, *placements[1:])))
    assert judge(asked, wrong)["size"] == (0.0 if is_asked else None)


def test_groups_lie_as_their_middles_do() -> None:
    def groups(rows: tuple[int, int], text: str = "above") -> tuple[AskedScene, SceneReading]:
        cats = [Placement(code=CODES[0], column=column, row=rows[0], size=4) for column in (0, 5, 10)]
        dog = Placement(code=CODES[1], column=0, row=rows[1], size=4)
        scene = replace(SCENE, kind="groups", placements=(*cats, dog))
        return AskedScene(text=f"{text}, on red", scene=scene, file_name=""), SceneReading.of(scene)

    asked, shown = groups((2, 10))
    assert judge(asked, shown)["relation"] == 1.0
    assert judge(asked, groups((10, 2))[1])["relation"] == 0.0
    assert (
        judge(asked, replace(shown, placements=shown.placements[:3], colours=shown.colours[:3]))["relation"]
        == 0.0
    )
    silent, _ = groups((2, 10), "next to each other")
    assert judge(silent, shown)["relation"] is None


@pytest.mark.parametrize("change", [{"colour": "blue"}, {"size": 4}])
def test_the_same_thing_twice_is_told_apart_by_what_differs(change: dict[str, Any]) -> None:
    first, second = replace(LEFT, colour="black"), replace(LEFT, column=8, **({"colour": "black"} | change))
    scene = replace(SCENE, kind="relation", placements=(first, second))
    swapped = replace(scene, placements=(replace(first, column=8), replace(second, column=1)))
    asked = replace(ASKED, scene=scene)
    assert asked.tells_relation
    assert judge(asked, SceneReading.of(scene))["relation"] == 1.0
    assert judge(asked, SceneReading.of(swapped))["relation"] == 0.0


@pytest.mark.parametrize(
    ("text", "ground", "is_named"),
    [
        ("A blue {} on a GREEN background", "green", True),
        ("绿色背景上的蓝色{}", "green", True),
        ("a blue {}", "green", False),
        ("a covered {} on fire", "red", False),
        ("3D rendered style, a {}", "red", False),
        ("一只粉红色的{}", "red", False),
        ("粉红色背景上的一只红色的{}", "pink", True),
        ("粉色背景上的一只红色的{}", "pink", True),
        ("红底，一只粉红色的{}", "red", True),
        ("a grey backdrop with a {}", "gray", True),
    ],
)
def test_the_ground_is_named_by_words_of_its_own(text: str, ground: str, is_named: bool) -> None:
    scene = Scene(kind="single", ground=ground, style="fluent-3d", placements=(LEFT,))
    assert names_ground(text.format(NAMES[0]), scene) == is_named


def test_a_colour_in_a_name_or_a_style_is_not_the_ground() -> None:
    code = next(code for code, thing in scene_objects().items() if "orange" in thing.singular)
    scene = Scene(kind="single", ground="orange", style="noto", placements=(replace(LEFT, code=code),))
    assert not names_ground("an orange", scene)
    assert names_ground("橙色背景上的一个橙子", scene)
    assert not names_ground("一个橙子", scene)
    inked = replace(scene, ground="black", style="outlined")
    assert not names_ground("a red apple in black outline style", inked)
    assert not names_ground("黑边风格，一个苹果", inked)


def test_captions_of_each_language_are_known(folder: Path) -> None:
    assert [each.language for each in asked_scenes(folder, 4)] == ["en", "zh"] * 2
