"""An icon takes each colour alone as among all, and one that has a colour by itself hardly changes in it."""

import numpy as np
import pytest

from cogview.world.colours import COLOURS, in_all_colours, own_colour, recolour


def icon(rgb: tuple[int, int, int]) -> np.ndarray:
    """Return a square of one colour with a shadow and a transparent edge."""
    raster = np.zeros((16, 16, 4), dtype=np.uint8)
    raster[2:14, 2:14, :3] = rgb
    raster[10:14, 2:14, :3] = tuple(0.8 * value for value in rgb)
    raster[2:14, 2:14, 3] = 255
    return raster


@pytest.mark.parametrize("colour", COLOURS)
def test_all_colours_are_those_of_one_by_one(colour: str) -> None:
    raster = icon((200, 60, 20))
    assert np.array_equal(in_all_colours(raster)[colour], recolour(raster, colour))


@pytest.mark.parametrize("colour", COLOURS)
def test_an_icon_in_a_colour_has_it_as_its_own(colour: str) -> None:
    raster = recolour(icon((60, 130, 60)), colour)
    assert own_colour(raster, in_all_colours(raster)) == colour


def test_what_has_no_colour_of_the_list_has_none_of_its_own() -> None:
    raster = icon((150, 110, 70))  # brown
    assert own_colour(raster, in_all_colours(raster)) is None
