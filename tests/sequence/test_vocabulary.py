"""Token ids against those of the released checkpoints."""

import pytest

from cogview.errors import UsageError
from cogview.sequence.vocabulary import SEPARATORS, Vocabulary, size_token

RELEASED = Vocabulary(num_image_codes=8192, num_text_pieces=50000)


def test_the_released_vocabulary_has_its_ids() -> None:
    assert RELEASED.image_codes == range(8192)
    assert RELEASED.text_pieces == range(8192, 58192)
    assert RELEASED.num_tokens == 58219
    assert RELEASED.size == 58240


def test_separators_follow_the_text_pieces_in_the_released_order() -> None:
    names = [
        *["PAD", "BOI1", "BOI2", "BOI3", "EOI1", "EOI2", "EOI3", "ROI1", "ROI2", "ROI3"],
        *["SEP", "MASK", "CLS", "ENC", "TINY", "SMALL", "BASE", "BIG"],
        *["POS0", "POS1", "POS2", "POS3", "POS4", "POS5", "POS6", "POS7", "POS8"],
    ]
    assert list(SEPARATORS) == names
    assert [RELEASED.separator(name) for name in names] == list(range(58192, 58219))


def test_an_unknown_separator_is_refused() -> None:
    with pytest.raises(KeyError):
        RELEASED.separator("BOI4")


@pytest.mark.parametrize(
    ("num_codes", "num_pieces"), [(1, 1), (2048, 8000), (8192, 50000), (100, 1), (64, 37)]
)
def test_the_embedding_is_the_smallest_multiple_of_128_that_holds_every_id(
    num_codes: int, num_pieces: int
) -> None:
    vocabulary = Vocabulary(num_image_codes=num_codes, num_text_pieces=num_pieces)
    assert vocabulary.size % 128 == 0
    assert 0 <= vocabulary.size - vocabulary.num_tokens < 128
    assert vocabulary.separator("POS8") == vocabulary.num_tokens - 1


@pytest.mark.parametrize("wrong", [{"num_image_codes": 0}, {"num_text_pieces": -1}])
def test_an_empty_vocabulary_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Vocabulary(**{"num_image_codes": 1, "num_text_pieces": 1, **wrong})


@pytest.mark.parametrize(
    ("rows", "columns", "name"),
    [
        *[(8, 8, "TINY"), (16, 16, "SMALL"), (32, 32, "BASE"), (64, 64, "BIG")],
        *[(4, 4, "TINY"), (9, 2, "SMALL"), (50, 50, "BIG"), (32, 33, "BIG"), (100, 100, "BIG")],
    ],
)
def test_the_size_token_is_that_of_the_smallest_square_around_the_grid(
    rows: int, columns: int, name: str
) -> None:
    assert size_token(rows, columns) == name
