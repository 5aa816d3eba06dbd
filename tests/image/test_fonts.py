"""Fonts for words on pictures: Pillow's own, or a Chinese one where there is one."""

from pathlib import Path

import pytest
from PIL import ImageFont

from cogview.image import fonts
from cogview.image.fonts import caption_font


def test_without_a_chinese_font_there_is_none_for_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_chinese_font", lambda size_pixels: None)
    assert caption_font("一只猫") is None
    assert caption_font("a cat") is not None


def test_a_chinese_font_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ImageFont.load_default(16)
    monkeypatch.setattr(fonts, "_chinese_font", lambda size_pixels: stand_in)
    assert caption_font("一只猫") is stand_in


def test_letters_are_as_large_as_asked_for() -> None:
    small, large = (caption_font("a cat", size_pixels) for size_pixels in (10, 20))
    assert small is not None
    assert large is not None
    assert large.getlength("a cat") > 1.8 * small.getlength("a cat")


def test_a_font_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "NotoSansCJK-Regular.ttc"
    damaged.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_font_files", lambda: (damaged,))
    fonts._chinese_font.cache_clear()
    assert caption_font("一只猫") is None
    fonts._chinese_font.cache_clear()
