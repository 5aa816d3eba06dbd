"""Contact sheets: the candidates of several texts on one picture, each text below its candidates."""

import math
from bisect import bisect_right
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from cogview.image.fonts import TEXT_PIXELS, Font, caption_font

_GAP_PIXELS = 8
_NOTE_PIXELS = 12
_MAX_COLUMNS = 8
_MIN_WIDTH_PIXELS = 360  # a caption below a single small picture has to be read too
_MAX_LINES = 2
_MAX_CHARACTERS = 300  # a line never holds more
_BACKGROUND, _INK = (255, 255, 255), (32, 32, 32)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[str],
    first_number: int = 1,
    notes: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """Lay pictures out in rows, with a numbered caption below each row's pictures.

    A caption that no font at hand can show is left out and its number stays, so that a table elsewhere can explain it.

    Args:
        rows: the pictures of each caption, all of one size; more than eight are wrapped.
        captions: one a row, of any length; what does not fit in two lines ends in an ellipsis.
        first_number: of the captions.
        notes: a few ASCII characters to stand below each picture, if anything is to.
    """
    width, height = rows[0][0].size
    note_font = ImageFont.load_default(_NOTE_PIXELS)
    note_height = _NOTE_PIXELS + _GAP_PIXELS // 2 if notes is not None else 0
    num_columns = min(max(len(row) for row in rows), _MAX_COLUMNS)
    sheet_width = max(num_columns * (width + _GAP_PIXELS) + _GAP_PIXELS, _MIN_WIDTH_PIXELS)
    blocks = []
    for number, (row, caption) in enumerate(zip(rows, captions, strict=True), start=first_number):
        font = caption_font(caption)
        text = f"{number}. {' '.join(caption.split())}" if font else f"{number}."
        font = font or ImageFont.load_default(TEXT_PIXELS)
        blocks.append((row, _wrap(text, font, sheet_width - 2 * _GAP_PIXELS), font))
    line_height = TEXT_PIXELS + _GAP_PIXELS // 2
    heights = [
        -(-len(row) // num_columns) * (height + note_height + _GAP_PIXELS)
        + len(lines) * line_height
        + 2 * _GAP_PIXELS
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
            picture_top = top + row_index * (height + note_height + _GAP_PIXELS)
            sheet.paste(picture, (left, picture_top))
            draw.text((left, picture_top + height), note, fill=_INK, font=note_font)
        text_top = top + block_height - 2 * _GAP_PIXELS - len(lines) * line_height
        for line in lines:
            draw.text((_GAP_PIXELS, text_top), line, fill=_INK, font=font)
            text_top += line_height
        top += block_height
    return sheet


def _wrap(text: str, font: Font, max_width_pixels: int) -> list[str]:
    """Break a text into lines that fit: at a space where there is one, and between characters otherwise."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) <= _MAX_LINES:
        widths = [
            math.ceil(font.getlength(rest[:num])) for num in range(1, min(len(rest), _MAX_CHARACTERS) + 1)
        ]
        num_fitting = max(1, bisect_right(widths, max_width_pixels))
        if num_fitting < len(rest) and (space := rest.rfind(" ", 0, num_fitting + 1)) > 0:
            num_fitting = space
        lines.append(rest[:num_fitting].strip())
        rest = rest[num_fitting:].strip()
    if len(lines) > _MAX_LINES:
        lines = lines[:_MAX_LINES]
        lines[-1] = lines[-1][:-3] + "..."
    return lines
