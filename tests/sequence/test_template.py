"""Sequences position by position against the paper's, and the masks of what is learnt."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.errors import CogViewError, UsageError
from cogview.sequence.template import TextToImageTemplate, TokenKind
from cogview.sequence.vocabulary import Vocabulary

RELEASED = Vocabulary(num_image_codes=8192, num_text_pieces=50000)
PRETRAINING = TextToImageTemplate(vocabulary=RELEASED, grid_rows=32, grid_columns=32, max_text_pieces=60)
SMALL = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=10, num_text_pieces=20),
    grid_rows=2,
    grid_columns=3,
    max_text_pieces=4,
)
SMALL_FIXED = dataclasses.replace(SMALL, image_positions="fixed")
PAD, ROI1, TINY, BOI1, EOI1 = (
    SMALL.vocabulary.separator(name) for name in ("PAD", "ROI1", "TINY", "BOI1", "EOI1")
)


def test_the_pretraining_sequence_has_the_released_ids_at_every_position() -> None:
    codes = np.arange(1024).reshape(32, 32) * 8
    sequence = PRETRAINING.build([0, 7, 49999], codes)
    roi1, base, boi1, eoi1 = 58192 + 7, 58192 + 16, 58192 + 1, 58192 + 4
    expected = [roi1, 8192, 8199, 58191, base, boi1, *range(0, 8192, 8), eoi1]
    assert sequence.tokens.tolist() == expected
    assert sequence.positions.tolist() == list(range(len(expected)))
    separator, text, image = TokenKind.SEPARATOR, TokenKind.TEXT, TokenKind.IMAGE
    assert sequence.kind.tolist() == [
        separator,
        *[text] * 3,
        separator,
        separator,
        *[image] * 1024,
        separator,
    ]


def test_the_pretraining_sequence_is_1088_tokens_long() -> None:
    assert PRETRAINING.max_tokens == 1088
    assert PRETRAINING.num_positions == 1088
    longest = PRETRAINING.build(np.arange(60), np.zeros(1024, dtype=np.uint16))
    assert len(longest.tokens) == 1088


def test_codes_may_be_a_grid_or_flat() -> None:
    grid = np.array([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(SMALL.build([1], grid).tokens, SMALL.build([1], grid.reshape(-1)).tokens)


def test_the_prefix_is_the_beginning_of_the_whole() -> None:
    for template in (SMALL, SMALL_FIXED):
        for num_pieces in range(6):
            prefix = template.prefix(list(range(num_pieces)))
            whole = template.build(list(range(num_pieces)), np.arange(6))
            length = len(prefix.tokens)
            assert prefix.tokens[-2:].tolist() == [TINY, BOI1]
            np.testing.assert_array_equal(whole.tokens[:length], prefix.tokens)
            np.testing.assert_array_equal(whole.positions[:length], prefix.positions)
            np.testing.assert_array_equal(whole.kind[:length], prefix.kind)
            assert whole.tokens[length:].tolist() == [*range(6), EOI1]
            np.testing.assert_array_equal(whole.positions[length:-1], template.code_positions(num_pieces))


def test_positions_count_on_after_the_text_as_in_the_paper() -> None:
    assert SMALL.build([1, 2], np.arange(6)).positions.tolist() == list(range(12))


def test_fixed_positions_leave_a_gap_after_the_text() -> None:
    sequence = SMALL_FIXED.build([1, 2], np.arange(6))
    assert sequence.tokens.tolist() == [ROI1, 11, 12, TINY, BOI1, *range(6), EOI1]
    assert sequence.positions.tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert SMALL_FIXED.num_positions == 14


def test_fixed_positions_of_codes_do_not_depend_on_the_text() -> None:
    for num_pieces in range(7):
        assert SMALL_FIXED.code_positions(num_pieces).tolist() == [7, 8, 9, 10, 11, 12]


def test_the_two_kinds_of_positions_agree_for_the_longest_text() -> None:
    for pieces in ([1, 2, 3, 4], [1, 2, 3, 4, 5]):
        a, b = SMALL.build(pieces, np.arange(6)), SMALL_FIXED.build(pieces, np.arange(6))
        np.testing.assert_array_equal(a.positions, b.positions)


def test_a_long_text_loses_its_end_and_says_so() -> None:
    sequence = SMALL.build([1, 2, 3, 4, 5, 6], np.arange(6))
    assert sequence.num_clipped_pieces == 2
    assert sequence.tokens[1:5].tolist() == [11, 12, 13, 14]
    assert len(sequence.tokens) == SMALL.max_tokens
    assert SMALL.prefix([1, 2, 3, 4, 5, 6]).num_clipped_pieces == 2
    assert SMALL.build([1, 2, 3, 4], np.arange(6)).num_clipped_pieces == 0


def test_a_batch_pads_every_sequence_and_masks_exactly_pieces_and_codes() -> None:
    batch = SMALL.batch([([], np.arange(6)), ([3, 5], np.arange(6)), ([1, 2, 3, 4, 5], np.arange(6))])
    assert batch.tokens.tolist() == [
        [ROI1, TINY, BOI1, *range(6), EOI1, PAD, PAD, PAD, PAD],
        [ROI1, 13, 15, TINY, BOI1, *range(6), EOI1, PAD, PAD],
        [ROI1, 11, 12, 13, 14, TINY, BOI1, *range(6), EOI1],
    ]
    assert batch.positions.tolist() == [[*range(10), 0, 0, 0, 0], [*range(12), 0, 0], list(range(14))]
    assert [row[mask].tolist() for row, mask in zip(batch.targets, batch.text_mask, strict=True)] == [
        [TINY],
        [13, 15, TINY],
        [11, 12, 13, 14, TINY],
    ]
    assert [row[mask].tolist() for row, mask in zip(batch.targets, batch.image_mask, strict=True)] == [
        [*range(6)]
    ] * 3
    assert batch.num_clipped == 1


@given(
    texts=st.lists(st.lists(st.integers(0, 19), max_size=7), min_size=1, max_size=4),
    fixed=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_every_batch_keeps_the_template_s_promises(texts: list[list[int]], fixed: bool) -> None:
    template = SMALL_FIXED if fixed else SMALL
    generator = np.random.default_rng(0)
    pairs = [(text, generator.integers(0, 10, size=(2, 3))) for text in texts]
    batch = template.batch(pairs)
    assert batch.tokens.shape == batch.targets.shape == (len(texts), template.max_tokens)
    np.testing.assert_array_equal(batch.targets[:, :-1], batch.tokens[:, 1:])
    assert not (batch.text_mask & batch.image_mask).any()
    assert 0 <= batch.positions.min() <= batch.positions.max() < template.num_positions
    assert set(batch.targets[batch.image_mask]) <= set(template.vocabulary.image_codes)
    assert batch.image_mask.sum(axis=1).tolist() == [6] * len(texts)
    assert batch.text_mask.sum(axis=1).tolist() == [min(len(text), 4) + 1 for text in texts]
    assert batch.num_clipped == sum(len(text) > 4 for text in texts)


def test_a_picture_of_another_grid_is_refused_with_both_sizes() -> None:
    with pytest.raises(CogViewError, match=r"\[3, 2\].*2x3"):
        SMALL.build([1], np.zeros((3, 2), dtype=np.int64))


@pytest.mark.parametrize("piece", [-1, 20])
def test_a_piece_of_another_vocabulary_is_refused(piece: int) -> None:
    with pytest.raises(CogViewError, match=f"text piece {piece} .*20"):
        SMALL.prefix([1, piece])


@pytest.mark.parametrize("code", [-1, 10])
def test_a_code_of_another_codebook_is_refused(code: int) -> None:
    with pytest.raises(CogViewError, match=f"image code {code} .*10"):
        SMALL.build([1], np.array([0, 1, 2, 3, 4, code]))


@pytest.mark.parametrize("name", ["grid_rows", "grid_columns", "max_text_pieces"])
def test_an_empty_template_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1"):
        dataclasses.replace(SMALL, **{name: 0})


def test_a_template_survives_json() -> None:
    stored = json.loads(json.dumps(dataclasses.asdict(SMALL_FIXED)))
    assert TextToImageTemplate(**{**stored, "vocabulary": Vocabulary(**stored["vocabulary"])}) == SMALL_FIXED
