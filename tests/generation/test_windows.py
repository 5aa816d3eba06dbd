"""The plan of the paper, and for any size: each code drawn once, from what was drawn in earlier waves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.errors import UsageError
from cogview.generation.windows import PlannedWindow, center_continuous_windows, plan_windows

PAPER = [
    *[(0, 0, 18), (0, 1, 30), (0, 2, 30)],
    *[(1, 1, 30), (1, 0, 30), (1, 2, 30)],
    *[(2, 0, 32), (2, 1, 32), (2, 2, 32)],
]
"""Row window, column window, first rows of its 32 that are generated."""


def test_32_to_64_is_the_release_s_order_and_rows() -> None:
    windows = list(center_continuous_windows((32, 32), (16, 16)))
    assert [(window.row / 8, window.column / 8, window.num_rows) for window in windows] == PAPER


def test_32_to_64_draws_what_the_release_s_loop_draws() -> None:
    """Walk through the paper's list as it stands, one window after another."""
    plan = plan_windows((32, 32), (16, 16))
    written = np.zeros((64, 64), dtype=bool)
    for (row, column, num_rows), planned in zip(PAPER, plan, strict=True):
        expected = np.zeros((32, 32), dtype=bool)
        expected[:num_rows] = ~written[16 * row : 16 * row + num_rows, 16 * column : 16 * column + 32]
        np.testing.assert_array_equal(planned.is_drawn, expected)
        written[16 * row : 16 * row + 32, 16 * column : 16 * column + 32] |= expected
        assert planned.low_region == (slice(8 * row, 8 * row + 16), slice(8 * column, 8 * column + 16))
        assert planned.high_region == (slice(16 * row, 16 * row + 32), slice(16 * column, 16 * column + 32))
    assert written.all()


def test_windows_of_32_to_64_read_only_what_they_overlap() -> None:
    plan = plan_windows((32, 32), (16, 16))
    reads = {PAPER[each.number][:2]: {PAPER[number][:2] for number in each.reads} for each in plan}
    assert reads == {
        (0, 0): set(),
        (0, 1): {(0, 0)},
        (0, 2): {(0, 1)},
        (1, 1): {(0, 0), (0, 1)},
        (1, 0): {(0, 0), (0, 1), (1, 1)},
        (1, 2): {(0, 1), (0, 2), (1, 1)},
        (2, 0): {(1, 0), (1, 1)},
        (2, 1): {(1, 1), (2, 0)},
        (2, 2): {(1, 1), (1, 2), (2, 1)},
    }


def check(grid: tuple[int, int], size: tuple[int, int]) -> None:
    """Follow a plan window by window, with which of them drew each code."""
    drawn_by = np.full((2 * grid[0], 2 * grid[1]), -1)
    for number, planned in enumerate(plan_windows(grid, size)):
        assert planned.number == number
        low, high = planned.low_region, planned.high_region
        for there, here, side, all_sides in zip(high, low, size, grid, strict=True):
            assert 0 <= here.start <= here.stop - side <= all_sides - side
            assert (there.start, there.stop) == (2 * here.start, 2 * here.stop)
        assert_reads_what_it_says(planned, drawn_by[high])
        drawn_by[high][planned.is_drawn] = number
        rows, columns = np.nonzero(drawn_by == number)
        for row, column in list(zip(rows, columns, strict=True))[:: max(1, len(rows) // 5)]:
            assert planned.overlaps((slice(row, row + 1), slice(column, column + 1)))
        others = np.argwhere(drawn_by != number)[:1]
        for row, column in others:
            assert not planned.overlaps((slice(row, row + 1), slice(column, column + 1)))
    assert drawn_by.min() >= 0


def assert_reads_what_it_says(planned: PlannedWindow, drawn_by: np.ndarray) -> None:
    """What is read, all before the last code drawn that is not drawn here, was drawn by the windows that it reads."""
    is_read = ~planned.is_drawn.ravel()[: planned.stop]
    read = drawn_by.ravel()[: planned.stop][is_read]
    assert set(read.tolist()) == planned.reads
    assert all(0 <= number < planned.number for number in planned.reads)
    assert (drawn_by[planned.is_drawn] < 0).all()
    assert planned.is_drawn.ravel()[planned.first_drawn]
    assert not planned.is_drawn.ravel()[: planned.first_drawn].any()
    assert planned.is_drawn.ravel()[planned.stop - 1]
    assert not planned.is_drawn.ravel()[planned.stop :].any()


@pytest.mark.parametrize(
    "grid", [(16, 16), (32, 32), (24, 24), (64, 64), (16, 48), (40, 16), (17, 31), (25, 50), (33, 64)]
)
def test_every_code_is_drawn_once_from_what_earlier_windows_drew(grid: tuple[int, int]) -> None:
    check(grid, (16, 16))


@settings(max_examples=200, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_so_it_is_for_windows_of_any_size(data: st.DataObject) -> None:
    sides = st.integers(1, 9)
    size = (data.draw(sides), data.draw(sides))
    check((size[0] + data.draw(st.integers(0, 20)), size[1] + data.draw(st.integers(0, 20))), size)


def test_the_centre_is_drawn_whole_by_one_window() -> None:
    """What is left of (1, 1) is that the rows above it stand already."""
    for grid in [(32, 32), (48, 48), (64, 64)]:
        windows = list(center_continuous_windows(grid, (16, 16)))
        row = grid[0] // 16 * 8
        first_of_row = next(window for window in windows if window.row == row - 8)
        assert first_of_row.column == (grid[1] - 16) // 2 // 8 * 8


@pytest.mark.parametrize("grid", [(15, 32), (32, 15), (0, 0)])
def test_a_picture_smaller_than_a_window_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"{grid[0]}x{grid[1]} codes .* 16x16"):
        plan_windows(grid, (16, 16))
