"""Icons made up for tests: one coloured shape per object and style, so that no package is needed."""

import pytest

from cogview.world.config import HELD_OUT_STYLES, TRAINING_STYLES
from cogview.world.icons import Icons, IconWords
from cogview.world.objects import scene_objects
from scene_pictures import scene_art


@pytest.fixture(scope="session")
def other_codes() -> tuple[str, ...]:
    """Return icons that are not in the table of objects."""
    return tuple(f"1f{number:03x}" for number in range(0x700, 0x740))


@pytest.fixture(scope="session")
def icons(other_codes: tuple[str, ...]) -> Icons:
    """Return icons for every object of the table and the others, all of them different."""
    codes = [*scene_objects(), *other_codes]
    art = scene_art(codes, (*TRAINING_STYLES, *HELD_OUT_STYLES, "outlined"))
    words = {
        code: IconWords(
            labels={"zh": f"图{code}", "en": f"icon {code}"},
            tags={"zh": ("甲", "乙", "丙"), "en": ("one", "two", "three")},
        )
        for code in codes
    }
    return Icons(art, words)
