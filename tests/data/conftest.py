"""Icons made up for tests: one coloured shape per object and style, so that no package is needed."""

import hashlib

import pytest

from cogview.data.config import HELD_OUT_STYLES, TRAINING_STYLES
from cogview.data.icons import Icons, IconWords
from cogview.data.world import scene_objects


@pytest.fixture(scope="session")
def other_codes() -> tuple[str, ...]:
    """Return icons that are not in the table of objects."""
    return tuple(f"1f{number:03x}" for number in range(0x700, 0x740))


@pytest.fixture(scope="session")
def icons(other_codes: tuple[str, ...]) -> Icons:
    """Return icons for every object of the table and the others, all of them different."""
    codes = [*scene_objects(), *other_codes]
    art = {
        style: {code: _shape(style, code) for code in codes} for style in (*TRAINING_STYLES, *HELD_OUT_STYLES)
    }
    words = {
        code: IconWords(
            labels={"zh": f"图{code}", "en": f"icon {code}"},
            tags={"zh": ("甲", "乙", "丙"), "en": ("one", "two", "three")},
        )
        for code in codes
    }
    return Icons(art, words)


def _shape(style: str, code: str) -> str:
    colour = hashlib.sha256(f"{style}{code}".encode()).hexdigest()[:6]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16">'
        f'<circle cx="8" cy="8" r="7.5" fill="#{colour}"/></svg>'
    )
