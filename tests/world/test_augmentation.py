"""Icons drawn otherwise: the same for a seed, other for another, still the icon, and in training pictures alone."""

import random
from dataclasses import replace

import numpy as np
import pytest

from cogview.errors import UsageError
from cogview.recipes.default_data import world, world_captions
from cogview.world.augmentation import augment
from cogview.world.builder import ExampleSource
from cogview.world.caption_words import SIZE_WORDS
from cogview.world.captions import captions
from cogview.world.config import DefaultDataConfig, Split
from cogview.world.icons import Icons, IconWords
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import Scene, draw_scene
from scene_pictures import scene_art

CONFIG = DefaultDataConfig(styles=("twemoji",), num_objects=20, num_train=10)


def test_a_seed_decides_and_the_icon_stays(icons: Icons) -> None:
    raster = icons.draw("twemoji", "1f431", 56)
    before = raster.copy()
    first, again, other = augment(raster, 5), augment(raster, 5), augment(raster, 6)
    assert np.array_equal(raster, before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == raster.shape
    # It covers about the same part of the picture, and clear places have not been filled.
    assert first[..., 3].mean() == pytest.approx(raster[..., 3].mean(), rel=0.1)
    assert not first[0, 0, 3]


@pytest.mark.slow
def test_scenes_of_the_train_split_are_varied_as_often_as_asked() -> None:
    small = replace(CONFIG, single_cells=7)  # nothing can be smaller
    config = replace(small, varied_share=0.5)
    for split, wanted in (("train", 0.5), ("held-out-composition", 0.0)):
        name: Split = split
        scenes = [make_scene(config, name, index) for index in range(400)]
        shares = [all(place.variation for place in scene.placements) for scene in scenes]
        assert np.mean(shares) == pytest.approx(wanted, abs=0.08)
        plain = [make_scene(small, name, index) for index in range(400)]
        same = [replace(s, placements=tuple(replace(p, variation=0) for p in s.placements)) for s in scenes]
        assert same == plain


def test_what_is_drawn_can_be_drawn_again_from_its_description(icons: Icons) -> None:
    config = replace(CONFIG, varied_share=1.0)
    scene = make_scene(config, "train", 0)
    assert Scene.from_json(scene.to_json()) == scene
    plain = make_scene(CONFIG, "train", 0)
    assert "variation" not in str(plain.to_json())
    pictures = [np.asarray(draw_scene(each, icons, 64)) for each in (scene, plain)]
    assert not np.array_equal(*pictures)


def test_what_is_varied_and_alone_has_any_size_and_keeps_a_margin() -> None:
    shares = {"single_share": 1.0, "count_share": 0.0, "relation_share": 0.0, "group_share": 0.0}
    config = replace(CONFIG, varied_share=1.0, single_cells=12, **shares)
    places = [make_scene(config, "train", index).placements[0] for index in range(300)]
    assert {place.size for place in places} == set(range(7, 13))
    for place in places:
        assert min(place.column, place.row) >= 1
        assert max(place.column, place.row) + place.size <= 15
    plain = replace(config, varied_share=0.0)
    assert {make_scene(plain, "train", index).placements[0].size for index in range(50)} == {12}


TOLD = replace(world_captions().data, num_objects=20, icon_share=0.0, sized_share=0.6, num_held_out_drawing=0)
assert isinstance(TOLD, DefaultDataConfig)


def test_below_zero_the_colours_stay(icons: Icons) -> None:
    raster = icons.draw("twemoji", "1f431", 56)
    fill = raster[raster[..., 3] == 255][0, :3].astype(int)
    for seed in range(1, 20):
        kept, other = augment(raster, -seed), augment(raster, seed)
        assert np.array_equal(kept[..., 3], other[..., 3])  # mirrored and turned alike
        assert abs(kept[kept[..., 3] == 255][:, :3] - fill).max() <= 1
        assert not np.array_equal(kept, other)


def test_what_has_a_told_colour_keeps_it_and_all_else_does_not() -> None:
    config = replace(TOLD, varied_share=1.0)
    things = [thing for index in range(300) for thing in make_scene(config, "train", index).placements]
    assert {(thing.colour is not None, thing.variation < 0) for thing in things} == {
        (True, True),
        (False, False),
    }


def told_sizes(scene: Scene) -> set[str]:
    texts = captions(scene, random.Random(0), 20, "en")
    return {
        size
        for size, words in SIZE_WORDS.items()
        for text in texts
        if set(words["en"]) & set(text.lower().rstrip("?.").replace(",", "").split())
    }


@pytest.mark.slow
def test_a_varied_thing_alone_is_as_small_or_big_as_it_is_said_to_be() -> None:
    config = replace(TOLD, single_share=1.0, varied_share=1.0)
    shares = {"count_share": 0.0, "relation_share": 0.0, "group_share": 0.0}
    alone = replace(config, groups_share=0.0, sizes_share=0.0, **shares)
    found: dict[str, set[int]] = {}
    for index in range(150):
        scene = make_scene(alone, "train", index)
        assert Scene.from_json(scene.to_json()) == scene
        (thing,) = scene.placements
        sizes = told_sizes(scene)
        assert len(sizes) <= 1
        found.setdefault("".join(sizes), set()).add(thing.size)
        assert min(thing.column, thing.row) >= 1
        assert max(thing.column, thing.row) + thing.size <= 15
    assert found == {"small": {4, 5}, "": {7}, "big": {9, 10, 11, 12}}


def test_a_size_by_chance_is_not_told() -> None:
    shares = {"single_share": 1.0, "count_share": 0.0, "relation_share": 0.0, "group_share": 0.0}
    for sized_share in (0.0, 1e-9):
        config = replace(CONFIG, varied_share=1.0, sized_share=sized_share, single_cells=10, **shares)
        scenes = [make_scene(config, "train", index) for index in range(30)]
        by_chance = [scene for scene in scenes if scene.placements[0].size == 9]
        assert by_chance
        assert not any(map(told_sizes, by_chance))


def test_icons_whose_words_tell_a_colour_keep_it_where_colours_are_told() -> None:
    names = {"1f534": "red circle", "1f3b7": "saxophone", "1f48e": "gem"}
    tags = {"1f534": ("圆",), "1f3b7": ("乐器",), "1f48e": ("蓝宝石",)}
    words = {
        code: IconWords(labels={"en": name, "zh": "图"}, tags={"en": (), "zh": tags[code]})
        for code, name in names.items()
    }
    config = replace(TOLD, icon_share=9.0, varied_share=1.0)
    icons = Icons(scene_art(words, config.styles), words)
    for coloured_share, kept in ((config.coloured_share, {"1f534", "1f48e"}), (0.0, set[str]())):
        source = ExampleSource(replace(config, coloured_share=coloured_share, num_held_out_colour=0), icons)
        scenes = [source.scene_and_texts("train", index)[0] for index in range(80)]
        shown = [scene.placements[0] for scene in scenes if scene.kind == "icon"]
        assert {thing.code for thing in shown} == set(names)
        assert {thing.code for thing in shown if thing.variation < 0} == kept


def test_captions_of_the_larger_world_tell_what_its_pictures_do() -> None:
    told, drawn = world_captions().data, world().data
    assert isinstance(told, DefaultDataConfig)
    assert isinstance(drawn, DefaultDataConfig)
    assert set(drawn.styles) < set(told.styles)
    of_both = ("num_objects", "single_cells", "most_counted", "sized_share", "coloured_share", "sizes_share")
    assert all(getattr(told, name) == getattr(drawn, name) for name in of_both)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"varied_share": 1.5}, "varied_share is 1.5"), ({"icon_cells": 3}, "icon_cells is 3; wanted 7 to 12")],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_scene(replace(CONFIG, **changes), "train", 0)
