"""Contact sheets: every picture in its place, every caption readable."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cogview.generation import contact_sheet as sheets
from cogview.generation.contact_sheet import (
    MAX_PAGE_PIXELS,
    Pages,
    contact_sheet,
    is_contact_sheet,
    save_sheet,
)
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


def test_a_chinese_caption_is_drawn_with_the_shipped_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_known_files", tuple)
    row = [picture("white")] * 4
    blank, one, other = (ink(contact_sheet([row], [text])) for text in ("", "一只猫", "一只狗和一个苹果"))
    assert blank < one < other


def test_a_character_that_no_font_has_is_a_box_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_known_files", tuple)
    monkeypatch.setattr(sheets, "_warned", set())
    row = [picture("white")] * 4
    with pytest.warns(UserWarning, match=r"font .*💥 \(U\+1F4A5\)"):
        boxed = contact_sheet([row], ["💥"])
    assert ink(boxed) > ink(contact_sheet([row], [""]))
    contact_sheet([row], ["💥 again"])  # without another warning, which would be an error


def test_a_written_sheet_is_known_by_its_mark_or_its_old_name(tmp_path: Path) -> None:
    sheet = contact_sheet([[picture("red")]], ["a"])
    save_sheet(sheet, tmp_path / "renamed.png")
    with Image.open(tmp_path / "renamed.png") as back:
        assert np.array_equal(np.asarray(back), np.asarray(sheet))
    assert is_contact_sheet(tmp_path / "renamed.png")
    sheet.save(tmp_path / "contact-sheet-2.png")
    assert is_contact_sheet(tmp_path / "contact-sheet-2.png")
    sheet.save(tmp_path / "picture.png")
    assert not is_contact_sheet(tmp_path / "picture.png")
    assert not is_contact_sheet(tmp_path / "absent.png")


@given(num_pictures=st.integers(1, 200), height=st.sampled_from([16, 64, 128]), noted=st.booleans())
@settings(max_examples=12, deadline=None)
@pytest.mark.slow
def test_pages_hold_all_pictures_and_stay_low(num_pictures: int, height: int, noted: bool) -> None:
    pages = Pages.of(num_pictures, height, noted=noted)
    assert 1 <= pages.texts_per_page <= 16
    assert pages.texts_per_page == 1 or len(pages.sizes) == 1
    assert sum(pages.sizes) == pages.texts_per_page * num_pictures
    row = [Image.new("RGB", (4, height))] * (pages.sizes[0] // pages.texts_per_page)
    rows = [row] * pages.texts_per_page
    notes = [["1.234"] * len(row)] * len(rows) if noted else None
    assert contact_sheet(rows, ["word " * 200] * len(rows), notes=notes).height <= MAX_PAGE_PIXELS


def test_a_row_of_pictures_higher_than_a_page_has_one_of_its_own() -> None:
    assert Pages.of(20, 2 * MAX_PAGE_PIXELS, noted=False) == Pages(texts_per_page=1, sizes=(8, 8, 4))


def test_the_caption_of_one_small_picture_is_shown_whole() -> None:
    words = "three red apples to the left of a blue umbrella"
    sheet = contact_sheet([[picture("white")]], [words])
    wide = contact_sheet([[picture("white")] * 8], [words])
    assert ink(sheet) == ink(wide)  # not cut
