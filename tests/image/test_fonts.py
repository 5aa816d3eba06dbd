"""Fonts for words on pictures: Pillow's own, the shipped one, or another of this machine."""

import csv
from pathlib import Path

import pytest
from PIL import ImageFont

from cogview.image import fonts
from cogview.image.fonts import caption_font, nearest_font

WORDS = Path(fonts.__file__).parents[1] / "data"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_known_files", tuple)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.slow
def test_all_that_our_own_texts_hold_is_shown_without_any_font_of_the_machine() -> None:
    for path in WORDS.glob("*.tsv"):
        with path.open(encoding="utf-8") as file:
            words = "".join(field for row in csv.reader(file, delimiter="\t") for field in row)
        assert nearest_font(words)[1] == "", path
    every = "".join(
        bytes([row, cell]).decode("gb2312", errors="ignore")
        for row in range(0xB0, 0xF8)
        for cell in range(0xA1, 0xFF)
    )
    assert len(every) == 6763
    assert caption_font(every + "，。！？：；（）“”《》、…— café, Größe, кот, γατα, ねこ") is not None


@pytest.mark.usefixtures("bare_machine")
def test_what_no_font_has_is_named() -> None:
    assert caption_font("💥") is None
    font, missing = nearest_font("一只猫💥，한국")
    assert missing == "💥한국"
    assert font.getlength("猫") > 0


def test_another_font_is_taken_where_it_shows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "noto-sans-sc.woff"
    own.write_bytes(fonts.SHIPPED_FONT.read_bytes())
    monkeypatch.setattr(fonts, "SHIPPED_FONT", tmp_path / "absent.woff")
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_known_files", lambda: (damaged,))
    assert caption_font("猫") is None  # and a font that cannot be read is passed over
    monkeypatch.setattr(fonts, "_known_files", lambda: (damaged, own))
    font = caption_font("猫")
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.path == own


def test_known_fonts_are_found_by_name_in_the_order_of_preference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("DejaVuSans.ttf", "wqy-microhei.ttc", "NotoSansCJK-Regular.ttc", "Other.ttf", "notes.txt")
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(fonts, "_font_folders", lambda: [tmp_path])
    fonts._known_files.cache_clear()
    found = [path.name for path in fonts._known_files()]
    fonts._known_files.cache_clear()
    assert found == ["NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DejaVuSans.ttf"]


def test_letters_are_as_large_as_asked_for() -> None:
    for words in ("a cat", "一只猫"):
        small, large = (caption_font(words, size_pixels) for size_pixels in (10, 20))
        assert small is not None
        assert large is not None
        assert large.getlength(words) > 1.8 * small.getlength(words)
