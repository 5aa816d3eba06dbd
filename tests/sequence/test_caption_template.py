"""The captioning sequence token by token, its two kinds of positions, and what is learnt of it."""

import dataclasses

import numpy as np
import pytest

from cogview.errors import CogViewError, UsageError
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import PairTemplate, SequenceTemplate, TextToImageTemplate, TokenKind
from cogview.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(num_image_codes=10, num_text_pieces=20)
DRAWING = TextToImageTemplate(
    vocabulary=VOCABULARY, grid_rows=2, grid_columns=3, max_text_pieces=4, image_positions="fixed"
)
TEMPLATE = CaptionTemplate(vocabulary=VOCABULARY, grid_rows=2, grid_columns=3, max_text_pieces=4)
AS_DRAWN = dataclasses.replace(TEMPLATE, positions="as_drawn")
PAD, ROI1, TINY, BOI1, EOI1 = (VOCABULARY.separator(name) for name in ("PAD", "ROI1", "TINY", "BOI1", "EOI1"))


def test_the_released_sequence_has_the_picture_first() -> None:
    template = CaptionTemplate(
        vocabulary=Vocabulary(num_image_codes=8192, num_text_pieces=50000),
        grid_rows=32,
        grid_columns=32,
        max_text_pieces=60,
    )
    codes = np.arange(1024) * 8
    sequence = template.build([0, 7, 49999], codes)
    base, boi1, eoi1, roi1 = 58192 + 16, 58192 + 1, 58192 + 4, 58192 + 7
    assert sequence.tokens.tolist() == [base, boi1, *codes.tolist(), eoi1, roi1, 8192, 8199, 58191]
    assert sequence.positions.tolist() == list(range(1031))
    separator, image, text = TokenKind.SEPARATOR, TokenKind.IMAGE, TokenKind.TEXT
    kinds = [separator, separator, *[image] * 1024, separator, separator, *[text] * 3]
    assert sequence.kind.tolist() == kinds
    assert template.num_prefix_tokens == 1028
    assert template.max_tokens == template.num_positions == 1088
    assert template.legal_tokens == range(8192, 58193)
    assert template.end_token == 58192


def test_only_the_pieces_and_the_end_are_learnt() -> None:
    codes = np.array([[9, 8, 7], [6, 5, 4]])
    batch = TEMPLATE.batch([([3, 0], codes), ([1, 2, 3, 4], codes), ([], codes)])
    picture = [TINY, BOI1, 9, 8, 7, 6, 5, 4, EOI1, ROI1]
    assert batch.tokens.tolist() == [
        [*picture, 13, 10, PAD, PAD],
        [*picture, 11, 12, 13, 14],
        [*picture, PAD, PAD, PAD, PAD],
    ]
    assert not batch.image_mask.any()
    targets = [row[mask].tolist() for row, mask in zip(batch.targets, batch.text_mask, strict=True)]
    assert targets == [[13, 10, PAD], [11, 12, 13, 14, PAD], [PAD]]
    read = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.text_mask, strict=True)]
    assert read == [[ROI1, 13, 10], [ROI1, 11, 12, 13, 14], [ROI1]]
    assert max(map(len, targets)) == TEMPLATE.max_text_targets


def test_as_drawn_every_token_has_the_position_that_it_is_drawn_at() -> None:
    codes, pieces = np.arange(6), [5, 6]
    drawn, told = DRAWING.build(pieces, codes), AS_DRAWN.build(pieces, codes)
    assert told.tokens.tolist() == [TINY, BOI1, *range(6), EOI1, ROI1, 15, 16]
    assert told.positions.tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1, 2]
    assert dict(zip(told.tokens, told.positions, strict=True)) == dict(
        zip(drawn.tokens, drawn.positions, strict=True)
    )
    assert AS_DRAWN.text_positions.tolist() == [1, 2, 3, 4]
    assert TEMPLATE.text_positions.tolist() == [10, 11, 12, 13]
    longest = AS_DRAWN.build([1, 2, 3, 4], codes)
    assert longest.positions.max() < DRAWING.num_positions == AS_DRAWN.num_positions


def test_a_base_with_fixed_positions_keeps_them() -> None:
    assert CaptionTemplate.of(DRAWING) == AS_DRAWN
    assert CaptionTemplate.of(dataclasses.replace(DRAWING, image_positions="after_text")) == TEMPLATE
    assert CaptionTemplate.of(DRAWING, "from_zero") == TEMPLATE


@pytest.mark.parametrize("template", [TEMPLATE, AS_DRAWN])
def test_the_prefix_is_the_beginning_of_the_whole(template: CaptionTemplate) -> None:
    assert isinstance(template, SequenceTemplate)
    assert isinstance(template, PairTemplate)
    prefix, whole = template.prefix(np.arange(6)), template.build([1, 2], np.arange(6))
    assert len(prefix.tokens) == template.num_prefix_tokens
    np.testing.assert_array_equal(whole.tokens[: len(prefix.tokens)], prefix.tokens)
    np.testing.assert_array_equal(whole.positions[: len(prefix.tokens)], prefix.positions)


def test_a_text_that_is_too_long_loses_its_end_and_is_counted() -> None:
    batch = TEMPLATE.batch([([1, 2, 3, 4, 5, 6], np.arange(6))])
    assert batch.tokens[0, -4:].tolist() == [11, 12, 13, 14]
    assert batch.num_clipped == 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CogViewError, match="2x3"):
        TEMPLATE.build([1], np.arange(5))
    with pytest.raises(CogViewError, match="text piece 20"):
        TEMPLATE.build([20], np.arange(6))
    with pytest.raises(UsageError, match="grid_rows must be at least 1"):
        dataclasses.replace(TEMPLATE, grid_rows=0)
