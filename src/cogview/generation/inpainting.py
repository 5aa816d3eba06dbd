"""Inpainting: a part of a picture is drawn anew, and its other codes stand, and its pixels if asked.

Codes are drawn from left to right and from top to bottom, each from what stands before it. So a lower half goes on from
a given upper one, while a hole is filled without a look at what stands below it; drawing several candidates and
ranking them by their fit helps there.

Letters of the shapes: r s rows and columns of codes, n codes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from PIL import Image

from cogview.errors import UsageError
from cogview.image.picture_reading import as_rgb, read_image, resize_and_crop

Half = Literal["upper", "lower", "left", "right"]

Mask: TypeAlias = Image.Image | Path | str | float
"""What is drawn anew: a half, a share of the codes that each seed takes elsewhere, or a picture that is white there."""

_WHITE = 128
"""Of 255; what is lighter is drawn anew."""


class DrawnPlaces:
    """Which codes of a picture are drawn anew; the mask is read once.

    Args:
        mask: what is.
        grid: rows and columns of codes.
        downsampling_factor: pixels of a code's side; a code is drawn if any of its pixels is white.

    Raises:
        UsageError: the mask says nothing, or nothing is to be drawn.
        UnusableImage: a file is no picture that can be read.
    """

    def __init__(self, mask: Mask, grid: tuple[int, int], downsampling_factor: int) -> None:
        self._grid = grid
        self._share: float | None = None
        self._fixed: Bool[np.ndarray, "r s"] | None = None
        self._picture: Image.Image | None = None
        rows, columns = grid
        if isinstance(mask, str) and mask in get_args(Half):
            row, column = np.ogrid[:rows, :columns]
            is_first = row < rows // 2 if mask in ("upper", "lower") else column < columns // 2
            self._fixed = np.broadcast_to(is_first == (mask in ("upper", "left")), grid).copy()
        elif (share := _share(mask)) is not None:
            if not 0 < share <= 1:
                raise UsageError(
                    f"a mask that is a share of the codes must lie over 0 and be at most 1, got {share:g}"
                )
            self._share = share
        else:
            self._picture = _mask_picture(mask)
            pixels = self._white_pixels(rows * downsampling_factor)
            cells = pixels.reshape(rows, downsampling_factor, columns, downsampling_factor)
            self._fixed = np.logical_or.reduce(cells, axis=(1, 3))
        if self._fixed is not None and not self._fixed.any():
            raise UsageError(
                "the mask has no white, so nothing would be drawn: paint what is to be drawn anew white"
            )

    def check_shape(self, size: tuple[int, int]) -> None:
        """Refuse a picture of another shape than the mask's, if that is one too.

        Args:
            size: width and height of the picture.

        Raises:
            UsageError: one is wider for its height than the other.
        """
        if self._picture is None:
            return
        width, height = size
        mask_width, mask_height = self._picture.size
        if abs(width * mask_height - mask_width * height) > 0.01 * width * mask_height:
            raise UsageError(
                f"the mask is {mask_width} x {mask_height} pixels and the picture {width} x {height}: give a mask of "
                "the picture's shape; its size may be another"
            )

    def of(self, seed: int) -> Bool[np.ndarray, "r s"]:
        """Return which codes a candidate draws; only of a share does its seed decide which."""
        if self._fixed is not None:
            return self._fixed
        assert self._share is not None, "a mask is fixed or a share"
        is_drawn = np.zeros(self._grid, dtype=np.bool_)
        num = max(1, round(self._share * is_drawn.size))
        is_drawn.ravel()[np.random.default_rng([seed, 1]).permutation(is_drawn.size)[:num]] = True
        return is_drawn

    def area(self, size: tuple[int, int], seed: int) -> Image.Image:
        """Return which pixels of a drawn picture are new, as grey levels: 255 where they are.

        Args:
            size: of the picture in pixels. A mask that is a picture decides by the pixel, any other by the code.
            seed: of the candidate.
        """
        if self._picture is not None:
            return Image.fromarray(self._white_pixels(min(size)).astype(np.uint8) * 255)
        return Image.fromarray(self.of(seed).astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)

    def _white_pixels(self, size_pixels: int) -> Bool[np.ndarray, "y x"]:
        """Return where the mask is white, cut as the picture that it belongs to is."""
        assert self._picture is not None, "the mask is a picture"
        return np.asarray(resize_and_crop(self._picture, size_pixels).convert("L")) >= _WHITE


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainting:
    """A picture of which a part is drawn anew, read once for all candidates.

    Args:
        codes: of the picture.
        places: which of them are drawn.
        image: the picture; None if its codes were given.
    """

    codes: Int64[np.ndarray, "n"]
    places: DrawnPlaces
    image: Image.Image | None = None

    def given(self, seed: int) -> Int64[np.ndarray, "n"]:
        """Return the codes that stand for a candidate, and -1 where one is drawn."""
        return np.where(self.places.of(seed).ravel(), -1, self.codes)

    def with_given_pixels(self, drawn: Image.Image, seed: int) -> Image.Image:
        """Return a drawn picture that has exactly the given pixels where nothing was to be drawn."""
        assert self.image is not None, "codes have no pixels to keep"
        given = resize_and_crop(self.image, min(drawn.size))
        return Image.composite(drawn, given, self.places.area(drawn.size, seed))


def places_behind(is_drawn: Bool[np.ndarray, "r s"]) -> Int64[np.ndarray, "_"]:
    """Return the places of given codes behind the first that is drawn, row by row.

    Raises:
        UsageError: there is none, so that nothing can be ranked by its fit.
    """
    first = int(np.flatnonzero(is_drawn)[0])
    behind: Int64[np.ndarray, "_"] = first + np.flatnonzero(~is_drawn.ravel()[first:])
    if not len(behind):
        raise UsageError(
            "no given code stands behind what is drawn, so nothing can be ranked by fit: rank by the captioner"
        )
    return behind


def fit_loss(nats: Float64[np.ndarray, "n"], is_drawn: Bool[np.ndarray, "r s"]) -> float:
    """Return how badly what stands behind the drawn codes fits them, in nats per given code; the lower, the better.

    Args:
        nats: -log p of each code of the picture.
        is_drawn: which of them were drawn.

    Raises:
        UsageError: as `places_behind` does.
    """
    return float(nats[places_behind(is_drawn)].mean())


def _mask_picture(mask: Mask) -> Image.Image:
    """Return a mask that is a picture.

    Raises:
        UsageError: it is nothing of what a mask can be.
        UnusableImage: a file is no picture that can be read.
    """
    if isinstance(mask, str) and not _exists(mask):
        raise UsageError(
            f"there is no mask {mask[:80]}: give {', '.join(get_args(Half))}, a share such as 0.3, or a picture that "
            "is white where it is to be drawn anew"
        )
    if not isinstance(mask, Image.Image | Path | str):
        raise UsageError(f"a mask must be a half, a share, a picture or a path, got {type(mask).__name__}")
    return as_rgb(mask) if isinstance(mask, Image.Image) else read_image(mask)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _share(mask: Mask) -> float | None:
    """Return a mask that is a number."""
    if isinstance(mask, float | int) and not isinstance(mask, bool):
        return float(mask)
    try:
        return float(mask) if isinstance(mask, str) else None
    except ValueError:
        return None
