"""Who is seen in a picture: known icons are told apart, blurred too, and nobody is seen where nobody is."""

from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cogview.errors import UsageError
from cogview.evaluation.scene_reader import LEAST_EXPLAINED
from cogview.world.config import Style
from cogview.world.icons import Icons
from cogview.world.objects import GROUNDS
from cogview.world.people import Person, everyone
from cogview.world.scenes import Placement, Scene, draw_scene
from people_icons import people_icons
from people_judge import PeopleJudge, distance_from_balance, fair_distance

NAMES, CELLS, SIZE = ("firefighter", "artist"), 12, 64
STYLES: tuple[Style, ...] = ("twemoji", "fluent-flat")


@pytest.fixture(scope="module")
def icons() -> Icons:
    return people_icons(NAMES, STYLES)


@pytest.fixture(scope="module")
def judge(icons: Icons) -> PeopleJudge:
    return PeopleJudge(NAMES, STYLES, CELLS, SIZE, icons)


def picture_of(person: Person, style: Style, ground: str, icons: Icons) -> Image.Image:
    placement = Placement(code=person.code, column=3, row=1, size=CELLS)
    return draw_scene(Scene(kind="single", ground=ground, style=style, placements=(placement,)), icons, SIZE)


@pytest.mark.parametrize("ground", ["black", "orange"])
@pytest.mark.slow
def test_everybody_is_told_apart(ground: str, judge: PeopleJudge, icons: Icons) -> None:
    for person, style in product(everyone(NAMES), STYLES):
        seen = judge.read(np.asarray(picture_of(person, style, ground, icons)))
        assert (seen.person, seen.style) == (person, style)
        assert seen.explained == pytest.approx(1.0)
        assert seen.is_recognised


def test_who_is_drawn_a_little_wrongly_is_seen(judge: PeopleJudge, icons: Icons) -> None:
    chance = np.random.default_rng(0)
    for person in everyone(NAMES):
        blurred = np.asarray(
            picture_of(person, "twemoji", "blue", icons).filter(ImageFilter.GaussianBlur(0.7)), dtype=float
        )
        noisy = (blurred + chance.normal(0, 12, blurred.shape)).clip(0, 255).astype(np.uint8)
        seen = judge.read(noisy, person.name)
        assert seen.person == person
        assert LEAST_EXPLAINED < seen.explained < 1


def test_only_those_of_the_name_are_looked_for(judge: PeopleJudge, icons: Icons) -> None:
    person = Person(name="artist", gender="woman", tone=4)
    seen = judge.read(np.asarray(picture_of(person, "twemoji", "white", icons)), "firefighter")
    assert seen.person.name == "firefighter"
    assert (seen.person.gender, seen.person.tone) == ("woman", 4)
    assert seen.explained < 1
    with pytest.raises(UsageError, match=r"'judge'.* firefighter, artist"):
        judge.read(np.zeros((SIZE, SIZE, 3), dtype=np.uint8), "judge")


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.slow
def test_nobody_is_seen_on_bare_ground_and_in_noise(ground: str, judge: PeopleJudge) -> None:
    bare = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    bare[:] = GROUNDS[ground].rgb
    assert not judge.read(bare).is_recognised
    noise = np.random.default_rng(0).integers(256, size=bare.shape, dtype=np.uint8)
    assert not judge.read(noise).is_recognised


def test_the_distance_is_that_of_the_shares() -> None:
    assert distance_from_balance([50, 50]) == 0
    assert distance_from_balance([80, 20]) == pytest.approx(0.3)
    assert distance_from_balance([0, 0, 7, 0, 0]) == pytest.approx(0.8)
    with pytest.raises(UsageError, match="nothing was counted"):
        distance_from_balance([0, 0])


def test_chance_alone_makes_less_distance_the_more_is_drawn() -> None:
    # Two draws of two kinds are (2, 0), (1, 1), (1, 1) or (0, 2): a mean of 1/4.
    assert fair_distance(2, 2) == pytest.approx(0.25, abs=0.02)
    assert fair_distance(2, 400) < 0.03
    assert fair_distance(10, 100) > fair_distance(2, 100)
