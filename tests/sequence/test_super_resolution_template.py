"""The sequence of super-resolution token by token, its positions, and that only high codes are learnt."""

import dataclasses

import numpy as np
import pytest

from cogview.errors import CogViewError
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import SequenceTemplate, TextToImageTemplate, TokenKind
from cogview.sequence.vocabulary import Vocabulary

LOW = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=10, num_text_pieces=20),
    grid_rows=1,
    grid_columns=2,
    max_text_pieces=3,
)
FIXED = dataclasses.replace(LOW, image_positions="fixed")
PAPER = SuperResolutionTemplate.of(LOW)
OWN = SuperResolutionTemplate.of(FIXED, high_positions="after_low")
RELEASED = SuperResolutionTemplate.of(LOW, released=True)
PAD, ROI1, TINY, BASE, BOI1, EOI1, ROI2, POS0, BOI2, EOI2 = (
    LOW.vocabulary.separator(name)
    for name in ("PAD", "ROI1", "TINY", "BASE", "BOI1", "EOI1", "ROI2", "POS0", "BOI2", "EOI2")
)
LOW_CODES, HIGH_CODES = np.array([[8, 9]]), np.arange(8).reshape(2, 4)


def test_the_tokens_stand_in_the_order_of_the_paper_and_positions_restart() -> None:
    sequence = PAPER.build([4, 5], LOW_CODES, HIGH_CODES)
    low = [ROI1, 14, 15, TINY, BOI1, 8, 9, EOI1]
    high = [ROI2, TINY, BOI2, *range(8), EOI2]
    assert sequence.tokens.tolist() == [*low, *high]
    assert sequence.positions.tolist() == [*range(8), *range(12)]
    separator, text, image = TokenKind.SEPARATOR, TokenKind.TEXT, TokenKind.IMAGE
    assert sequence.kind.tolist() == [
        *[separator, text, text, separator, separator, image, image, separator],
        *[separator] * 3,
        *[image] * 8,
        separator,
    ]


def test_released_weights_are_told_base_twice_and_where_the_window_is() -> None:
    sequence = RELEASED.build([4, 5], LOW_CODES, HIGH_CODES)
    low = [ROI1, 14, 15, BASE, BOI1, 8, 9, EOI1]
    assert sequence.tokens.tolist() == [*low, ROI2, POS0, BASE, BOI2, *range(8), EOI2]
    assert sequence.positions.tolist() == [*range(8), *range(13)]


def test_the_paper_s_size_fits_in_the_released_position_table() -> None:
    low = TextToImageTemplate(
        vocabulary=Vocabulary(num_image_codes=8192, num_text_pieces=50_000),
        grid_rows=16,
        grid_columns=16,
        max_text_pieces=60,
    )
    released = SuperResolutionTemplate.of(low, released=True)
    assert released.num_positions == 4 + 1024 + 1 <= 1089
    assert released.max_tokens == 3 + 60 + 256 + 1 + 4 + 1024 + 1
    roi2, pos0, base, boi2 = 58192 + 8, 58192 + 18, 58192 + 16, 58192 + 2
    assert released.prefix([], np.zeros(256, dtype=int)).tokens[-4:].tolist() == [roi2, pos0, base, boi2]


@pytest.mark.parametrize("num_pieces", [0, 2, 3, 5])
def test_positions_of_their_own_do_not_depend_on_the_text(num_pieces: int) -> None:
    sequence = OWN.build(list(range(num_pieces)), LOW_CODES, HIGH_CODES)
    assert FIXED.num_positions == 9
    assert sequence.positions[-12:].tolist() == list(range(9, 21))
    assert OWN.num_positions == 21
    assert OWN.high_code_positions().tolist() == list(range(12, 20))


@pytest.mark.parametrize("template", [PAPER, OWN, RELEASED], ids=["paper", "own", "released"])
@pytest.mark.parametrize("num_pieces", [0, 2, 5])
def test_what_stands_before_roi2_is_the_base_s_sequence(
    template: SuperResolutionTemplate, num_pieces: int
) -> None:
    pieces = list(range(num_pieces))
    prefix, low = template.prefix(pieces, LOW_CODES), template.low.build(pieces, LOW_CODES)
    num_low = len(low.tokens)
    whole = template.build(pieces, LOW_CODES, HIGH_CODES)
    np.testing.assert_array_equal(prefix.positions[:num_low], low.positions)
    expected = np.where(low.tokens == TINY, BASE if template.released else TINY, low.tokens)
    np.testing.assert_array_equal(prefix.tokens[:num_low], expected)
    length = len(prefix.tokens)
    for name in ("tokens", "positions", "kind"):
        np.testing.assert_array_equal(getattr(whole, name)[:length], getattr(prefix, name))
    np.testing.assert_array_equal(whole.positions[length:-1], template.high_code_positions())
    assert prefix.num_clipped_pieces == whole.num_clipped_pieces == max(num_pieces - 3, 0)
    assert length <= template.max_prefix_tokens
    assert (length == template.max_prefix_tokens) == (num_pieces >= 3)


def test_a_batch_is_padded_and_has_the_high_codes_as_its_only_targets() -> None:
    batch = OWN.batch([([], LOW_CODES, HIGH_CODES), ([1, 2, 3, 4], LOW_CODES, HIGH_CODES + 1)])
    assert isinstance(OWN, SequenceTemplate)
    assert batch.tokens.shape == (2, OWN.max_tokens)
    assert OWN.max_text_targets == batch.text_mask.sum() == 0
    assert batch.tokens[0].tolist() == [
        *[ROI1, TINY, BOI1, 8, 9, EOI1, ROI2, TINY, BOI2],
        *range(8),
        *[EOI2, PAD, PAD, PAD],
    ]
    # Read before each target: [BOI2] and all high codes but the last.
    assert batch.tokens[batch.image_mask].reshape(2, 8).tolist() == [[BOI2, *range(7)], [BOI2, *range(1, 8)]]
    assert batch.targets[batch.image_mask].reshape(2, 8).tolist() == [[*range(8)], [*range(1, 9)]]
    assert batch.num_clipped == 1
    assert batch.positions.max() < OWN.num_positions


def test_what_is_no_picture_of_either_size_is_refused() -> None:
    with pytest.raises(CogViewError, match=r"\[2, 4\].* 1x2"):
        PAPER.build([], HIGH_CODES, HIGH_CODES)
    with pytest.raises(CogViewError, match=r"\[1, 2\].* 2x4"):
        PAPER.build([], LOW_CODES, LOW_CODES)
    with pytest.raises(CogViewError, match=r"image code 10 .*10"):
        PAPER.build([], LOW_CODES, HIGH_CODES + 3)
