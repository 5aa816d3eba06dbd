"""Inpainting: draw a part of a picture anew.

Codes are drawn row by row, each from those before it. So a lower half continues the upper one, but a hole is filled
without regard to what follows; there it helps to draw several candidates and rank them by fit.

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
"""What to draw anew: a half, a share of the codes (other ones for each seed), or a picture that is white there."""

_WHITE = 128
"""Level, of 255, from which a mask's pixel counts as white."""


class InpaintingMask:
    """Mask of the codes to draw anew.

    Args:
        mask: what to draw anew.
        grid: rows and columns of codes.
        downsampling_factor: pixels of a code's side; a code is drawn if any of its pixels is white.

    Raises:
        UsageError: the mask is invalid or empty.
        UnusableImage: the mask's file cannot be read.
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
                "the mask has no white, so nothing would be drawn: paint the part to draw anew white"
            )

    def check_shape(self, size: tuple[int, int]) -> None:
        """Refuse a picture of another aspect ratio than the mask's, if the mask is a picture.

        Args:
            size: width and height of the picture.

        Raises:
            UsageError: the aspect ratios differ.
        """
        if self._picture is None:
            return
        width, height = size
        mask_width, mask_height = self._picture.size
        if abs(width * mask_height - mask_width * height) > 0.01 * width * mask_height:
            raise UsageError(
                f"the mask is {mask_width} x {mask_height} pixels and the picture {width} x {height}: give a mask of "
                "the same aspect ratio"
            )

    def of(self, seed: int) -> Bool[np.ndarray, "r s"]:
        """Return which codes a candidate draws; they depend on the seed if the mask is a share."""
        if self._fixed is not None:
            return self._fixed
        assert self._share is not None, "a mask is fixed or a share"
        is_drawn = np.zeros(self._grid, dtype=np.bool_)
        num = max(1, round(self._share * is_drawn.size))
        is_drawn.ravel()[np.random.default_rng([seed, 1]).permutation(is_drawn.size)[:num]] = True
        return is_drawn

    def area(self, size: tuple[int, int], seed: int) -> Image.Image:
        """Return the new pixels of a drawn picture as grey levels: 255 where they are new.

        Args:
            size: of the picture in pixels. A picture as mask is exact to the pixel, other masks to the code.
            seed: of the candidate.
        """
        if self._picture is not None:
            return Image.fromarray(self._white_pixels(min(size)).astype(np.uint8) * 255)
        return Image.fromarray(self.of(seed).astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)

    def _white_pixels(self, size_pixels: int) -> Bool[np.ndarray, "y x"]:
        """Return where the mask is white, cropped as its picture is."""
        assert self._picture is not None, "the mask is a picture"
        return np.asarray(resize_and_crop(self._picture, size_pixels).convert("L")) >= _WHITE


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainting:
    """Picture to inpaint.

    Args:
        codes: of the picture.
        mask: codes to draw.
        image: the picture; None if its codes were given.
    """

    codes: Int64[np.ndarray, "n"]
    mask: InpaintingMask
    image: Image.Image | None = None

    def given(self, seed: int) -> Int64[np.ndarray, "n"]:
        """Return the codes of a candidate, with -1 where one is to be drawn."""
        return np.where(self.mask.of(seed).ravel(), -1, self.codes)

    def with_given_pixels(self, drawn: Image.Image, seed: int) -> Image.Image:
        """Restore the given pixels of a drawn picture outside of the mask."""
        assert self.image is not None, "codes have no pixels to keep"
        given = resize_and_crop(self.image, min(drawn.size))
        return Image.composite(drawn, given, self.mask.area(drawn.size, seed))


def given_after_drawn(is_drawn: Bool[np.ndarray, "r s"]) -> Int64[np.ndarray, "_"]:
    """Return the indices of given codes after the first drawn one, row by row.

    Raises:
        UsageError: there is none, so nothing can be ranked by fit.
    """
    first = int(np.flatnonzero(is_drawn)[0])
    indices: Int64[np.ndarray, "_"] = first + np.flatnonzero(~is_drawn.ravel()[first:])
    if not len(indices):
        raise UsageError(
            "no given code comes after the drawn ones, so there is nothing to rank by fit: rank by caption instead"
        )
    return indices


def fit_loss(nats: Float64[np.ndarray, "n"], is_drawn: Bool[np.ndarray, "r s"]) -> float:
    """Return the mean loss of the given codes after the first drawn one, in nats per code.

    Args:
        nats: -log p of each code of the picture.
        is_drawn: which codes were drawn.

    Raises:
        UsageError: as `given_after_drawn` does.
    """
    return float(nats[given_after_drawn(is_drawn)].mean())


def _mask_picture(mask: Mask) -> Image.Image:
    """Read a mask that is a picture.

    Raises:
        UsageError: it is no mask.
        UnusableImage: the file cannot be read.
    """
    if isinstance(mask, str) and not _exists(mask):
        raise UsageError(
            f"there is no mask {mask[:80]}: give {', '.join(get_args(Half))}, a share such as 0.3, or a picture that "
            "is white where to draw"
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
    """Return a mask as a number, if it is one."""
    if isinstance(mask, float | int) and not isinstance(mask, bool):
        return float(mask)
    try:
        return float(mask) if isinstance(mask, str) else None
    except ValueError:
        return None
