"""A picture is of one colour if nearly nothing differs from its ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cogview.generation.blank_pictures import MAX_LEVELS, is_blank

COLOUR = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=25, deadline=None)
@given(colour=COLOUR, noise=st.integers(0, MAX_LEVELS // 2), num_specks=st.integers(0, 5))
def test_a_ground_with_noise_and_specks_is_one_colour(
    colour: tuple[int, int, int], noise: int, num_specks: int
) -> None:
    draw = np.random.Generator(np.random.PCG64(0))
    pixels = np.array(colour) + draw.integers(-noise, noise + 1, (16, 16, 3))
    pixels[0, :num_specks] = 255 - np.array(colour)
    assert is_blank(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


@settings(max_examples=25, deadline=None)
@given(colour=COLOUR, place=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_a_ground_with_a_thing_on_it_is_not(colour: tuple[int, int, int], place: tuple[int, int]) -> None:
    pixels = np.full((16, 16, 3), colour, dtype=np.uint8)
    pixels[place[0] : place[0] + 4, place[1] : place[1] + 4, 0] ^= 128  # in one channel
    assert not is_blank(Image.fromarray(pixels))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_pictures_of_any_mode_are_seen(mode: str) -> None:
    assert is_blank(Image.new(mode, (5, 3), "white"))
