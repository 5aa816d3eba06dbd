"""Contact sheets: the candidates of several texts on one page, each text below its candidates."""

import io
import math
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cogview.files import atomic_write_bytes
from cogview.image.fonts import TEXT_PIXELS, Font, nearest_font

MAX_PAGE_PIXELS = 4096
"""Height of a page, unless one row of pictures is higher."""
MAX_TEXTS = 16
"""Texts on a page."""
_GAP_PIXELS = 8
_NOTE_PIXELS = 12
_MAX_COLUMNS = 8
_MIN_WIDTH_PIXELS = 360  # a caption below a single small picture has to be read too
_MAX_LINES = 2
_LINE_PIXELS = TEXT_PIXELS + _GAP_PIXELS // 2
_MAX_CHARACTERS = 300  # a line never holds more
_BACKGROUND, _INK = (255, 255, 255), (32, 32, 32)
_KEYWORD = "cogview-sheet"
_warned: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Division of a contact sheet into pages of limited height.

    Args:
        texts_per_page: texts on a page; 1 where a text needs several pages.
        sizes: pictures on each page that these texts take.
    """

    texts_per_page: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, num_pictures: int, picture_height: int, *, noted: bool) -> "Pages":
        """Divide texts of equally many pictures into pages.

        Args:
            num_pictures: pictures of each text.
            picture_height: in pixels.
            noted: whether there are notes below the pictures.
        """
        row = _row_pixels(picture_height, noted)
        around = _MAX_LINES * _LINE_PIXELS + 2 * _GAP_PIXELS
        num_fitting = max(1, (MAX_PAGE_PIXELS - around) // row) * _MAX_COLUMNS
        if num_pictures > num_fitting:
            whole, rest = divmod(num_pictures, num_fitting)
            return cls(texts_per_page=1, sizes=(num_fitting,) * whole + (rest,) * (rest > 0))
        block = -(-num_pictures // _MAX_COLUMNS) * row + around
        num_texts = min(MAX_TEXTS, max(1, MAX_PAGE_PIXELS // block))
        return cls(texts_per_page=num_texts, sizes=(num_texts * num_pictures,))


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[str],
    first_number: int = 1,
    notes: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """Lay out pictures in rows, with a numbered caption below each row.

    Characters that no installed font has are drawn as boxes, with a warning.

    Args:
        rows: the pictures of each caption, all of one size; rows of more than eight are wrapped.
        captions: one for each row; what does not fit in two lines ends in an ellipsis.
        first_number: number of the first caption.
        notes: a few ASCII characters to write below each picture.
    """
    width, height = rows[0][0].size
    note_font = ImageFont.load_default(_NOTE_PIXELS)
    row_pixels = _row_pixels(height, notes is not None)
    num_columns = min(max(len(row) for row in rows), _MAX_COLUMNS)
    sheet_width = max(num_columns * (width + _GAP_PIXELS) + _GAP_PIXELS, _MIN_WIDTH_PIXELS)
    blocks = []
    for number, (row, caption) in enumerate(zip(rows, captions, strict=True), start=first_number):
        text = f"{number}. {' '.join(caption.split())}"[: (_MAX_LINES + 1) * _MAX_CHARACTERS]
        font, missing = nearest_font(text)
        _warn_of_missing(missing)
        blocks.append((row, _wrap(text, font, sheet_width - 2 * _GAP_PIXELS), font))
    heights = [
        -(-len(row) // num_columns) * row_pixels + len(lines) * _LINE_PIXELS + 2 * _GAP_PIXELS
        for row, lines, _ in blocks
    ]
    sheet = Image.new("RGB", (sheet_width, sum(heights)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _GAP_PIXELS
    notes = notes if notes is not None else [[""] * len(row) for row in rows]
    for (row, lines, font), row_notes, block_height in zip(blocks, notes, heights, strict=True):
        for index, (picture, note) in enumerate(zip(row, row_notes, strict=True)):
            row_index, column_index = divmod(index, num_columns)
            left = _GAP_PIXELS + column_index * (width + _GAP_PIXELS)
            picture_top = top + row_index * row_pixels
            sheet.paste(picture, (left, picture_top))
            draw.text((left, picture_top + height), note, fill=_INK, font=note_font)
        text_top = top + block_height - 2 * _GAP_PIXELS - len(lines) * _LINE_PIXELS
        for line in lines:
            draw.text((_GAP_PIXELS, text_top), line, fill=_INK, font=font)
            text_top += _LINE_PIXELS
        top += block_height
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a contact sheet as PNG, whole or not at all, with a mark for `is_contact_sheet`."""
    mark, data = PngInfo(), io.BytesIO()
    mark.add_text(_KEYWORD, "contact sheet")
    sheet.save(data, "PNG", pnginfo=mark)
    atomic_write_bytes(path, data.getvalue())


def is_contact_sheet(path: Path) -> bool:
    """Return whether a file is one of our contact sheets, by its mark, or by its name if it is older."""
    if not path.is_file():
        return False  # whoever reads the picture says what is wrong with it
    if path.name.startswith("contact-sheet") and path.suffix == ".png":
        return True
    try:
        with path.open("rb") as file:
            # The mark stands before the pixels, so the beginning of the file is enough.
            return f"tEXt{_KEYWORD}\0".encode() in file.read(256)
    except OSError:
        return False


def _warn_of_missing(missing: str) -> None:
    """Warn of characters that no font has, once for each."""
    characters = [each for each in missing if each not in _warned]
    if characters:
        _warned.update(characters)
        shown = " ".join(f"{each} (U+{ord(each):04X})" for each in characters[:3])
        more = f" and {len(characters) - 3} more" if len(characters) > 3 else ""
        warnings.warn(
            f"no font here has {shown}{more}: the contact sheet shows boxes. Install a font with them, for instance "
            "Debian's fonts-noto-cjk for rare Chinese characters, or fonts-unifont",
            stacklevel=3,
        )


def _row_pixels(picture_height: int, noted: bool) -> int:
    return picture_height + (_NOTE_PIXELS + _GAP_PIXELS // 2 if noted else 0) + _GAP_PIXELS


def _wrap(text: str, font: Font, max_width_pixels: int) -> list[str]:
    """Break a text into lines that fit, at spaces where possible."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) <= _MAX_LINES:
        lengths = range(1, min(len(rest), _MAX_CHARACTERS) + 1)
        fitting = bisect_right(
            lengths, max_width_pixels, key=lambda num: math.ceil(font.getlength(rest[:num]))
        )
        num_fitting = max(1, fitting)
        if num_fitting < len(rest) and (space := rest.rfind(" ", 0, num_fitting + 1)) > 0:
            num_fitting = space
        lines.append(rest[:num_fitting].strip())
        rest = rest[num_fitting:].strip()
    if len(lines) > _MAX_LINES:
        lines = lines[:_MAX_LINES]
        lines[-1] = lines[-1][:-3] + "..."
    return lines
