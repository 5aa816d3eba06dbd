"""Whatever the sizes, each item comes once an epoch, in one order for all workers, and the same after any resume."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_folders import write_tokens

from cogview import workers
from cogview.data.config import MaskingConfig
from cogview.data.loader import TokenBatches, batch_indices, mask_batches
from cogview.data.pairs import CaptionedImage, Entry, Problem, SourceState
from cogview.data.ranks import Ranks
from cogview.data.shard_records import Request, ShardNumber
from cogview.data.shards import TokenShards
from cogview.data.shares import Batch, Share
from cogview.sequence.template import TextToImageTemplate, TokenBatch
from cogview.sequence.vocabulary import Vocabulary

TEMPLATE = TextToImageTemplate(
    vocabulary=Vocabulary(num_image_codes=100, num_text_pieces=50),
    grid_rows=2,
    grid_columns=2,
    max_text_pieces=5,
)


@given(
    seed=st.integers(0, 2**64),
    num_items=st.integers(1, 40),
    batch_size=st.integers(1, 90),
    first_step=st.integers(0, 30),
    num_steps=st.integers(1, 4),
)
def test_steps_walk_through_epochs_from_any_step_on(
    seed: int, num_items: int, batch_size: int, first_step: int, num_steps: int
) -> None:
    start, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    steps = range(first_step, first_step + num_steps)
    found = np.concatenate([batch_indices(seed, step, batch_size, num_items) for step in steps])
    first, last = start - start % num_items, stop + -stop % num_items  # of whole epochs
    one_by_one = np.concatenate([batch_indices(seed, place, 1, num_items) for place in range(first, last)])
    np.testing.assert_array_equal(found, one_by_one[start - first : stop - first])
    assert (np.sort(one_by_one.reshape(-1, num_items), axis=1) == np.arange(num_items)).all()


def assert_same(found: TokenBatch, wanted: TokenBatch) -> None:
    for field in dataclasses.fields(TokenBatch):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name))


@given(
    nums_captions=st.lists(st.integers(1, 3), min_size=1, max_size=9),
    pairs_per_shard=st.integers(1, 10),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    resumed_at=st.integers(0, 12),
    masking=st.builds(
        MaskingConfig,
        masked_codes=st.sampled_from([0.0, 0.5]),
        kept_codes=st.sampled_from([None, 1, 3]),
        weight_of_changes=st.sampled_from([1.0, 4.0]),
    ),
)
@pytest.mark.slow
def test_a_run_resumed_anywhere_sees_what_one_without_a_stop_sees(
    nums_captions: list[int],
    pairs_per_shard: int,
    batch_size: int,
    seed: int,
    resumed_at: int,
    masking: MaskingConfig,
) -> None:
    num_pictures = len(nums_captions)
    pictures = [
        (number + 10 * np.arange(4), [[number, caption] for caption in range(num)])
        for number, num in enumerate(nums_captions)
    ]
    with TemporaryDirectory() as folder:
        write_tokens(Path(folder), pictures, pairs_per_shard, num_codes=100, num_pieces=50)

        def batches() -> Any:
            whole = TokenBatches(TokenShards(Path(folder)), TEMPLATE, seed, batch_size)
            return whole, mask_batches(whole, seed, masking)

        whole, run = batches()
        steps = range(-(-2 * num_pictures // batch_size))
        expected = [run.batch(step) for step in steps]
        _, resumed = batches()
        for step in steps[resumed_at:]:
            assert_same(resumed.batch(step), expected[step])
        texts = np.concatenate([whole.batch(step).tokens[:, 1:3] for step in steps])
    drawn = texts[:, 0] - TEMPLATE.vocabulary.text_pieces.start
    for epoch in (drawn[:num_pictures], drawn[num_pictures : 2 * num_pictures]):
        assert sorted(epoch.tolist()) == list(range(num_pictures))
    captions = texts[:, 1] - TEMPLATE.vocabulary.text_pieces.start
    assert all(
        0 <= caption < nums_captions[picture] for picture, caption in zip(drawn, captions, strict=True)
    )


class InThisProcess:
    """Stands for a worker process, which takes seconds to start."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.run = function

    def close(self) -> None:
        pass


@given(
    sizes=st.lists(st.integers(0, 9), max_size=40),
    num_workers=st.integers(0, 4),
    most_bytes=st.sampled_from([1, 10, 10**6]),
)
def test_any_number_of_workers_gives_results_in_order_and_reads_so_far_ahead(
    sizes: list[int], num_workers: int, most_bytes: int
) -> None:
    read = 0

    def items() -> Iterator[tuple[int, int]]:
        nonlocal read
        for item in enumerate(sizes):
            read += 1
            yield item

    def doubled(item: tuple[int, int]) -> int:
        return 2 * item[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Worker", InThisProcess)
        patch.setattr(workers, "MAX_BYTES_AHEAD", most_bytes)
        found = []
        for each in workers.map_in_order(doubled, items(), num_workers, lambda item: item[1]):
            assert read - len(found) <= workers.ITEMS_AHEAD * num_workers + 1
            assert sum(sizes[len(found) : read - 1]) <= most_bytes  # and one more
            found.append(each)
    assert found == [(item, 2 * item[0]) for item in enumerate(sizes)]


ENTRIES = st.sampled_from(
    [
        CaptionedImage(name="picture", source=b"1234", texts=("a",)),
        Problem(where="problem", kind="damaged", reason="x"),
        Problem(where="passed", kind="passed over", reason="x"),
    ]
)


@dataclasses.dataclass
class Parts:
    """A data set of some parts."""

    parts: list[list[Entry]]

    @property
    def num_parts(self) -> int:
        return len(self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Entry]:
        return (entry for part in self.parts for entry in part)

    def part(self, number: int) -> Iterator[Entry]:
        return iter(self.parts[number])

    def expected(self) -> int:
        return len(self)

    def state(self) -> SourceState:
        raise NotImplementedError


@given(
    entries=st.lists(st.lists(ENTRIES, max_size=12), min_size=1, max_size=4),
    num_ranks=st.integers(1, 6),
    pairs_per_shard=st.integers(1, 5),
    batch_size=st.integers(1, 4),
)
def test_any_number_of_processes_shares_all_entries_out(
    entries: list[list[Entry]], num_ranks: int, pairs_per_shard: int, batch_size: int
) -> None:
    numbered = [
        [
            dataclasses.replace(entry, **{name: f"{part}-{place}"})
            for place, entry in enumerate(each)
            for name in ("name" if isinstance(entry, CaptionedImage) else "where",)
        ]
        for part, each in enumerate(entries)
    ]
    pairs = Parts(numbered)
    text = dict.fromkeys(("source", "device", "precision", "image_tokenizer", "text_tokenizer"), "x")
    request = Request(
        **text,
        split=None,
        size_pixels=16,
        max_text_pieces=5,
        batch_size=batch_size,
        pairs_per_shard=pairs_per_shard,
    )

    def batches(rank: int, num: int) -> list[Batch]:
        return list(Share(pairs, {}, Ranks(rank=rank, num_ranks=num), request).batches())

    def shards(found: list[Batch]) -> dict[ShardNumber, list[Batch]]:
        by_shard: dict[ShardNumber, list[Batch]] = {}
        for batch in found:
            by_shard.setdefault(batch.number, []).append(batch)
        return by_shard

    alone = shards(batches(0, 1))
    shared = [shards(batches(rank, num_ranks)) for rank in range(num_ranks)]
    assert Counter(number for each in shared for number in each) == Counter(list(alone))
    assert {number: made for each in shared for number, made in each.items()} == alone
    assert [entry for number in sorted(alone) for batch in alone[number] for entry in batch.entries] == [
        *pairs
    ]
    for made in alone.values():
        assert all(batch.num_counted <= batch_size for batch in made)
        assert sum(batch.num_counted for batch in made) <= pairs_per_shard
        assert [batch.ends_shard for batch in made] == [False] * (len(made) - 1) + [True]
