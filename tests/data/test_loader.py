"""The order of items is a function of seed and step, and every item is seen equally often."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from picture_folders import write_tokens

from cogview.data.loader import (
    FewCodeBatches,
    MaskedCodeBatches,
    MixedCodeBatches,
    TokenBatches,
    TwoPhaseBatches,
    batch_indices,
    linear_schedule,
)
from cogview.data.shards import TokenShards
from cogview.errors import CogViewError, UsageError
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.sequence.vocabulary import Vocabulary

NUM_PICTURES = 7
TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=100, num_text_pieces=50),
    grid_rows=2,
    grid_columns=2,
    max_text_pieces=5,
)


def run_of(seed: int, num_steps: int, batch_size: int, num_items: int) -> list[int]:
    return [i for step in range(num_steps) for i in batch_indices(seed, step, batch_size, num_items).tolist()]


@pytest.mark.parametrize(("batch_size", "num_items"), [(1, 7), (3, 7), (7, 7), (10, 7), (20, 3), (4, 1)])
def test_each_epoch_shows_every_item_once(batch_size: int, num_items: int) -> None:
    seen = run_of(5, 3 * num_items, batch_size, num_items)
    epochs = np.array(seen).reshape(-1, num_items)
    assert (np.sort(epochs, axis=1) == np.arange(num_items)).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = batch_indices(0, 0, 100, 100), batch_indices(0, 1, 100, 100)
    other_seed = batch_indices(1, 0, 100, 100)
    for a, b in [(first, second), (first, other_seed), (second, other_seed)]:
        assert (a == b).mean() < 0.2


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    expected = [batch_indices(3, step, 4, 10).tolist() for step in range(12)]
    backwards = [batch_indices(3, step, 4, 10).tolist() for step in reversed(range(12))]
    assert backwards[::-1] == expected


def test_the_run_is_the_same_however_it_is_cut_into_batches() -> None:
    assert run_of(2, 12, 5, 11) == run_of(2, 5, 12, 11) == run_of(2, 60, 1, 11)


def test_the_order_is_pinned_so_that_an_old_run_can_be_resumed() -> None:
    assert batch_indices(0, 0, 10, 10).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no items"):
        batch_indices(0, 0, 4, 0)
    with pytest.raises(UsageError, match="batch of 0"):
        batch_indices(0, 0, 0, 4)


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    """Return shards whose picture i has codes i, i + 10, ... and i + 1 captions: [i, 0], [i, 1, 1], [i, 2, 2, 2]."""
    pictures = [
        (
            number + 10 * np.arange(4),
            [[number, *[caption] * (caption % 3 + 1)] for caption in range(number + 1)],
        )
        for number in range(NUM_PICTURES)
    ]
    write_tokens(tmp_path, pictures, pairs_per_shard=3, num_codes=100, num_pieces=50)
    return TokenShards(tmp_path)


def pairs_in(batch: TokenBatch) -> list[tuple[int, int]]:
    """Return (picture, caption) of each row, after checking that they belong together."""
    pairs = []
    for row in range(len(batch.tokens)):
        codes = batch.targets[row, batch.image_mask[row]]
        picture, caption, *_ = batch.tokens[row, 1:3] - TEMPLATE.vocabulary.text_pieces.start
        assert codes.tolist() == [picture + 10 * i for i in range(4)]
        pairs.append((int(picture), int(caption)))
    return pairs


def test_pictures_come_with_their_own_captions_and_each_once_an_epoch(shards: TokenShards) -> None:
    batches = TokenBatches(shards, TEMPLATE, seed=0, batch_size=7)
    for step in range(5):
        assert sorted(picture for picture, _ in pairs_in(batches.batch(step))) == list(range(NUM_PICTURES))


def test_captions_are_learnt_from_the_same_pairs_in_the_other_order(shards: TokenShards) -> None:
    drawn = TokenBatches(shards, TEMPLATE, seed=0, batch_size=3).batch(2)
    told = TokenBatches(shards, CaptionTemplate.of(TEMPLATE), seed=0, batch_size=3).batch(2)
    end, first_piece = TEMPLATE.vocabulary.separator("PAD"), TEMPLATE.vocabulary.text_pieces.start
    for row in range(3):
        codes = drawn.targets[row][drawn.image_mask[row]].tolist()
        assert told.tokens[row, 2:6].tolist() == codes
        text = [token for token in drawn.targets[row][drawn.text_mask[row]].tolist() if token < end]
        assert min(text) >= first_piece
        assert told.targets[row][told.text_mask[row]].tolist() == [*text, end]


def test_the_batches_walk_in_the_order_of_batch_indices(shards: TokenShards) -> None:
    batches = TokenBatches(shards, TEMPLATE, seed=3, batch_size=4)
    for step in range(6):
        expected = batch_indices(3, step, 4, NUM_PICTURES).tolist()
        assert [picture for picture, _ in pairs_in(batches.batch(step))] == expected


def test_every_caption_is_drawn_in_time_and_anew_each_epoch(shards: TokenShards) -> None:
    batches = TokenBatches(shards, TEMPLATE, seed=0, batch_size=NUM_PICTURES)
    drawn = [dict(pairs_in(batches.batch(step))) for step in range(60)]
    for picture in range(NUM_PICTURES):
        counts = np.bincount([captions[picture] for captions in drawn], minlength=picture + 1)
        assert len(counts) == picture + 1
        assert counts.min() > 0


def test_a_step_is_the_same_in_another_process_of_training(shards: TokenShards) -> None:
    first = TokenBatches(shards, TEMPLATE, seed=1, batch_size=5)
    again = TokenBatches(shards, TEMPLATE, seed=1, batch_size=5)
    expected = [first.batch(step) for step in range(8)]
    for step in (6, 2, 7, 2):
        for field in dataclasses.fields(TokenBatch):
            np.testing.assert_array_equal(
                getattr(again.batch(step), field.name), getattr(expected[step], field.name)
            )


def test_the_captions_drawn_do_not_depend_on_the_batch_size(shards: TokenShards) -> None:
    def run(batch_size: int) -> list[tuple[int, int]]:
        batches = TokenBatches(shards, TEMPLATE, seed=2, batch_size=batch_size)
        return [pair for step in range(84 // batch_size) for pair in pairs_in(batches.batch(step))]

    assert run(4) == run(7) == run(12)


def test_seeds_draw_other_captions(shards: TokenShards) -> None:
    drawn = [
        dict(pairs_in(TokenBatches(shards, TEMPLATE, seed=seed, batch_size=7).batch(0))) for seed in range(4)
    ]
    assert len({tuple(sorted(captions.items())) for captions in drawn}) == 4


def test_long_captions_are_clipped_counted_and_warned_of_once(shards: TokenShards) -> None:
    template = dataclasses.replace(TEMPLATE, max_text_pieces=3)
    lengths = shards.caption_lengths()
    num_long = int((lengths > 3).sum())
    with pytest.warns(UserWarning, match=f"{num_long} of {len(lengths)} captions .* 3 pieces") as warned:
        batches = TokenBatches(shards, template, seed=0, batch_size=70)
    assert len(warned) == 1
    assert batches.num_long_captions == num_long
    batch = batches.batch(0)
    assert batch.num_clipped == sum(caption % 3 == 2 for _, caption in pairs_in(batch))
    assert batch.num_clipped > 0


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(TEMPLATE, grid_rows=4, grid_columns=1),
        dataclasses.replace(TEMPLATE, vocabulary=Vocabulary(num_image_codes=99, num_text_pieces=50)),
        dataclasses.replace(TEMPLATE, vocabulary=Vocabulary(num_image_codes=100, num_text_pieces=51)),
    ],
)
def test_shards_of_another_grid_or_vocabulary_are_refused(
    shards: TokenShards, other: TextToImageTemplate
) -> None:
    with pytest.raises(CogViewError, match="2x2 codes of 100 and 50 text pieces"):
        TokenBatches(shards, other, seed=0, batch_size=1)


def test_another_size_of_pictures_is_told_in_pixels(
    shards: TokenShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "size_pixels", 16)
    larger = dataclasses.replace(TEMPLATE, grid_rows=6, grid_columns=6)
    with pytest.raises(CogViewError, match="--size-pixels 48 instead of 16"):
        TokenBatches(shards, larger, seed=0, batch_size=1)


def test_an_empty_batch_is_refused(shards: TokenShards) -> None:
    with pytest.raises(UsageError, match="batch of 0"):
        TokenBatches(shards, TEMPLATE, seed=0, batch_size=0)


@pytest.mark.slow
def test_dropped_texts_leave_the_pictures_and_the_other_texts_as_they_are(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=50)
    some = TokenBatches(shards, TEMPLATE, seed=0, batch_size=50, dropped_texts=0.3)
    num_dropped = 0
    for step in range(10):
        expected, batch = plain.batch(step), some.batch(step)
        np.testing.assert_array_equal(batch.targets[batch.image_mask], expected.targets[expected.image_mask])
        is_dropped = batch.text_mask.sum(axis=1) == 1  # what ends the text is still foretold
        np.testing.assert_array_equal(batch.tokens[~is_dropped], expected.tokens[~is_dropped])
        num_dropped += int(is_dropped.sum())
    assert 0.2 < num_dropped / 500 < 0.4


def test_mixed_codes_are_read_wrong_and_asked_for_right(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    mixed = MixedCodeBatches(plain, largest_share=1.0, seed=0)
    num_replaced = 0
    for step in range(40):
        expected, batch = plain.batch(step), mixed.batch(step)
        for field in ("positions", "targets", "text_mask", "image_mask"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(expected, field))
        codes = expected.targets[expected.image_mask].reshape(5, 4)
        is_read_as_code = np.roll(expected.image_mask, 1, axis=1)
        np.testing.assert_array_equal(batch.tokens[~is_read_as_code], expected.tokens[~is_read_as_code])
        read = batch.tokens[is_read_as_code].reshape(5, 4)
        # Pictures of a batch differ in every code, so what is not the picture's own is the next one's.
        replaced = read != codes
        np.testing.assert_array_equal(read[replaced], np.roll(codes, -1, axis=0)[replaced])
        num_replaced += int(replaced.sum())
    assert 0.4 < num_replaced / (40 * 5 * 4) < 0.6  # half of the largest share on average


def test_mixed_codes_are_a_function_of_seed_and_step(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    tokens = [MixedCodeBatches(plain, 0.5, seed=1).batch(step).tokens for step in (3, 3, 4)]
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert (tokens[0] != MixedCodeBatches(plain, 0.5, seed=2).batch(3).tokens).any()
    assert (tokens[0] != tokens[2]).any()


def test_no_share_mixes_nothing(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    np.testing.assert_array_equal(MixedCodeBatches(plain, 0.0, seed=0).batch(2).tokens, plain.batch(2).tokens)


def test_a_share_fades_evenly_from_step_to_step(shards: TokenShards) -> None:
    share = linear_schedule(0.75, 0.25, start_step=4, num_steps=9)
    assert [share(step) for step in (0, 4, 5, 6, 7, 8, 20)] == [0.75, 0.75, 0.625, 0.5, 0.375, 0.25, 0.25]
    assert [linear_schedule(0.5, 0.0, start_step, num_steps=1)(0) for start_step in (0, 1)] == [0.5, 0.5]
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    mixed = MixedCodeBatches(plain, share, seed=0)
    for step in (0, 6, 8):
        same = MixedCodeBatches(plain, share(step), seed=0).batch(step)
        np.testing.assert_array_equal(mixed.batch(step).tokens, same.tokens)


@pytest.mark.parametrize("num_first_steps", [0, 1, 3])
def test_each_phase_gives_the_steps_that_are_its_own(shards: TokenShards, num_first_steps: int) -> None:
    whole = TokenBatches(shards, TEMPLATE, seed=0, batch_size=2)
    few = FewCodeBatches(TokenBatches(shards, TEMPLATE, seed=0, batch_size=4), num_codes=2, seed=0)
    both = TwoPhaseBatches(few, whole, num_first_steps)
    for step in (3, 0, 2, 1):  # in any order: nothing is remembered
        expected = (few if step < num_first_steps else whole).batch(step)
        for field in ("tokens", "positions", "targets", "text_mask", "image_mask"):
            np.testing.assert_array_equal(getattr(both.batch(step), field), getattr(expected, field))


def test_masked_codes_are_read_as_mask_and_asked_for(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    masked = MaskedCodeBatches(plain, largest_share=1.0, seed=0)
    mask = TEMPLATE.vocabulary.separator("MASK")
    num_hidden = 0
    for step in range(40):
        expected, batch = plain.batch(step), masked.batch(step)
        for field in ("positions", "targets", "text_mask", "image_mask"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(expected, field))
        is_code = np.roll(expected.image_mask, 1, axis=1)
        is_hidden = batch.tokens == mask
        assert not (is_hidden & ~is_code).any()
        np.testing.assert_array_equal(batch.tokens[~is_hidden], expected.tokens[~is_hidden])
        num_hidden += int(is_hidden.sum())
    assert 0.4 < num_hidden / (40 * 5 * 4) < 0.6  # half of the largest share on average


def test_masked_codes_are_a_function_of_seed_and_step(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=50)
    tokens = [MaskedCodeBatches(plain, 0.5, seed=1).batch(step).tokens for step in (3, 3, 4)]
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert (tokens[0] != MaskedCodeBatches(plain, 0.5, seed=2).batch(3).tokens).any()
    assert (tokens[0] != tokens[2]).any()


def test_codes_are_masked_among_mixed_ones(shards: TokenShards) -> None:
    mixed = MixedCodeBatches(TokenBatches(shards, TEMPLATE, seed=0, batch_size=50), 1.0, seed=0)
    expected, batch = mixed.batch(0), MaskedCodeBatches(mixed, 0.5, seed=0).batch(0)
    is_hidden = batch.tokens == TEMPLATE.vocabulary.separator("MASK")
    assert is_hidden.any()
    np.testing.assert_array_equal(batch.tokens[~is_hidden], expected.tokens[~is_hidden])


@pytest.mark.parametrize("image_positions", ["after_text", "fixed"])
@pytest.mark.parametrize("masked_codes", [0.0, 0.5])
@pytest.mark.slow
def test_few_codes_are_those_of_the_whole_sequence_at_their_places(
    shards: TokenShards, image_positions: str, masked_codes: float
) -> None:
    """Each kept place has the token, position and target that it has in the whole sequence, in the same order."""
    template = dataclasses.replace(TEMPLATE, image_positions=image_positions)
    texts_dropped = TokenBatches(shards, template, seed=0, batch_size=5, dropped_texts=0.3)
    plain = MaskedCodeBatches(texts_dropped, masked_codes, seed=0)
    few = FewCodeBatches(plain, num_codes=2, seed=0)
    kept_codes = set()
    for step in range(20):
        whole, batch = plain.batch(step), few.batch(step)
        assert batch.tokens.shape == (5, template.max_tokens - 2)
        for row in range(5):
            first = int(whole.image_mask[row].argmax())  # the separator before the codes
            for field in ("tokens", "positions"):
                kept, expected = getattr(batch, field)[row], getattr(whole, field)[row]
                np.testing.assert_array_equal(kept[: first + 1], expected[: first + 1])
            np.testing.assert_array_equal(batch.text_mask[row, :first], whole.text_mask[row, :first])
            assert batch.text_mask[row].sum() == whole.text_mask[row].sum()
            places = np.flatnonzero(batch.image_mask[row])
            assert places.tolist() == [first, first + 1]
            by_position = {int(p): first + n for n, p in enumerate(whole.positions[row, first : first + 4])}
            there = [by_position[int(p)] for p in batch.positions[row, places]]
            assert there == sorted(set(there))
            assert there[0] == first
            np.testing.assert_array_equal(batch.tokens[row, places], whole.tokens[row, there])
            np.testing.assert_array_equal(batch.targets[row, places], whole.targets[row, there])
            assert (batch.tokens[row, first + 2 :] == template.vocabulary.separator("PAD")).all()
            kept_codes.add(there[1] - first)
    assert kept_codes == {1, 2, 3}


def test_all_codes_kept_are_the_whole_sequence_but_for_its_end(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    whole, batch = plain.batch(1), FewCodeBatches(plain, 4, seed=0).batch(1)
    np.testing.assert_array_equal(batch.image_mask, whole.image_mask)
    np.testing.assert_array_equal(batch.tokens[batch.image_mask], whole.tokens[whole.image_mask])
    np.testing.assert_array_equal(batch.targets[batch.image_mask], whole.targets[whole.image_mask])
    np.testing.assert_array_equal(batch.text_mask, whole.text_mask)


def test_few_codes_are_a_function_of_seed_and_step(shards: TokenShards) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=50)
    positions = [FewCodeBatches(plain, 2, seed=1).batch(step).positions for step in (3, 3, 4)]
    np.testing.assert_array_equal(positions[0], positions[1])
    assert (positions[0] != FewCodeBatches(plain, 2, seed=2).batch(3).positions).any()
    assert (positions[0] != positions[2]).any()


@pytest.mark.slow
def test_codes_that_change_are_kept_rather(tmp_path: Path) -> None:
    """Of a picture's places 1 to 3 the second alone has another code than the one before it."""
    pictures = [(np.array([i, i, i + 1, i + 1]), [[1]]) for i in range(20)]
    shards = TokenShards(write_tokens(tmp_path, pictures, num_codes=100, num_pieces=50))
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=50)
    for weight, wanted in ((1.0, 1 / 3), (2.0, 1 / 2), (1e-6, 0.0), (1e6, 1.0)):
        few = FewCodeBatches(plain, 2, seed=0, weight_of_changes=weight)
        batches = [few.batch(step) for step in range(20)]
        changed = [(b.tokens != b.targets)[b.image_mask].reshape(50, 2)[:, 1] for b in batches]
        assert np.mean(changed) == pytest.approx(wanted, abs=0.05)
    with pytest.raises(UsageError, match=r"weight_of_changes.* 0"):
        FewCodeBatches(plain, 2, seed=0, weight_of_changes=0.0)


@pytest.mark.parametrize("num_codes", [0, 5])
def test_more_codes_than_a_picture_has_or_none_are_refused(shards: TokenShards, num_codes: int) -> None:
    plain = TokenBatches(shards, TEMPLATE, seed=0, batch_size=5)
    with pytest.raises(UsageError, match=f"1 and the 4 codes.* {num_codes}"):
        FewCodeBatches(plain, num_codes, seed=0)
