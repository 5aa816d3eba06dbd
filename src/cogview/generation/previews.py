"""Previews of pictures that are being drawn, within a small share of the time.

Codes come row by row. Each preview decodes only the new rows; what is not drawn yet is plain grey.

Letters of the shapes: n codes, r s rows and columns of them.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from cogview.errors import UsageError
from cogview.image.pixels import tensor_to_images
from cogview.image.tokenizer import ImageTokenizer
from cogview.numbers import real_number

GREY = 224
"""Level, of 255, of what is not drawn yet."""

_ROWS_AT_ONCE = 4
"""Bands have a multiple of so many rows, since kernels are prepared for each new shape."""

Key = TypeVar("Key", bound=Hashable)

Preview: TypeAlias = tuple[Key, Int64[Tensor, "r s"], Image.Image]
"""Key, codes with -1 where none is drawn yet, and pixels of a picture."""


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """How often to show pictures that are being drawn.

    Args:
        per_second: maximum rate.
        max_share: maximum share of the time to spend on previews; pictures take turns if need be. 1 is no limit.
        is_prompt: show each picture as soon as a quarter of it is drawn, whatever the share.
    """

    per_second: float | int = 4.0
    max_share: float | int = 0.04
    is_prompt: bool = False

    def __post_init__(self) -> None:
        if not 0 < real_number("per_second", self.per_second) < float("inf"):
            raise UsageError(f"per_second must be over 0 and finite, got {self.per_second}")
        if not 0 < real_number("max_share", self.max_share) <= 1:
            raise UsageError(f"max_share must be over 0 and at most 1, got {self.max_share}")


@dataclass(kw_only=True, eq=False)
class _UnfinishedPicture:
    """Picture that is being drawn.

    Args:
        codes: -1 where one is not drawn yet.
        pixels: as last shown.
        num_drawn: codes drawn so far.
        num_shown: codes that `pixels` show.
        shown_at: time of the last preview, by the clock.
        is_over: whether all codes are drawn.
    """

    codes: Int64[np.ndarray, "r s"]
    pixels: UInt8[np.ndarray, "y x 3"]
    num_drawn: int = 0
    num_shown: int = 0
    shown_at: float = 0.0
    is_over: bool = False


class Previews(Generic[Key]):
    """Pictures that are being drawn, and the schedule of their previews.

    Args:
        tokenizer: decodes previews, in the size that is encoded.
        grid: rows and columns of their codes.
        options: how often to show them.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        grid: tuple[int, int],
        options: PreviewOptions,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tokenizer = tokenizer
        self._grid = grid
        self._options = options
        self._clock = clock
        self._pictures: dict[Key, _UnfinishedPicture] = {}
        self._started = clock()
        self._next = self._started + 1 / options.per_second
        self._spent_seconds = 0.0
        self._seconds_per_row: float | None = None

    def take(self, key: Key, first: int, codes: Int64[np.ndarray, "n"]) -> None:
        """Add codes of a picture, starting at index `first`."""
        if key not in self._pictures:
            rows, columns = self._grid
            factor = self._tokenizer.downsampling_factor
            self._pictures[key] = _UnfinishedPicture(
                codes=np.full(self._grid, -1, dtype=np.int64),
                pixels=np.full((rows * factor, columns * factor, 3), GREY, dtype=np.uint8),
            )
        growing = self._pictures[key]
        growing.codes.ravel()[first : first + len(codes)] = codes
        growing.num_drawn = first + len(codes)

    def end(self, key: Key, *, is_shown: bool) -> None:
        """Mark a picture as drawn; it has one more preview unless it is shown otherwise."""
        if is_shown:
            self._pictures.pop(key, None)
        elif key in self._pictures:
            self._pictures[key].is_over = True

    def due(self) -> list[Preview[Key]]:
        """Return new previews if it is time for them."""
        start = self._clock()
        new = [item for item in self._pictures.items() if self._options.is_prompt and self._is_new(item[1])]
        grown = []
        if start >= self._next:
            grown = [item for item in self._pictures.items() if item[1].num_drawn > item[1].num_shown]
            grown = self._affordable(sorted(grown, key=lambda item: item[1].shown_at), start)
        grown = [*new, *(item for item in grown if not any(item[0] == key for key, _ in new))]
        if not grown:
            return []
        num_rows = self._decode([each for _, each in grown])
        shown = []
        for key, each in grown:
            each.shown_at = start
            shown.append((key, torch.from_numpy(each.codes.copy()), Image.fromarray(each.pixels.copy())))
            if each.is_over:
                del self._pictures[key]
        now = self._clock()
        if start >= self._next:
            self._next = now + 1 / self._options.per_second
        self._spent_seconds += now - start
        self._seconds_per_row = (now - start) / num_rows
        return shown

    @staticmethod
    def _is_new(growing: _UnfinishedPicture) -> bool:
        """Return whether a quarter of a picture is drawn and none of it was shown."""
        return not growing.num_shown and growing.num_drawn >= growing.codes.size // 4

    def rest(self, keys: Iterable[Key]) -> list[Preview[Key]]:
        """Return the previews of pictures that are drawn but not yet shown whole, however long it takes."""
        left = {
            key: self._pictures[key] for key in keys if key in self._pictures and self._pictures[key].is_over
        }
        if not left:
            return []
        self._decode(list(left.values()))
        for key in left:
            del self._pictures[key]
        return [
            (key, torch.from_numpy(each.codes), Image.fromarray(each.pixels)) for key, each in left.items()
        ]

    def _affordable(
        self, grown: list[tuple[Key, _UnfinishedPicture]], now: float
    ) -> list[tuple[Key, _UnfinishedPicture]]:
        """Return the pictures that there is time for; at first a single one, to measure the time per row."""
        if self._options.max_share == 1:
            return grown
        if self._seconds_per_row is None:
            return grown[:1]
        num_rows = (
            self._options.max_share * (now - self._started) - self._spent_seconds
        ) / self._seconds_per_row
        num = len(grown)
        while num and num * self._height([each for _, each in grown[:num]]) > num_rows:
            num -= 1
        return grown[:num]

    def _spans(self, growing: list[_UnfinishedPicture]) -> list[tuple[int, int]]:
        """Return the first and last row to decode of each picture.

        The last row shown is decoded again, since the rows below it are new, and the one before it as its context.
        """
        columns = self._grid[1]
        return [(max(each.num_shown // columns - 2, 0), -(-each.num_drawn // columns)) for each in growing]

    def _height(self, growing: list[_UnfinishedPicture]) -> int:
        """Return the height of the pictures' bands, in rows."""
        longest = max(stop - start for start, stop in self._spans(growing))
        return min(-(-longest // _ROWS_AT_ONCE) * _ROWS_AT_ONCE, self._grid[0])

    def _images(self, bands: Int64[Tensor, "b r s"]) -> list[Image.Image]:
        """Decode bands; on a CPU one by one, since kernels are prepared for each new batch size."""
        size = 1 if self._tokenizer.device.type == "cpu" else len(bands)
        batches = [bands[start : start + size] for start in range(0, len(bands), size)]
        return [image for batch in batches for image in tensor_to_images(self._tokenizer.decode(batch))]

    def _decode(self, growing: list[_UnfinishedPicture]) -> int:
        """Decode the new rows of each picture as a band, and return the number of rows decoded."""
        num_rows = self._grid[0]
        factor = self._tokenizer.downsampling_factor
        spans, height = self._spans(growing), self._height(growing)
        starts = [min(max(stop - height, 0), num_rows - height) for _, stop in spans]
        bands = []
        for each, start in zip(growing, starts, strict=True):
            band = each.codes[start : start + height].copy()
            # Rows not drawn yet repeat the last one, so that the edge of the band decodes well.
            for row in range(height):
                is_absent = band[row] < 0
                band[row, is_absent] = band[row - 1, is_absent] if row else band[band >= 0][-1]
            bands.append(torch.from_numpy(band))
        images = self._images(torch.stack(bands))
        for each, image, (first, _), start in zip(growing, images, spans, starts, strict=True):
            is_drawn = each.codes[start : start + height] >= 0
            is_drawn[: (first + 1 if first else 0) - start] = False  # context alone
            area = is_drawn.repeat(factor, axis=0).repeat(factor, axis=1)
            view = each.pixels[start * factor : (start + height) * factor]
            view[area] = np.asarray(image)[area]
            each.num_shown = each.num_drawn
        return height * len(growing)
