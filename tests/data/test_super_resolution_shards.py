"""Pairs of token sets: which belong together, and the sequences that are learnt from them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_folders import write_tokens

from cogview.data.loader import FewCodeBatches, MaskedCodeBatches, batch_indices
from cogview.data.shards import TokenShards
from cogview.data.super_resolution import SuperResolutionBatches, SuperResolutionShards
from cogview.errors import CogViewError, UsageError
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.sequence.vocabulary import Vocabulary

NUM_PICTURES = 5
VOCABULARY = Vocabulary(num_image_codes=4096, num_text_pieces=50)
TEMPLATE = SuperResolutionTemplate.of(
    TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=2, grid_columns=2, max_text_pieces=4)
)

WriteSet = Callable[..., TokenShards]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Return what writes a set whose picture p has the code 800 p + 32 row + column everywhere, at any size.

    Rows and columns are counted in those of the largest size, so that a code tells what it covers.
    """

    def write(
        side: int,
        num_pictures: int = NUM_PICTURES,
        pairs_per_shard: int = 2,
        image_tokenizer: str = "i",
        first: int = 0,
    ) -> TokenShards:
        where = np.arange(side) * (8 // side)
        grid = (32 * where[:, None] + where).ravel()
        pictures = [
            (800 * number + grid, [[number + first, *[caption] * caption] for caption in range(1, 3)])
            for number in range(num_pictures)
        ]
        folder = tmp_path / f"{side}-{num_pictures}-{image_tokenizer}-{first}"
        folder.mkdir()
        return TokenShards(write_tokens(folder, pictures, pairs_per_shard, 4096, 50, image_tokenizer))

    return write


def examples_in(batch: TokenBatch) -> list[tuple[int, int, int]]:
    """Return (picture, row, column) of each sequence, after checking that all of it belongs together."""
    examples = []
    for tokens, is_target in zip(batch.tokens, batch.image_mask, strict=True):
        high = np.flatnonzero(is_target) + 1
        start = int(np.flatnonzero(tokens == VOCABULARY.separator("BOI1"))[0])
        low_codes, high_codes = tokens[start + 1 : start + 5].reshape(2, 2), tokens[high].reshape(4, 4)
        picture, corner = divmod(int(low_codes[0, 0]), 800)
        assert tokens[1] == VOCABULARY.text_pieces.start + picture
        np.testing.assert_array_equal(high_codes[::2, ::2], low_codes)
        step = high_codes[0, 1] - high_codes[0, 0]
        np.testing.assert_array_equal(
            high_codes - high_codes[0, 0], step * (32 * np.arange(4)[:, None] + np.arange(4))
        )
        examples.append((picture, *divmod(corner, 32)))
    return examples


def test_a_sequence_is_one_picture_at_both_sizes_in_the_order_of_batch_indices(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(2), high=write_set(4, pairs_per_shard=3))
    batches = SuperResolutionBatches(shards, TEMPLATE, seed=3, batch_size=4)
    for step in range(5):
        expected = batch_indices(3, step, 4, NUM_PICTURES).tolist()
        assert examples_in(batches.batch(step)) == [(picture, 0, 0) for picture in expected]


@pytest.mark.slow
def test_larger_pictures_are_cropped_at_every_place(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(4), high=write_set(8))
    batches = SuperResolutionBatches(shards, TEMPLATE, seed=0, batch_size=NUM_PICTURES)
    seen = [example for step in range(60) for example in examples_in(batches.batch(step))]
    # A low code covers 2 of the 8 rows.
    assert {(row, column) for _, row, column in seen} == {(2 * r, 2 * c) for r in range(3) for c in range(3)}
    assert sorted(picture for picture, _, _ in seen[:NUM_PICTURES]) == list(range(NUM_PICTURES))


def test_windows_of_larger_pictures_make_up_their_share(write_set: WriteSet) -> None:
    whole, windows = (
        SuperResolutionShards(low=write_set(2), high=write_set(4)),
        SuperResolutionShards(low=write_set(4, num_pictures=3), high=write_set(8, num_pictures=3)),
    )

    def num_windows(share: float) -> int:
        batches = SuperResolutionBatches(whole, TEMPLATE, 0, 100, windows=windows, window_share=share)
        batch = batches.batch(1)
        examples_in(batch)
        start = np.argmax(batch.image_mask, axis=1)
        return int(np.count_nonzero(batch.targets[np.arange(100), start + 1] % 32 % 2))

    # The second high code tells: 2 columns on where the whole picture has four, 1 where it has eight.
    assert (num_windows(0.0), num_windows(1.0)) == (0, 100)
    assert 10 < num_windows(0.25) < 40


def test_steps_are_functions_of_the_seed_and_the_step(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(4), high=write_set(8))

    def tokens(seed: int, step: int) -> np.ndarray:
        return SuperResolutionBatches(shards, TEMPLATE, seed, 6, dropped_texts=0.5).batch(step).tokens

    np.testing.assert_array_equal(tokens(1, 7), tokens(1, 7))
    assert not np.array_equal(tokens(1, 7), tokens(2, 7))
    assert not np.array_equal(tokens(1, 7), tokens(1, 8))


def test_texts_are_dropped_as_often_as_asked(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(2), high=write_set(4))
    batches = SuperResolutionBatches(shards, TEMPLATE, 0, 200, dropped_texts=0.3)
    unconditional = batches.batch(0).tokens[:, 1] >= VOCABULARY.text_pieces.stop
    assert 30 < np.count_nonzero(unconditional) < 90


def test_only_high_codes_are_hidden(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(2), high=write_set(4))
    whole = SuperResolutionBatches(shards, TEMPLATE, 0, 3)
    plain, masked = whole.batch(0), MaskedCodeBatches(whole, 1.0, seed=0).batch(0)
    is_hidden = masked.tokens != plain.tokens
    assert set(masked.tokens[is_hidden]) == {VOCABULARY.separator("MASK")}
    after_high = np.cumsum(plain.tokens == VOCABULARY.separator("BOI2"), axis=1) > 0
    assert not is_hidden[~after_high].any()
    assert 0 < np.count_nonzero(is_hidden) < 3 * 16
    np.testing.assert_array_equal(masked.targets, plain.targets)


def test_few_high_codes_are_kept_after_the_whole_low_picture(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(2), high=write_set(4))
    whole = SuperResolutionBatches(shards, TEMPLATE, 0, 3)
    plain, few = whole.batch(0), FewCodeBatches(whole, 5, seed=0).batch(0)
    assert few.tokens.shape[1] == plain.tokens.shape[1] - 11
    for row in range(3):
        first = int(plain.image_mask[row].argmax())
        np.testing.assert_array_equal(few.tokens[row, : first + 1], plain.tokens[row, : first + 1])
        places = np.flatnonzero(few.image_mask[row])
        assert places.tolist() == list(range(first, first + 5))
        learnt = dict(zip(plain.positions[row], plain.targets[row], strict=True))
        for place in places:
            assert few.targets[row, place] == learnt[few.positions[row, place]]
    with pytest.raises(UsageError, match=r"1 and the 16 codes.* 17"):
        FewCodeBatches(whole, 17, seed=0)


def test_sets_that_do_not_belong_together_are_refused(write_set: WriteSet) -> None:
    low = write_set(2)
    with pytest.raises(CogViewError, match=r"8x8 codes.* 4x4"):
        SuperResolutionShards(low=low, high=write_set(8))
    with pytest.raises(CogViewError, match="same pictures, 5 and 4"):
        SuperResolutionShards(low=low, high=write_set(4, num_pictures=4))
    with pytest.raises(CogViewError, match=r"image tokenizers \(i and j\)"):
        SuperResolutionShards(low=low, high=write_set(4, image_tokenizer="j"))
    with pytest.raises(CogViewError, match="captions differ"):
        SuperResolutionShards(low=low, high=write_set(4, first=1))


def test_the_captions_fingerprint_knows_what_belongs_to_whom_and_no_shards(tmp_path: Path) -> None:
    def fingerprint(name: str, captions: list[list[list[int]]], pairs_per_shard: int = 100) -> str:
        folder = tmp_path / name
        folder.mkdir()
        pictures = [(np.arange(4), each) for each in captions]
        return TokenShards(write_tokens(folder, pictures, pairs_per_shard)).captions_fingerprint()

    first = fingerprint("a", [[[1, 2], [3]], [[4]]])
    assert fingerprint("b", [[[1, 2], [3]], [[4]]], pairs_per_shard=1) == first
    others = [[[[1, 2]], [[3], [4]]], [[[1], [2, 3]], [[4]]], [[[1, 2], [3]], [[5]]], [[[4]], [[1, 2], [3]]]]
    for number, captions in enumerate(others):
        assert fingerprint(f"c{number}", captions) != first


def test_pictures_that_the_model_cannot_learn_from_are_refused(write_set: WriteSet) -> None:
    shards = SuperResolutionShards(low=write_set(2), high=write_set(4))
    with pytest.raises(UsageError, match="batch of 0"):
        SuperResolutionBatches(shards, TEMPLATE, 0, 0)
    with pytest.raises(UsageError, match=r"window_share.* 0 to 1.* 2"):
        SuperResolutionBatches(shards, TEMPLATE, 0, 1, window_share=2.0)
    other = SuperResolutionTemplate.of(
        TextToImageTemplate(vocabulary=VOCABULARY, grid_rows=2, grid_columns=3, max_text_pieces=4)
    )
    with pytest.raises(CogViewError, match=r"2x2 codes.* 2x3"):
        SuperResolutionBatches(shards, other, 0, 1)
    few = Vocabulary(num_image_codes=99, num_text_pieces=50)
    small = SuperResolutionTemplate.of(
        TextToImageTemplate(vocabulary=few, grid_rows=2, grid_columns=2, max_text_pieces=4)
    )
    with pytest.raises(CogViewError, match=r"4096 codes and 50 text pieces.* 99 and 50"):
        SuperResolutionBatches(shards, small, 0, 1)
