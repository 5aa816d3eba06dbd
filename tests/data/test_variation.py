"""Icons drawn otherwise: the same for a seed, other for another, still the icon, and in training pictures alone."""

from dataclasses import replace

import numpy as np
import pytest

from cogview.data.config import DefaultDataConfig, Split
from cogview.data.icons import Icons
from cogview.data.scene_maker import make_scene
from cogview.data.scenes import Scene, draw_scene
from cogview.data.variation import varied
from cogview.errors import UsageError

CONFIG = DefaultDataConfig(styles=("twemoji",), num_objects=20, num_train=10)


def test_a_seed_decides_and_the_icon_stays(icons: Icons) -> None:
    raster = icons.draw("twemoji", "1f431", 56)
    before = raster.copy()
    first, again, other = varied(raster, 5), varied(raster, 5), varied(raster, 6)
    assert np.array_equal(raster, before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == raster.shape
    # It covers about the same part of the picture, and clear places have not been filled.
    assert first[..., 3].mean() == pytest.approx(raster[..., 3].mean(), rel=0.1)
    assert not first[0, 0, 3]


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"varied_share": 1.5}, "varied_share is 1.5"), ({"icon_cells": 3}, "icon_cells is 3; wanted 7 to 12")],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_scene(replace(CONFIG, **changes), "train", 0)
