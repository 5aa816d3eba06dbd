"""The composition score: scenes are read exactly, each fault is seen as what it is, and the reader is measured."""

import json
import random
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogview.data import captions as captions_module
from cogview.data.captions import captions
from cogview.data.scenes import Placement, Scene, draw_scene
from cogview.data.world import scene_objects
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.composition import (
    PARTS,
    AskedScene,
    SceneReader,
    Shown,
    asked_scenes,
    entries_of,
    judge,
    shares_of,
    validated,
    verdicts_on,
)
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
RIGHT_IN_ALL = dict.fromkeys(PARTS, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_folder(tmp_path_factory.mktemp("home") / "pictures", SIZE, NUM)


@pytest.fixture(scope="module")
def reader(folder: Path) -> SceneReader:
    return SceneReader(folder, SIZE)


def drawn(scene: Scene) -> np.ndarray:
    return np.asarray(draw_scene(scene, scene_icons(), SIZE))


def test_scenes_are_read_to_the_cell(folder: Path, reader: SceneReader) -> None:
    kinds = set()
    for entry in entries_of(folder, "held-out-composition"):
        scene = Scene.from_json(entry["scene"])
        shown = reader.read(reader.picture(folder, entry["file_name"]))
        assert (shown.ground, shown.style) == (scene.ground, scene.style)
        assert set(shown.placements) == set(scene.placements)
        assert reader.unknown_in(scene) is None
        kinds.add(scene.kind)
    assert kinds == {"count", "relation", "group"}


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
def test_each_fault_is_seen_as_what_it_is(
    scene: Scene, faults: dict[str, float], reader: SceneReader
) -> None:
    wrong = {"all": 0.0} if faults else {}
    assert judge(ASKED, reader.read(drawn(scene))) == RIGHT_IN_ALL | faults | wrong


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


def test_a_reader_without_fault_is_valid_and_finds_chance(folder: Path) -> None:
    asked = asked_scenes(folder)
    true = [Shown.of(each.scene) for each in asked]
    found = validated(asked, true, true)
    assert found["is_valid"]
    assert {share["value"] for share in found["pictures"].values()} == {1.0}
    assert found["pictures_shuffled"] == found["redrawn_shuffled"] == found["chance"]
    # There are fewer scenes than others are taken of each: chance is the mean over all pairs.
    pairs = [judge(one, shown) for one, shown in _others(asked, true)]
    for name, share in found["chance"].items():
        plain = [pair[name] for pair in pairs if pair[name] is not None]
        assert share == pytest.approx(sum(plain) / len(plain))
    assert found["chance"]["ground"] < 0.3 > found["chance"]["all"]


def _others(asked: list[AskedScene], shown: list[Shown]) -> list[tuple[AskedScene, Shown]]:
    return [(asked[i], shown[j]) for i, j in permutations(range(len(asked)), 2)]


def test_a_reader_that_errs_is_not_valid(folder: Path) -> None:
    asked = asked_scenes(folder)
    true = [Shown.of(each.scene) for each in asked]
    other = "blue" if true[0].ground != "blue" else "red"
    blind = [replace(shown, ground=other) for shown in true]
    for pictures, redrawn in ((true, blind), (blind, true)):
        assert not validated(asked, pictures, redrawn)["is_valid"]
    for num_wrong, is_valid in ((1, True), (2, False)):
        mostly = [*blind[:num_wrong], *true[num_wrong:]]
        found = validated(asked, true, mostly)
        assert found["redrawn"]["all"]["value"] == 1 - num_wrong / len(asked)
        assert found["is_valid"] == is_valid


def test_a_reader_that_is_far_from_chance_under_others_captions_is_not_valid(folder: Path) -> None:
    asked = asked_scenes(folder)
    true = [Shown.of(each.scene) for each in asked]
    # Right wherever it is asked, and blind elsewhere: it knows more of the captions than it should.
    told = [
        shown if each.tells_style else replace(shown, style=None)
        for each, shown in zip(asked, true, strict=True)
    ]
    found = validated(asked, true, told)
    assert found["redrawn"]["all"]["value"] == 1.0
    assert found["redrawn_shuffled"]["style"] < found["chance"]["style"] - 0.05
    assert not found["is_valid"]


def test_shares_count_those_that_were_asked() -> None:
    scene = replace(SCENE, kind="group")
    silent = AskedScene(text=f"a {NAMES[0]} and a {NAMES[1]} on red", scene=scene, file_name="")
    half = replace(Shown.of(SCENE), ground="blue")
    shares = shares_of(verdicts_on([silent, ASKED, silent, silent], [half, half, *[Shown.of(SCENE)] * 2]))
    assert shares["ground"]["num"] == 4
    assert shares["ground"]["value"] == 0.5
    assert (shares["ground"]["low"], shares["ground"]["high"]) == (0.0, 1.0)
    assert shares["objects"] == {"value": 1.0, "low": 1.0, "high": 1.0, "num": 4}
    assert shares["style"] == {"value": 1.0, "low": None, "high": None, "num": 1}
    assert shares_of(verdicts_on([silent], [half]))["relation"] == dict.fromkeys(("value", "low", "high")) | {
        "num": 0
    }


def test_what_training_does_not_show_is_named(reader: SceneReader) -> None:
    stranger = next(code for code in scene_objects() if code not in CODES)
    name = scene_objects()[stranger].singular[0]
    for placement, said in (
        (replace(LEFT, code=stranger), f"the {name} in the style twemoji"),
        (replace(LEFT, code="1f700"), "no small icon of the table"),
        (replace(LEFT, size=12), "12 cells"),
        (replace(LEFT, variation=3), "no small icon of the table"),
    ):
        assert said in str(reader.unknown_in(replace(SCENE, placements=(placement,))))
    assert "in the style noto" in str(reader.unknown_in(replace(SCENE, style="noto")))


def test_an_object_has_to_be_known_in_each_style_of_its_own(folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        Image.open(folder / line["file_name"]).save(tmp_path / line["file_name"])

    def is_kept(scene: dict[str, Any]) -> bool:
        return (scene["objects"][0]["code"], scene["ground"], scene["style"]) != (
            CODES[0],
            "red",
            "fluent-flat",
        )

    kept = [json.dumps(line) + "\n" for line in lines if line["split"] != "train" or is_kept(line["scene"])]
    (tmp_path / "metadata.jsonl").write_text("".join(kept))
    reader = SceneReader(tmp_path, SIZE)
    said = f"the {NAMES[0]} in the style fluent-flat on red ground"
    assert reader.unknown_in(SCENE) == said  # a model may draw it so where no style is asked for
    assert reader.unknown_in(replace(SCENE, ground="blue")) is None


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, UsageError, "has no metadata.jsonl"),
        ("{", CogViewError, "cannot be read"),
        ('{"file_name": "0.png", "texts": ["a cat"]}\n', UsageError, "does not say what scenes"),
        (
            '{"file_name": "0.png", "texts": ["a cat"], "split": "train"}\n',
            UsageError,
            "does not say what scenes",
        ),
        ("", UsageError, "no pictures of the split 'train'; it has none"),
    ],
)
def test_what_is_no_data_set_of_scenes_is_refused(
    content: str | None, error: type[CogViewError], said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(error, match=said):
        entries_of(tmp_path, "train")


def test_pictures_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"have 32 x 32 pixels, .* 64 x 64: .* --data.size-pixels 64"):
        SceneReader(folder, 64)
    with pytest.raises(UsageError, match="multiple of 16"):
        SceneReader(folder, 40)
    with pytest.raises(UsageError, match="it has held-out-composition, train"):
        entries_of(folder, "held-out-object")
