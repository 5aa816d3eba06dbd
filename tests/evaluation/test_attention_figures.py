"""Figures of attention: weights glow where they are, labels can be read, and what is marked is the code's place."""

import numpy as np
import pytest
import torch
from PIL import Image

from cogview.evaluation import attention_figures as module
from cogview.evaluation.attention import AttentionMaps
from cogview.evaluation.attention_figures import piece_label, strongest_heads, text_figure, token_figure
from cogview.image import fonts

PICTURE = Image.new("RGB", (64, 64), (90, 90, 90))
SIDE = 128
MARK = (0, 230, 255)


def maps(num_layers: int = 2, num_heads: int = 3, num_pieces: int = 2) -> AttentionMaps:
    """Return maps of a picture of 4 x 4 codes without a weight anywhere, for one place."""
    by_head = (num_layers, num_heads)
    return AttentionMaps(
        over_prefix=torch.zeros(*by_head, 16, num_pieces + 3),
        pieces=range(1, num_pieces + 1),
        over_picture=torch.zeros(*by_head, 1, 4, 4),
        places=((2, 1),),
        largest_scores=torch.ones(by_head),
        mean_absolute_scores=torch.ones(by_head),
    )


def brightest(sheet: Image.Image) -> np.ndarray:
    """Return where the colour of the largest weight stands, but for the scale at the foot."""
    pixels = np.asarray(sheet)[:-30]
    return np.argwhere((pixels == module._GLOW[-1]).all(-1))


def corners(places: np.ndarray) -> tuple[int, ...]:
    (top, left), (bottom, right) = places.min(0), places.max(0)
    return int(top), int(left), int(bottom), int(right)


def marked(sheet: Image.Image) -> np.ndarray:
    return np.argwhere((np.asarray(sheet) == MARK).all(-1))


def test_a_weight_glows_in_its_region_of_its_cell_and_the_code_is_framed() -> None:
    here = maps()
    here.over_picture[:, :, :, :2] = 1e-9
    here.over_picture[:, :, :, 2, 0] = here.over_picture[:, :, :, 0, 0] = 0.01
    here.over_picture[1, 2, 0, 1, 3] = 0.5
    sheet = token_figure(here, PICTURE, "a cat")
    frames = marked(sheet)
    in_last_cell = frames[
        (frames[:, 0] > frames[:, 0].max() - SIDE) & (frames[:, 1] > frames[:, 1].max() - SIDE)
    ]
    frame = corners(in_last_cell)
    cell = SIDE // 4
    assert (frame[2] - frame[0], frame[3] - frame[1]) == (cell + 3, cell + 3)
    top, left = frame[0] + 2 - 2 * cell, frame[1] + 2 - cell  # of the cell of layer 1, head 2
    pixels = np.asarray(sheet)[top : top + SIDE, left : left + SIDE].astype(int)
    glow = np.argwhere((pixels == module._GLOW[-1]).all(-1))
    assert corners(glow) == (cell, 3 * cell, 2 * cell - 1, 4 * cell - 1)
    assert (pixels[3 * cell + 2 :].min(-1) > 190).all()  # not drawn yet: pale
    assert (pixels[5, 2 * cell :].max(-1) < 128).all()  # seen, without a weight
    assert pixels[5, 5, 0] > pixels[5, 2 * cell, 0] + 10  # a fiftieth of the largest weight shows


def test_layers_choose_rows() -> None:
    here = maps(num_layers=3)
    both = token_figure(here, PICTURE, "a cat", layers=[2, 0])
    whole = token_figure(here, PICTURE, "a cat")
    assert len(np.unique(marked(both)[:, 0])) * 3 == len(np.unique(marked(whole)[:, 0])) * 2
    words = ["▁a", "▁cat"]
    assert text_figure(here, PICTURE, "a", words, [1]).height < text_figure(here, PICTURE, "a", words).height


def test_a_piece_glows_where_it_is_looked_at_by_the_strongest_head() -> None:
    here = maps()
    here.over_text[0, :, :, 0] = 0.01
    here.over_text[0, 1, 5:7, 1] = 1.0  # row 1, columns 1 and 2
    assert strongest_heads(here)[0].tolist() == [0, 1]
    sheet = text_figure(here, PICTURE, "a cat", ["▁a", "▁cat"])
    top, left, bottom, right = corners(brightest(sheet))
    assert (bottom - top + 1, right - left + 1) == (SIDE // 4, SIDE // 2)
    first = corners(brightest(text_figure(flipped(here), PICTURE, "a cat", ["▁a", "▁cat"])))
    assert first[0] == top
    assert left - first[1] == SIDE + 6  # the next column
    # The mean of three heads is a third of it, and no more.
    mean = np.asarray(sheet)[top - SIDE - 23 + 5, left + 5].astype(int)
    expected = np.interp(3**-0.5, [0, 0.5, 1], [colour[1] for colour in module._GLOW])
    strength = min(1, 1.2 * 3**-0.5)
    assert abs(mean[1] - (expected * strength + (20 + 0.45 * 90) * (1 - strength))) <= 2


def flipped(here: AttentionMaps) -> AttentionMaps:
    """Return maps whose two pieces are exchanged."""
    there = maps()
    there.over_prefix.copy_(here.over_prefix[..., [0, 2, 1, 3, 4]])
    return there


def test_pieces_are_called_by_what_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piece_label("▁apple", 3) == "apple"
    assert piece_label("▁", 0) == "(space)"
    monkeypatch.setattr(fonts, "_known_files", tuple)
    assert piece_label("苹果", 11) == "苹果"
    assert piece_label("💥", 11) == "piece 11"


def test_a_text_that_no_font_can_show_is_left_out_of_the_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_known_files", tuple)
    here = maps()
    sheet = text_figure(here, PICTURE, "一只💥", ["一只", "💥"])
    assert sheet.size == text_figure(here, PICTURE, "a cat", ["▁a", "▁cat"]).size


@pytest.mark.slow
def test_labels_that_are_too_long_are_shrunk_and_then_cut() -> None:
    short, font = module._fitting("apple", 100, 14)
    assert (short, font.size) == ("apple", 14)
    long, small = module._fitting("internationalisation", 100, 14)
    assert long == "internationalisation"
    assert small.size < 14
    cut, least = module._fitting("word " * 30, 100, 14)
    assert cut.endswith("...")
    assert least.getlength(cut) <= 100
    tall = text_figure(maps(num_pieces=1), PICTURE, "word " * 300, ["▁" + "w" * 90])
    assert tall.width <= 800


def test_many_heads_have_small_cells() -> None:
    wide = token_figure(maps(num_layers=1, num_heads=40), PICTURE, "a")
    assert 40 * 64 < wide.width < 5000
    assert marked(wide)[:, 1].max() < wide.width


@pytest.mark.parametrize(
    ("share", "words"), [(0.00021, "0.02 %"), (0.012, "1.2 %"), (0.0997, "10 %"), (1.0, "100 %")]
)
def test_shares_are_told_in_two_digits(share: float, words: str) -> None:
    assert module._percent(share) == words


def test_a_text_of_two_lines_is_a_title_of_one() -> None:
    sheets = [
        np.asarray(token_figure(maps(), PICTURE, text)) for text in ("a cat\nand a dog", "a cat and a dog")
    ]
    assert np.array_equal(*sheets)
