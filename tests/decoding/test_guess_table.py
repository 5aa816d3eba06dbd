"""The table of guesses says what a plain count says, fits in its size, and damaged ones are refused."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from cogview.decoding.guess_table import GUESSES_FILE, GuessTable, neighbours
from cogview.decoding.guesses import GuessKind, GuessMemory
from cogview.errors import CogViewError, UsageError

LEVELS = ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3), (0, 2, 3), (0, 2))


def pictures(seed: int, num: int = 40, num_codes: int = 6, rows: int = 5, columns: int = 4) -> np.ndarray:
    """Return pictures whose codes often repeat the one above or to the left."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(num_codes, size=(num, rows, columns))
    for row in range(1, rows):
        is_above = rng.random((num, columns)) < 0.6
        codes[:, row] = np.where(is_above, codes[:, row - 1], codes[:, row])
    return codes


def plain_guess(codes: np.ndarray, around: tuple[int, ...]) -> set[int] | None:
    """Return the codes that follow most often in the first level that knows the neighbours."""
    columns = codes.shape[2]
    for level in LEVELS:
        after = Counter(
            code
            for picture in codes.reshape(len(codes), -1).tolist()
            for place, code in enumerate(picture)
            if place and all(neighbours(picture, place, columns)[which] == around[which] for which in level)
        )
        if after:
            most = max(after.values())
            return {code for code, num in after.items() if num == most}
    return None


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_guesses_are_right_as_often_as_those_of_a_plain_count(seed: int) -> None:
    codes = pictures(seed)
    table = GuessTable.of(codes)
    counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in LEVELS]
    places = [
        (neighbours(picture, place, 4), picture[place])
        for picture in codes.reshape(len(codes), -1).tolist()
        for place in range(1, len(picture))
    ]
    for around, code in places:
        for count, level in zip(counts, LEVELS, strict=True):
            count[tuple(around[which] for which in level)][code] += 1
    best = sum(max(counts[0][around].values()) / counts[0][around].total() for around, _ in places)
    found = [table.guess(around) for around, _ in places]
    right = sum(
        guess is not None and guess[0] == code for guess, (_, code) in zip(found, places, strict=True)
    )
    assert 0.85 * best <= right <= best


def test_a_guess_is_what_followed_most_often_with_the_most_neighbours() -> None:
    codes = pictures(3, num=12)
    table = GuessTable.of(codes)
    num_same = 0
    places = [(picture, place) for picture in codes.reshape(12, -1).tolist() for place in range(1, 20)][:60]
    for picture, place in places:
        around = neighbours(picture, place, 4)
        wanted = plain_guess(codes, around)
        got = table.guess(around)
        assert wanted is not None
        num_same += got is not None and got[0] in wanted
    assert num_same >= 0.85 * len(places)  # two contexts may share a slot


def test_what_always_follows_has_the_highest_grade_and_what_was_never_seen_none() -> None:
    codes = np.full((30, 4, 4), 7)
    table = GuessTable.of(codes)
    assert table.guess(neighbours([7] * 16, 9, 4)) == (7, 7)
    assert table.guess((5, 5, 5, 5, 5, 5)) is None
    assert table.num_codes == 8
    memory = GuessMemory(table)
    assert memory.guess([7] * 16, 9, 4) == (7, GuessKind.LEARNT_7)


def test_a_table_comes_back_from_a_folder_as_it_was(tmp_path: Path) -> None:
    assert GuessTable.in_folder(tmp_path) is None
    table = GuessTable.of(pictures(1))
    table.save(tmp_path)
    again = GuessTable.in_folder(tmp_path)
    assert again is not None
    assert np.array_equal(again.slots, table.slots)


@pytest.mark.parametrize(
    "content",
    [
        b"no tensors",
        save({"other": np.zeros(4, dtype=np.int32)}),
        save({"slots": np.zeros(6, dtype=np.int32)}),
        save({"slots": np.zeros(8, dtype=np.int64)}),
        save({"slots": np.zeros((2, 2), dtype=np.int32)}),
    ],
)
def test_damaged_tables_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / GUESSES_FILE).write_bytes(content)
    with pytest.raises(CogViewError, match=GUESSES_FILE):
        GuessTable.in_folder(tmp_path)


@pytest.mark.parametrize("codes", [np.empty((0, 4, 4), dtype=np.int64), np.full((1, 2, 2), 1 << 16)])
def test_pictures_that_cannot_be_counted_are_refused(codes: np.ndarray) -> None:
    with pytest.raises(UsageError, match="65,536"):
        GuessTable.of(codes)
