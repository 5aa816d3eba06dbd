"""The mask of a variation."""

import pytest
from PIL import Image

from cogview.generation.inpainting import InpaintingMask
from cogview.serving.draw_requests import variation_mask
from cogview.serving.messages import Pixels


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (128, 128), (257, 255), (2048, 1024)])
@pytest.mark.parametrize("share", [5e-324, 0.001, 0.5, 1.0])
def test_a_variation_always_draws_something(size: tuple[int, int], share: float) -> None:
    mask = variation_mask(Pixels.of(Image.new("RGB", size)), share).image()
    places = InpaintingMask(mask, (16, 16), 8).of(0)
    assert places[-1].all()
    assert places.all() == (share == 1.0 or size[1] == 1)
    assert places.mean() == pytest.approx(max(share, 1 / 16), abs=1.5 / 16) or size[1] < 16
