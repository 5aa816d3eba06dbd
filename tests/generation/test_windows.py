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
    plan = sorted(
        (each for wave in plan_windows((32, 32), (16, 16)) for each in wave), key=lambda w: w.number
    )
    written = np.zeros((64, 64), dtype=bool)
    for (row, column, num_rows), planned in zip(PAPER, plan, strict=True):
        expected = np.zeros((32, 32), dtype=bool)
        expected[:num_rows] = ~written[16 * row : 16 * row + num_rows, 16 * column : 16 * column + 32]
        np.testing.assert_array_equal(planned.is_drawn, expected)
        written[16 * row : 16 * row + 32, 16 * column : 16 * column + 32] |= expected
        assert planned.low_region == (slice(8 * row, 8 * row + 16), slice(8 * column, 8 * column + 16))
        assert planned.high_region == (slice(16 * row, 16 * row + 32), slice(16 * column, 16 * column + 32))
    assert written.all()


def test_windows_of_32_to_64_that_read_nothing_of_each_other_share_a_wave() -> None:
    waves = plan_windows((32, 32), (16, 16))
    assert [[PAPER[planned.number][:2] for planned in wave] for wave in waves] == [
        [(0, 0)],
        [(0, 1)],
        [(0, 2), (1, 1)],
        [(1, 0), (1, 2)],
        [(2, 0)],
        [(2, 1)],
        [(2, 2)],
    ]


@pytest.mark.parametrize("grid", [(16, 16), (1, 1), (3, 7)])
def test_a_picture_that_the_model_reads_at_once_is_one_window(grid: tuple[int, int]) -> None:
    [[planned]] = plan_windows(grid, grid)
    assert planned.is_drawn.shape == (2 * grid[0], 2 * grid[1])
    assert planned.is_drawn.all()
    assert (planned.first_drawn, planned.stop) == (0, planned.is_drawn.size)


def check(grid: tuple[int, int], size: tuple[int, int]) -> None:
    """Follow a plan wave by wave, with a count of how often each code was drawn."""
    times = np.zeros((2 * grid[0], 2 * grid[1]), dtype=int)
    numbers = []
    for wave in plan_windows(grid, size):
        before = times.copy()
        for planned in wave:
            numbers.append(planned.number)
            low, high = planned.low_region, planned.high_region
            for there, here, side, all_sides in zip(high, low, size, grid, strict=True):
                assert 0 <= here.start <= here.stop - side <= all_sides - side
                assert (there.start, there.stop) == (2 * here.start, 2 * here.stop)
            assert_reads_earlier_waves(planned, before[high])
            times[high] += planned.is_drawn
    assert (times == 1).all()
    assert sorted(numbers) == list(range(len(numbers)))


def assert_reads_earlier_waves(planned: PlannedWindow, times_before: np.ndarray) -> None:
    """What is read, all before the last code drawn that is not drawn here, was there when the wave began."""
    is_read = ~planned.is_drawn.ravel()[: planned.stop]
    assert (times_before.ravel()[: planned.stop][is_read] == 1).all()
    assert not times_before[planned.is_drawn].any()
    assert planned.is_drawn.ravel()[planned.first_drawn]
    assert not planned.is_drawn.ravel()[: planned.first_drawn].any()
    assert planned.is_drawn.ravel()[planned.stop - 1]
    assert not planned.is_drawn.ravel()[planned.stop :].any()


@pytest.mark.parametrize(
    "grid", [(16, 16), (32, 32), (24, 24), (64, 64), (16, 48), (40, 16), (17, 31), (25, 50), (33, 64)]
)
def test_every_code_is_drawn_once_from_what_earlier_waves_drew(grid: tuple[int, int]) -> None:
    check(grid, (16, 16))


@settings(max_examples=200, deadline=None)
@given(st.data())
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
    with pytest.raises(UsageError, match=rf"{grid[0]}x{grid[1]} codes cannot .* reads 16x16: give one of"):
        plan_windows(grid, (16, 16))
