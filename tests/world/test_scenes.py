"""Scenes lie on the lattice, are functions of their seed, and belong to exactly one split."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations, permutations
from typing import get_args

import numpy as np
import pytest

from cogview.errors import UsageError
from cogview.world.config import HELD_OUT_STYLES, DefaultDataConfig, Split
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS, held_out_codes, known_codes, scene_objects
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import (
    LARGE_CELLS,
    LATTICE_CELLS,
    OPPOSITES,
    SMALL_CELLS,
    Placement,
    Relation,
    Scene,
    compositions,
    draw_scene,
    is_held_out_composition,
    is_held_out_icon,
    is_held_out_pair,
    relation_of,
    split_of,
)

CONFIG = DefaultDataConfig(icon_share=0.1)
# Those that depend on the configuration are tested with the builder, and below.
SPLITS: tuple[Split, ...] = tuple(
    split for split in get_args(Split) if split not in ("held-out-drawing", "held-out-colour")
)
NUM_SCENES = 500
CAT, APPLE = "1f431", "1f34e"


@pytest.fixture(scope="module")
def make(other_codes: tuple[str, ...]) -> Callable[..., list[Scene]]:
    def make_scenes(split: Split, num: int = NUM_SCENES, **changes: object) -> list[Scene]:
        config = replace(CONFIG, **changes)  # type: ignore[arg-type]
        return [make_scene(config, split, index, other_codes) for index in range(num)]

    return make_scenes


@pytest.fixture(scope="module")
def scenes(make: Callable[..., list[Scene]]) -> dict[Split, list[Scene]]:
    return {split: make(split) for split in SPLITS}


def side_by_side(first: str, second: str, ground: str = "blue") -> Scene:
    left, right = (
        Placement(code=first, column=0, row=4, size=7),
        Placement(code=second, column=9, row=5, size=7),
    )
    return Scene(kind="relation", ground=ground, style="noto", placements=(left, right))


# The table of objects


def test_names_are_complete() -> None:
    for code, thing in scene_objects().items():
        assert thing.code == code == code.lower()
        assert len(thing.singular) == len(thing.plural)
        assert all([*thing.singular, *thing.plural, *thing.chinese])
        assert len(thing.measure) == 1


def test_common_things_are_known_and_come_first() -> None:
    first = {scene_objects()[code].singular[0] for code in known_codes(20)}
    assert first >= {"cat", "dog", "apple", "car", "tree", "flower", "house", "fish", "bird"}


def test_the_table_is_as_large_as_promised() -> None:
    assert len(held_out_codes()) == 25
    assert len(known_codes(248)) == 248
    assert set(held_out_codes()).isdisjoint(known_codes(248))


@pytest.mark.parametrize("num_objects", [-1, 1, 10_000])
def test_an_impossible_number_of_objects_is_refused(num_objects: int) -> None:
    with pytest.raises(UsageError, match=f"num_objects is {num_objects}"):
        known_codes(num_objects)


def test_grounds_are_far_apart() -> None:
    for one, other in combinations(GROUNDS.values(), 2):
        assert np.abs(np.subtract(one.rgb, other.rgb)).max() >= 40


# Making scenes


def test_a_scene_is_a_function_of_seed_split_and_index(make: Callable[..., list[Scene]]) -> None:
    scenes = make("train", 50)
    assert make("train", 20) == scenes[:20]
    assert len(set(scenes)) == 50
    assert set(make("train", 50, seed=1)).isdisjoint(scenes)


def test_a_scene_stays_the_same_between_versions() -> None:
    scene = make_scene(DefaultDataConfig(), "train", 5)
    assert scene == Scene.from_json(
        {
            "kind": "group",
            "ground": "orange",
            "style": "fluent-3d",
            "objects": [
                {"code": "1f95d", "column": 5, "row": 0, "size": 7},
                {"code": "1f3e0", "column": 0, "row": 8, "size": 7},
                {"code": "1f405", "column": 8, "row": 8, "size": 7},
            ],
        }
    )


@pytest.mark.slow
def test_icons_lie_within_the_lattice_and_apart(scenes: dict[Split, list[Scene]]) -> None:
    for scene in chain.from_iterable(scenes.values()):
        covered = np.zeros((LATTICE_CELLS, LATTICE_CELLS), dtype=int)
        for place in scene.placements:
            assert place.size == (LARGE_CELLS if len(scene.placements) == 1 else SMALL_CELLS)
            covered[place.row : place.row + place.size, place.column : place.column + place.size] += 1
        assert covered.max() == 1
        assert covered.sum() == sum(place.size**2 for place in scene.placements)


@pytest.mark.parametrize("single_cells", [7, 9, 12])
def test_an_object_alone_is_as_large_as_asked_and_keeps_a_margin(
    make: Callable[..., list[Scene]], single_cells: int
) -> None:
    only_singles = {"single_share": 1.0, "count_share": 0.0, "relation_share": 0.0, "group_share": 0.0}
    drawn = make("train", 300, icon_share=0.0, single_cells=single_cells, **only_singles)
    places = [place for scene in drawn for place in scene.placements]
    assert {place.size for place in places} == {single_cells}
    assert {place.column for place in places} == set(range(1, 16 - single_cells))
    assert {place.row for place in places} == set(range(1, 16 - single_cells))


@pytest.mark.parametrize("single_cells", [0, 6, 13])
def test_an_impossible_size_is_refused(make: Callable[..., list[Scene]], single_cells: int) -> None:
    with pytest.raises(UsageError, match=f"single_cells is {single_cells}; .*7 to 12"):
        make("train", 1, single_cells=single_cells)


def test_kinds_show_what_they_promise(scenes: dict[Split, list[Scene]]) -> None:
    for scene in chain.from_iterable(scenes.values()):
        number, different = len(scene.placements), len({place.code for place in scene.placements})
        assert (number, different) in {
            "single": [(1, 1)],
            "icon": [(1, 1)],
            "count": [(2, 1), (3, 1), (4, 1)],
            "relation": [(2, 2)],
            "group": [(2, 2), (3, 3), (4, 4)],
        }[scene.kind]


def test_kinds_come_in_their_shares(make: Callable[..., list[Scene]]) -> None:
    shares = {"single": 0.0, "count": 0.5, "relation": 0.25, "group": 0.25, "icon": 0.0}
    scenes = make("train", 1_000, **{f"{kind}_share": share for kind, share in shares.items()})
    kinds = Counter(scene.kind for scene in scenes)
    for kind, share in shares.items():
        assert kinds[kind] / 1_000 == pytest.approx(share, abs=0.05)  # 3 standard deviations


def test_one_object_or_the_other_is_left_and_above_alike(scenes: dict[Split, list[Scene]]) -> None:
    relations = Counter(
        relation_of(*scene.placements)[0] for scene in scenes["train"] if scene.kind == "relation"
    )
    assert min(relations.values()) > 0.15 * sum(relations.values())
    assert len(relations) == 4


def test_only_the_first_objects_are_used(make: Callable[..., list[Scene]]) -> None:
    shown = {
        place.code for scene in make("train", icon_share=0.0, num_objects=12) for place in scene.placements
    }
    assert shown == set(known_codes(12))


def test_no_object_is_swallowed_by_its_ground(scenes: dict[Split, list[Scene]]) -> None:
    table = scene_objects()
    assert any(thing.swallowed_by for thing in table.values())
    for scene in chain.from_iterable(scenes.values()):
        if scene.kind != "icon":
            for place in scene.placements:
                assert (scene.style, scene.ground) not in table[place.code].swallowed_by


def test_every_ground_that_swallows_exists() -> None:
    grounds = {ground for thing in scene_objects().values() for _, ground in thing.swallowed_by}
    assert grounds <= GROUNDS.keys()


@pytest.mark.parametrize("share", [-1.0, 0.0])
def test_impossible_shares_are_refused(make: Callable[..., list[Scene]], share: float) -> None:
    with pytest.raises(UsageError, match="shares of the kinds"):
        make(
            "train",
            1,
            single_share=share,
            count_share=0.0,
            relation_share=0.0,
            group_share=0.0,
            icon_share=0.0,
        )


def test_a_split_for_which_no_scene_is_found_is_refused(
    make: Callable[..., list[Scene]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cogview.world.scene_maker.MAX_ATTEMPTS", 1)
    with pytest.raises(UsageError, match="'held-out-composition'"):
        make("held-out-composition", 100)


def test_a_share_of_icons_needs_icons() -> None:
    with pytest.raises(UsageError, match="icon_codes"):
        make_scene(replace(CONFIG, icon_share=1e9), "train", 0)


def test_two_objects_are_world_enough(make: Callable[..., list[Scene]]) -> None:
    scenes = make("train", 50, num_objects=2, icon_share=0.0)
    assert {place.code for scene in scenes for place in scene.placements} == set(known_codes(2))


def test_json_gives_the_scene_back(scenes: dict[Split, list[Scene]]) -> None:
    assert all(Scene.from_json(scene.to_json()) == scene for scene in scenes["train"])


# Splits


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_belongs_to_the_split_it_was_made_for(
    scenes: dict[Split, list[Scene]], split: Split
) -> None:
    assert {split_of(scene) for scene in scenes[split]} == {split}


def test_training_shows_no_held_out_object_and_no_share_alike_art(scenes: dict[Split, list[Scene]]) -> None:
    for scene in scenes["train"]:
        assert scene.style not in HELD_OUT_STYLES
        assert not any(is_held_out_icon(place.code) for place in scene.placements)
        assert {place.code for place in scene.placements}.isdisjoint(held_out_codes())


def test_held_out_object_scenes_show_one(scenes: dict[Split, list[Scene]]) -> None:
    for scene in scenes["held-out-object"]:
        assert any(is_held_out_icon(place.code) for place in scene.placements)


@pytest.mark.slow
def test_compositions_of_training_and_held_out_scenes_are_apart(make: Callable[..., list[Scene]]) -> None:
    few = {"num_objects": 6, "icon_share": 0.0}  # so few that training sees nearly all it ever will
    visible = {
        composition for scene in make("train", 4_000, **few) for composition in canonical_compositions(scene)
    }
    unseen = make("held-out-composition", 300, **few)
    assert all(not canonical_compositions(scene) <= visible for scene in unseen)
    assert all(place.code in known_codes(6) for scene in unseen for place in scene.placements)


def canonical_compositions(scene: Scene) -> set[tuple[object, ...]]:
    """Return what a scene composes, each told from one side, by other code than the one under test."""
    found: set[tuple[object, ...]] = set()
    for one, other in permutations(scene.placements, 2):
        if one.code < other.code:
            if other.column - one.column >= SMALL_CELLS / 2:
                found.add((one.code, "left", other.code, scene.ground))
            if one.column - other.column >= SMALL_CELLS / 2:
                found.add((one.code, "right", other.code, scene.ground))
            if other.row - one.row >= SMALL_CELLS / 2:
                found.add((one.code, "above", other.code, scene.ground))
            if one.row - other.row >= SMALL_CELLS / 2:
                found.add((one.code, "below", other.code, scene.ground))
        elif one.code == other.code:
            found.add((one.code, len(scene.placements), one.code, scene.ground))
    return found


def test_a_composition_is_the_same_from_both_sides() -> None:
    for first, second in combinations(known_codes(40), 2):
        assert is_held_out_pair(first, second) == is_held_out_pair(second, first)
        for relation in get_args(Relation):
            opposite = OPPOSITES[relation]
            assert is_held_out_composition(first, relation, second, "red") == is_held_out_composition(
                second, opposite, first, "red"
            )


def test_the_split_ignores_the_order_in_which_objects_are_named() -> None:
    for first, second in combinations(known_codes(30), 2):
        scene = side_by_side(first, second)
        assert split_of(scene) == split_of(replace(scene, placements=scene.placements[::-1]))


@pytest.mark.slow
def test_the_promised_shares_are_held_out() -> None:
    pairs = list(combinations(known_codes(160), 2))
    assert np.mean([is_held_out_pair(*pair) for pair in pairs]) == pytest.approx(0.05, abs=0.01)
    held_out = [is_held_out_composition(one, "left", other, "blue") for one, other in pairs]
    assert np.mean(held_out) == pytest.approx(0.10, abs=0.01)


def test_what_is_held_out_stays_so_between_versions() -> None:
    known = known_codes(12)
    pairs = [pair for pair in combinations(known, 2) if is_held_out_pair(*pair)]
    assert pairs == [(CAT, "1f34c"), ("1f697", "1f426"), ("1f338", "1f3e0"), ("1f338", "1f41f")]
    right_of_an_apple = [code for code in known if is_held_out_composition(APPLE, "left", code, "blue")]
    assert right_of_an_apple == ["1f3e0", "1f41f"]


@pytest.mark.parametrize(
    ("across", "down", "relations"),
    [
        (8, 0, ("left",)),
        (-8, 1, ("right",)),
        (1, 8, ("above",)),
        (0, -8, ("below",)),
        (8, 8, ("left", "above")),
        (4, -9, ("left", "below")),
        (3, -9, ("below",)),
    ],
)
def test_relations_follow_from_places(across: int, down: int, relations: tuple[str, ...]) -> None:
    first = Placement(code=CAT, column=5, row=5, size=7)
    second = Placement(code=APPLE, column=5 + across, row=5 + down, size=7)
    assert relation_of(first, second) == relations
    assert relation_of(second, first) == tuple(OPPOSITES[relation] for relation in relations)


def test_copies_of_one_object_are_a_composition() -> None:
    place = Placement(code=CAT, column=0, row=4, size=7)
    scene = Scene(kind="count", ground="red", style="noto", placements=(place, replace(place, column=9)))
    assert list(compositions(scene)) == [(CAT, 2, CAT)]


# Drawing


@pytest.mark.parametrize("size_pixels", [16, 128, 256])
def test_ground_and_icons_are_where_the_scene_says(icons: Icons, size_pixels: int) -> None:
    picture = np.asarray(draw_scene(side_by_side(CAT, APPLE), icons, size_pixels))
    assert picture.shape == (size_pixels, size_pixels, 3)
    cell = size_pixels // LATTICE_CELLS
    assert (picture[: 4 * cell] == GROUNDS["blue"].rgb).all()
    assert (picture[:, 7 * cell : 9 * cell] == GROUNDS["blue"].rgb).all()
    for code, row, column in ((CAT, 4, 0), (APPLE, 5, 9)):
        raster = icons.draw("noto", code, 7 * cell)
        drawn = picture[row * cell : (row + 7) * cell, column * cell : (column + 7) * cell]
        opaque = raster[..., 3] == 255
        assert opaque.any()
        assert (drawn[opaque] == raster[opaque][:, :3]).all()
        assert (drawn[raster[..., 3] == 0] == GROUNDS["blue"].rgb).all()


def test_half_transparent_pixels_are_mixed_with_the_ground(icons: Icons) -> None:
    scene = side_by_side(CAT, APPLE)
    picture = np.asarray(draw_scene(scene, icons, 128)).astype(float)
    raster = icons.draw("noto", CAT, 56).astype(float)
    share = raster[..., 3:] / 255
    assert ((share > 0.2) & (share < 0.8)).any()
    wanted = raster[..., :3] * share + np.array(GROUNDS["blue"].rgb) * (1 - share)
    assert np.abs(picture[32:88, :56] - wanted).max() <= 0.51


@pytest.mark.parametrize("size_pixels", [0, -16, 100])
def test_a_size_that_splits_cells_is_refused(icons: Icons, size_pixels: int) -> None:
    with pytest.raises(UsageError, match=f"size_pixels is {size_pixels}"):
        draw_scene(side_by_side(CAT, APPLE), icons, size_pixels)


@pytest.mark.parametrize(("column", "row"), [(-1, 0), (0, -1), (10, 0), (0, 10)])
def test_an_icon_beyond_the_lattice_is_refused(icons: Icons, column: int, row: int) -> None:
    place = Placement(code=CAT, column=column, row=row, size=7)
    with pytest.raises(UsageError, match="lattice"):
        draw_scene(Scene(kind="single", ground="red", style="noto", placements=(place,)), icons, 128)


def test_an_unknown_ground_is_refused(icons: Icons) -> None:
    with pytest.raises(UsageError, match="ground 'beige'"):
        draw_scene(side_by_side(CAT, APPLE, "beige"), icons, 128)
