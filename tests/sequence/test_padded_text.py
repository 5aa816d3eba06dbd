"""Texts of fixed length: pieces, the end, a pad for each place, then the codes."""

import numpy as np
import pytest

from cogview.errors import CogViewError, UsageError
from cogview.sequence.padded_text import PaddedTextTemplate, template_class_of
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    num_image_codes=10, num_text_pieces=20, num_special_pieces=2, num_pads=6, num_special_codes=3
)
FIRST_PIECE, FIRST_PAD = 10, 32


def template(num_text_tokens: int = 6, opening: tuple[int, ...] = (2,), **more: object) -> PaddedTextTemplate:
    fields = {"max_text_pieces": num_text_tokens - len(opening), "end_piece": 3, **more}
    return PaddedTextTemplate(
        vocabulary=VOCABULARY,
        grid_rows=2,
        grid_columns=2,
        image_positions="fixed",
        num_text_tokens=num_text_tokens,
        opening=opening,
        first_code_position=7,
        **fields,
    )


def test_the_vocabulary_has_its_parts_in_order() -> None:
    parts = (
        VOCABULARY.image_codes,
        VOCABULARY.text_pieces,
        VOCABULARY.special_pieces,
        VOCABULARY.pads,
    )
    assert [(part.start, part.stop) for part in parts] == [(0, 10), (10, 30), (30, 32), (32, 38)]
    assert VOCABULARY.separator("PAD") == 38
    assert VOCABULARY.special_codes == range(VOCABULARY.num_tokens - 3, VOCABULARY.num_tokens)
    with pytest.raises(UsageError):
        Vocabulary(num_image_codes=1, num_text_pieces=1, num_pads=-1)


@pytest.mark.parametrize(
    ("num_text_tokens", "opening", "pieces", "wanted"),
    [
        (6, (2,), [5, 6], [2, 5, 6, 3, -4, -5]),
        (6, (2,), [], [2, 3, -2, -3, -4, -5]),
        (6, (2,), [5, 6, 7, 8], [2, 5, 6, 7, 8, 3]),
        (6, (2,), [5, 6, 7, 8, 9], [2, 5, 6, 7, 8, 9]),  # the end has no room
        (6, (2,), [5, 6, 7, 8, 9, 4], [2, 5, 6, 7, 8, 9]),
        (7, (2, 2), [5], [2, 2, 5, 3, -3, -4, -5]),  # one more token: pads stay those of their places
        (6, (2, 21), [5], [2, 21, 5, 3, -4, -5]),  # a special piece
    ],
)
def test_a_text_is_filled_up(
    num_text_tokens: int, opening: tuple[int, ...], pieces: list[int], wanted: list[int]
) -> None:
    """Wanted are pieces, and pads by their negative place."""
    prefix = template(num_text_tokens, opening).prefix(pieces)
    assert prefix.tokens.tolist() == [
        FIRST_PIECE + each if each >= 0 else FIRST_PAD - each for each in wanted
    ]
    assert prefix.positions.tolist() == list(range(num_text_tokens))
    assert prefix.num_clipped_pieces == max(0, len(pieces) - (num_text_tokens - len(opening)))


def test_targets_are_all_tokens_but_the_first() -> None:
    tokens = template()
    batch = tokens.batch([([5, 6], np.arange(4)), ([7], np.arange(4).reshape(2, 2))])
    assert batch.tokens.shape == (2, tokens.max_tokens) == (2, 10)
    whole = tokens.build([5, 6], np.arange(4))
    assert batch.tokens[0].tolist() == whole.tokens.tolist()
    assert batch.targets[0].tolist() == [*whole.tokens[1:].tolist(), VOCABULARY.separator("PAD")]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert batch.text_mask.sum(1).tolist() == [tokens.max_text_targets] * 2
    assert batch.image_mask.sum(1).tolist() == [4, 4]
    assert not (batch.text_mask & batch.image_mask).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_text_pieces": 6},
        {"opening": (2, 22)},
        {"end_piece": 22},
        {"end_piece": -1},
        {"num_text_tokens": 9},
        {"image_positions": "after_text"},
        {"first_code_position": 5},
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(wrong: dict[str, object]) -> None:
    fields = {name: getattr(template(), name) for name in template().__dataclass_fields__}
    with pytest.raises(UsageError):
        PaddedTextTemplate(**{**fields, **wrong})


def test_wrong_pieces_and_codes_are_refused() -> None:
    with pytest.raises(CogViewError):
        template().prefix([20])
    with pytest.raises(CogViewError):
        template().build([5], np.array([1, 2, 3, 10]))


def test_a_config_tells_its_template() -> None:
    assert template_class_of({"kind": "padded_text"}) is PaddedTextTemplate
    assert template_class_of({}) is TextToImageTemplate
    assert template_class_of(None) is TextToImageTemplate
