"""Figures of attention maps over their picture.

Brightness is the square root of a weight, so that small weights can be seen too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cogview.evaluation.attention import AttentionMaps
from cogview.image.fonts import Font, caption_font

_GAP_PIXELS = 6
_TITLE_PIXELS = 16
_LABEL_PIXELS = 14
_NOTE_PIXELS = 11
_LEAST_LABEL_PIXELS = 9
_BAR_PIXELS = (160, 12)
_THUMB_PIXELS = 96
_LEAST_TITLE_PIXELS = 400
_MAX_SHEET_PIXELS = 4096
_CELL_PIXELS = (64, 128)
"""The least and the largest side of a cell."""

_BACKGROUND, _INK, _MARK = (255, 255, 255), (32, 32, 32), (0, 230, 255)
_GLOW = ((190, 20, 60), (255, 120, 0), (255, 245, 130))
"""Colours of small, medium and large weights; weight 0 leaves the picture's grey."""


def token_figure(
    maps: AttentionMaps,
    picture: Image.Image,
    text: str,
    index: int = 0,
    layers: Sequence[int] | None = None,
) -> Image.Image:
    """Draw a code's attention over the picture: a row for each layer, a column for each head.

    Each cell is scaled to its largest weight. Below it are this weight and the share of all weights on the picture.
    Codes that cannot be seen are pale.

    Args:
        maps: maps of the picture.
        picture: the picture.
        text: its text.
        index: index of the code among the chosen ones.
        layers: layers to draw; all by default.
    """
    row, column = maps.places[index]
    weights = maps.over_picture[:, :, index]
    num_layers, num_heads, rows, columns = weights.shape
    drawn = range(num_layers) if layers is None else layers
    side = _cell_pixels(num_heads)
    grey = _grey(picture, side)
    seen = (torch.arange(rows * columns) < row * columns + column).view(rows, columns)
    seen &= (weights > 0).any(0).any(0)  # sparse attention does not see all earlier codes
    cells: list[list[Image.Image]] = [[] for _ in drawn]
    notes: list[list[str]] = [[] for _ in drawn]
    for number, layer in enumerate(drawn):
        for head in range(num_heads):
            here = weights[layer, head]
            largest = float(here.max())
            cell = _glowing(grey, here / max(largest, 1e-12), seen)
            _mark(cell, row, column, (rows, columns))
            cells[number].append(cell)
            notes[number].append(f"max {_percent(largest)}, sum {_percent(float(here.sum()))}")
    return _sheet(
        picture,
        [
            text,
            f"Where the code at row {row}, column {column} (framed) looked",
            "in the picture so far, by layer and head",
        ],
        [f"head {head}" for head in range(num_heads)],
        [[f"layer {layer}"] for layer in drawn],
        cells,
        notes,
        ("0", "a cell's max; sum: of all weights on the picture"),
    )


def text_figure(
    maps: AttentionMaps,
    picture: Image.Image,
    text: str,
    words: Sequence[str],
    layers: Sequence[int] | None = None,
) -> Image.Image:
    """Draw the attention of each code to each piece: a column for each piece.

    A layer has two rows: the mean over its heads, and each piece's strongest head. All cells have the same scale, from
    0 to 1; below each is its mean over the picture.

    Args:
        maps: maps of the picture.
        picture: the picture.
        text: its text.
        words: the pieces as the text tokenizer shows them, to label columns.
        layers: layers to draw; all by default.
    """
    assert len(words) == maps.over_text.shape[-1], "one word per piece"
    grid = maps.over_picture.shape[3:]
    by_piece = maps.over_text.movedim(-1, 1)
    by_piece = by_piece.reshape(*by_piece.shape[:3], *grid)  # [l n h r s]
    num_layers, num_pieces = by_piece.shape[:2]
    strongest = strongest_heads(maps)
    side = _cell_pixels(num_pieces)
    grey = _grey(picture, side)
    everywhere = torch.ones(grid, dtype=torch.bool)
    cells, notes, labels = [], [], []
    for layer in range(num_layers) if layers is None else layers:
        labels += [[f"layer {layer}", "mean of", "heads"], [f"layer {layer}", "strongest", "head"]]
        means = by_piece[layer].mean(1)
        heads = strongest[layer].tolist()
        alone = [by_piece[layer, piece, head] for piece, head in enumerate(heads)]
        cells.append([_glowing(grey, each, everywhere) for each in means])
        cells.append([_glowing(grey, each, everywhere) for each in alone])
        notes.append([_percent(float(each.mean())) for each in means])
        notes.append(
            [f"head {head}: {_percent(float(each.mean()))}" for head, each in zip(heads, alone, strict=True)]
        )
    return _sheet(
        picture,
        [text, "How much each place of the picture, when it was drawn,", "looked at each piece of the text"],
        [piece_label(word, number) for number, word in enumerate(words)],
        labels,
        cells,
        notes,
        ("0", "100 % of a place's attention; below a cell: the mean over the picture"),
    )


def strongest_heads(maps: AttentionMaps) -> Tensor:
    """Return for each layer and piece, [l n], the head with the largest mean weight on the piece."""
    return maps.over_text.mean(2).argmax(1)


def piece_label(word: str, number: int) -> str:
    """Return the label of a piece: its letters, or its number if no font has them.

    Args:
        word: the piece as the text tokenizer shows it, a space as "▁".
        number: number of the piece in its text, from 0.
    """
    letters = word.replace("▁", " ").strip() or "(space)"
    return letters if caption_font(letters) else f"piece {number}"


def _cell_pixels(num_columns: int) -> int:
    """Return the side of a cell, given the number of columns."""
    least, most = _CELL_PIXELS
    return min(max(_MAX_SHEET_PIXELS // num_columns, least), most)


def _percent(share: float) -> str:
    """Format a share in per cent with about two significant digits."""
    digits = 2 if share < 0.00995 else 1 if share < 0.0995 else 0
    return f"{100 * share:.{digits}f} %"


def _grey(picture: Image.Image, side: int) -> Float[np.ndarray, "y x c"]:
    """Return the picture as dark grey, the background of the weights."""
    scaled = picture.convert("L").resize((side, side), Image.Resampling.LANCZOS)
    grey = 20 + 0.45 * np.asarray(scaled, dtype=np.float32)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _colours(strength: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n c"]:
    """Return the colours of weights, given their square roots."""
    stops = np.linspace(0, 1, len(_GLOW))
    channels = [np.interp(strength, stops, [colour[c] for colour in _GLOW]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _glowing(
    grey: Float[np.ndarray, "y x c"], weights: Float[Tensor, "r s"], seen: Bool[Tensor, "r s"]
) -> Image.Image:
    """Return a picture with weights from 0 to 1 over it, and pale where it could not be seen."""
    strength = _spread(weights.clamp(0, 1).sqrt().numpy(), grey.shape[0])
    opacity = np.minimum(1.0, 1.2 * strength)[:, :, None]
    pixels = grey * (1 - opacity) + _colours(strength) * opacity
    is_seen = _spread(seen.numpy(), grey.shape[0])[:, :, None]
    pixels = np.where(is_seen, pixels, 200 + 0.25 * grey)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _spread(values: np.ndarray, side: int) -> np.ndarray:
    """Enlarge values to a square of pixels, by nearest neighbour."""
    rows, columns = (np.arange(side) * num // side for num in values.shape)
    return values[rows][:, columns]


def _mark(cell: Image.Image, row: int, column: int, grid: tuple[int, int]) -> None:
    """Frame one region of a cell."""
    side = cell.width
    top, bottom = (-(-(row + more) * side // grid[0]) for more in (0, 1))
    left, right = (-(-(column + more) * side // grid[1]) for more in (0, 1))
    ImageDraw.Draw(cell).rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=_MARK, width=2)


def _sheet(
    picture: Image.Image,
    titles: Sequence[str],
    column_labels: Sequence[str],
    row_labels: Sequence[Sequence[str]],
    cells: Sequence[Sequence[Image.Image]],
    notes: Sequence[Sequence[str]],
    ends_of_scale: tuple[str, str],
) -> Image.Image:
    """Lay out labelled rows of cells with a note below each, and the picture and titles at the top."""
    side = cells[0][0].width
    label_font = ImageFont.load_default(_LABEL_PIXELS)
    left = 2 * _GAP_PIXELS + round(max(label_font.getlength(line) for lines in row_labels for line in lines))
    step_x, step_y = side + _GAP_PIXELS, side + _NOTE_PIXELS + 2 * _GAP_PIXELS
    scale = _scale_bar(ends_of_scale)
    thumb = picture.resize((_THUMB_PIXELS, _THUMB_PIXELS), Image.Resampling.LANCZOS)
    beside = left + _THUMB_PIXELS + 2 * _GAP_PIXELS
    width = max(left + step_x * len(column_labels), beside + _LEAST_TITLE_PIXELS, left + scale.width)
    top, foot = _THUMB_PIXELS + _LABEL_PIXELS + 4 * _GAP_PIXELS, scale.height + 2 * _GAP_PIXELS
    sheet = Image.new("RGB", (width, top + step_y * len(cells) + foot), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    sheet.paste(thumb, (left, _GAP_PIXELS))
    readable = [" ".join(title.split()) for title in titles if caption_font(title)]
    for number, title in enumerate(readable):
        line, font = _fitting(title, width - beside - _GAP_PIXELS, _TITLE_PIXELS)
        draw.text((beside, _GAP_PIXELS + number * (_TITLE_PIXELS + _GAP_PIXELS)), line, _INK, font)
    for number, label in enumerate(column_labels):
        line, font = _fitting(label, side, _LABEL_PIXELS)
        draw.text((left + number * step_x + side // 2, top - _GAP_PIXELS), line, _INK, font, anchor="ms")
    for row, (lines, row_cells, row_notes) in enumerate(zip(row_labels, cells, notes, strict=True)):
        y = top + row * step_y
        draw.multiline_text((_GAP_PIXELS, y), "\n".join(lines), _INK, label_font)
        for column, (cell, note) in enumerate(zip(row_cells, row_notes, strict=True)):
            x = left + column * step_x
            sheet.paste(cell, (x, y))
            line, font = _fitting(note, step_x, _NOTE_PIXELS)
            draw.text((x, y + side + 1), line, _INK, font)
    sheet.paste(scale, (left, sheet.height - foot))
    return sheet


def _fitting(text: str, max_width_pixels: int, size_pixels: int) -> tuple[str, Font]:
    """Return a text, shortened if necessary, and the largest font up to `size_pixels` in which it fits."""
    font = _font_of(text, size_pixels)
    while font.getlength(text) > max_width_pixels and size_pixels > _LEAST_LABEL_PIXELS:
        size_pixels -= 1
        font = _font_of(text, size_pixels)
    if font.getlength(text) <= max_width_pixels:
        return text, font
    while len(text) > 1 and font.getlength(f"{text}...") > max_width_pixels:
        text = text[:-1]
    return f"{text}...", font


def _font_of(text: str, size_pixels: int) -> Font:
    font = caption_font(text, size_pixels)
    assert font is not None  # callers replace or omit texts that no font can show
    return font


def _scale_bar(ends: tuple[str, str]) -> Image.Image:
    """Draw the colour scale with labels at both ends."""
    width, height = _BAR_PIXELS
    font = ImageFont.load_default(_NOTE_PIXELS)
    widths = [round(font.getlength(end)) for end in ends]
    bar = Image.new("RGB", (sum(widths) + width + 3 * _GAP_PIXELS, height + 2), _BACKGROUND)
    draw = ImageDraw.Draw(bar)
    draw.text((0, 0), ends[0], _INK, font)
    draw.text((widths[0] + width + 2 * _GAP_PIXELS, 0), ends[1], _INK, font)
    strength = np.tile(np.sqrt(np.linspace(0, 1, width)), (height, 1))
    opacity = np.minimum(1.0, 1.2 * strength)[:, :, None]
    pixels: UInt8[np.ndarray, "y x c"] = (50 * (1 - opacity) + _colours(strength) * opacity).astype(np.uint8)
    bar.paste(Image.fromarray(pixels), (widths[0] + _GAP_PIXELS, 0))
    return bar
