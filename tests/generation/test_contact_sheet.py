"""Contact sheets: every picture in its place, every caption readable or left out."""

import numpy as np
import pytest
from PIL import Image

from cogview.generation.contact_sheet import contact_sheet
from cogview.image import fonts


def picture(color: str) -> Image.Image:
    return Image.new("RGB", (32, 32), color)


def places(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((np.asarray(sheet) == color).all(axis=-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_pictures_stand_whole_in_rows_in_their_order() -> None:
    sheet = contact_sheet([[picture("red"), picture("lime")], [picture("blue")]], ["a", "b"])
    red, lime, blue = (places(sheet, color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    for top, bottom, left, right in (red, lime, blue):
        assert (bottom - top, right - left) == (31, 31)
    assert red[0] == lime[0]
    assert red[3] < lime[2]
    assert blue[2] == red[2]
    assert blue[0] > red[1]


def test_many_candidates_are_wrapped() -> None:
    sheet = contact_sheet([[picture("white")] * 11 + [picture("red")]], ["a"])
    one_row = contact_sheet([[picture("white")] * 8], ["a"])
    assert sheet.width == one_row.width
    assert places(sheet, (255, 0, 0))[0] > 40


def ink(sheet: Image.Image) -> int:
    return int((np.asarray(sheet.convert("L")) < 128).sum())


def test_notes_stand_below_their_pictures() -> None:
    row = [picture("red"), picture("lime")] * 5
    plain = contact_sheet([row], ["a"])
    noted = contact_sheet([row], ["a"], notes=[["1.234"] + [""] * 9])
    assert noted.height > plain.height
    top, bottom, left, right = places(noted, (255, 0, 0))
    assert (left, right) == places(plain, (255, 0, 0))[2:]
    below = np.asarray(noted.convert("L"))[top + 32 : top + 32 + 14]
    assert (below[:, left : left + 32] < 128).any()
    assert (below[:, left + 40 :] > 128).all()
    top_of_plain, bottom_of_plain = places(plain, (255, 0, 0))[:2]
    assert bottom - top == bottom_of_plain - top_of_plain + 16


def test_the_caption_is_drawn_and_bounded() -> None:
    row = [picture("white")] * 4
    short, long = contact_sheet([row], ["a"]), contact_sheet([row], ["word " * 200])
    assert ink(short) > 0
    assert ink(long) > ink(short)
    assert long.height <= short.height + 20
    unbroken = contact_sheet([row], ["w" * 1000])
    assert unbroken.size == long.size


def test_without_a_chinese_font_the_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_chinese_font", lambda size_pixels: None)
    row = [picture("white")] * 4
    assert contact_sheet([row], ["一只猫"]).tobytes() == contact_sheet([row], [""]).tobytes()


def test_the_caption_of_one_small_picture_is_shown_whole() -> None:
    words = "three red apples to the left of a blue umbrella"
    sheet = contact_sheet([[picture("white")]], [words])
    wide = contact_sheet([[picture("white")] * 8], [words])
    assert ink(sheet) == ink(wide)  # not cut
