"""Windows over a picture that is too large for one sequence: their order and what each reads.

Independent of tokens and transformers. Letters of the shapes: h w rows and columns of a window's high codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from cogview.errors import UsageError
from cogview.sequence.super_resolution import FACTOR


@dataclass(frozen=True, kw_only=True)
class Window:
    """Part of a picture that one sequence upscales.

    Args:
        row: first row of its low codes.
        column: first column of its low codes.
        num_rows: rows of its high codes, from its first, that it completes. The rest is left to the windows below,
            which also see what is to the left and right.
    """

    row: int
    column: int
    num_rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedWindow:
    """Window with the codes that it draws.

    Args:
        window: position.
        number: index in the order of the windows.
        is_drawn: high codes that it draws. Earlier windows drew the others, up to the last of these row by row.
        reads: numbers of the windows whose codes it reads.
    """

    window: Window
    number: int
    is_drawn: Bool[np.ndarray, "h w"]
    reads: frozenset[int]

    def overlaps(self, region: tuple[slice, slice]) -> bool:
        """Return whether it draws some of a region of the high codes."""
        drawn = np.argwhere(self.is_drawn) + np.array([FACTOR * self.window.row, FACTOR * self.window.column])
        rows, columns = region
        is_in = (drawn[:, 0] >= rows.start) & (drawn[:, 0] < rows.stop)
        return bool((is_in & (drawn[:, 1] >= columns.start) & (drawn[:, 1] < columns.stop)).any())

    @property
    def first_drawn(self) -> int:
        """Number of given codes before the first drawn one, row by row."""
        return int(np.flatnonzero(self.is_drawn)[0])

    @property
    def stop(self) -> int:
        """Index after the last drawn code, row by row; later codes need not be read."""
        return int(np.flatnonzero(self.is_drawn)[-1]) + 1

    @property
    def high_region(self) -> tuple[slice, slice]:
        """Rows and columns of the high codes."""
        height, width = self.is_drawn.shape
        row, column = FACTOR * self.window.row, FACTOR * self.window.column
        return slice(row, row + height), slice(column, column + width)

    @property
    def low_region(self) -> tuple[slice, slice]:
        """Rows and columns of the low codes."""
        height, width = (side // FACTOR for side in self.is_drawn.shape)
        row, column = self.window.row, self.window.column
        return slice(row, row + height), slice(column, column + width)


def center_continuous_windows(grid: tuple[int, int], size: tuple[int, int]) -> Iterator[Window]:
    """Yield the windows over a picture in order.

    They overlap by half. The top row goes from left to right; its windows left of the centre draw little more than the
    half that no window below sees, so that the centre is drawn as one. Each row between starts at its centre and goes
    on to the left, then to the right. The last row goes from left to right and draws to the end. For 32x32 codes and
    windows of 16x16 this is the order of the release.

    Args:
        grid: rows and columns of the low codes.
        size: rows and columns of a window's low codes.

    Raises:
        UsageError: a window is empty or does not fit in the picture.

    Paper: section 3.1 and figure 5a.
    """
    if min(size) < 1 or grid[0] < size[0] or grid[1] < size[1]:
        raise UsageError(
            f"A picture of {grid[0]}x{grid[1]} codes cannot be upscaled by a model that reads {size[0]}x{size[1]}: "
            f"give one of {size[0]}x{size[1]} codes or more."
        )
    rows, columns = (_starts(*sides) for sides in zip(grid, size, strict=True))
    height, stride = FACTOR * size[0], FACTOR * max(size[0] // 2, 1)
    margin = min(max(height // 16, 1), height - stride)
    centre = len(columns) // 2
    left_to_right = list(range(len(columns)))
    for number, row in enumerate(rows):
        is_first, is_last = number == 0, number == len(rows) - 1
        order = (
            left_to_right
            if is_first or is_last
            else [*reversed(left_to_right[: centre + 1]), *left_to_right[centre + 1 :]]
        )
        for column in order:
            num_rows = height if is_last else height - margin
            if is_first and not is_last and column < centre:
                num_rows = stride + margin
            yield Window(row=row, column=columns[column], num_rows=num_rows)


def plan_windows(grid: tuple[int, int], size: tuple[int, int]) -> list[PlannedWindow]:
    """Return the windows over a picture in order, with the codes that each draws and reads.

    Each high code is drawn once, by the first window that reaches it.

    Args:
        grid: rows and columns of the low codes.
        size: rows and columns of a window's low codes.

    Raises:
        UsageError: as `center_continuous_windows` does.
    """
    height, width = FACTOR * size[0], FACTOR * size[1]
    window_of_code = np.full((FACTOR * grid[0], FACTOR * grid[1]), -1)
    windows: list[PlannedWindow] = []
    for number, window in enumerate(center_continuous_windows(grid, size)):
        row, column = FACTOR * window.row, FACTOR * window.column
        region = window_of_code[row : row + height, column : column + width]  # a view
        is_drawn = np.zeros((height, width), dtype=np.bool_)
        is_drawn[: window.num_rows] = region[: window.num_rows] < 0
        assert is_drawn.any(), "each window reaches further than those before it"
        stop = int(np.flatnonzero(is_drawn)[-1]) + 1
        reads = frozenset(region.ravel()[:stop].tolist()) - {-1}
        region[is_drawn] = number
        windows.append(PlannedWindow(window=window, number=number, is_drawn=is_drawn, reads=reads))
    return windows


def _starts(grid: int, size: int) -> list[int]:
    """Return the starts of windows along a side: half a window apart, the last flush with the end."""
    return [*range(0, grid - size, max(size // 2, 1)), grid - size]
