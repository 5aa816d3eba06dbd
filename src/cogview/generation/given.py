"""A picture of which a part is drawn anew: which codes stand, and which pixels.

Codes are drawn from left to right and from top to bottom, each from what stands before it. So a lower half goes on from
a given upper one, while a hole is filled without a look at what stands below it; drawing several candidates and
ranking them by `fit` helps there.

Letters of the shapes: r s rows and columns of codes, n codes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from PIL import Image

from cogview.decoding.engine import Runner
from cogview.decoding.request import Drawn, Request
from cogview.errors import UsageError
from cogview.generation.text_to_image import text_context
from cogview.image.pixels import as_rgb, read_image, resize_and_crop
from cogview.sequence.template import Codes, Pieces, TextToImageTemplate

Half = Literal["upper", "lower", "left", "right"]

Mask: TypeAlias = Image.Image | Path | str | float
"""What is drawn anew: a half, a share of the codes that each seed takes elsewhere, or a picture that is white there."""

_WHITE = 128
"""Of 255; what is lighter is drawn anew."""


def drawn_places(
    mask: Mask, seed: int, grid: tuple[int, int], downsampling_factor: int
) -> Bool[np.ndarray, "r s"]:
    """Return which codes are drawn anew.

    Args:
        mask: what is.
        seed: of the candidate, which takes a share of its own.
        grid: rows and columns of codes.
        downsampling_factor: pixels of a code's side; a code is drawn if any of its pixels is white.

    Raises:
        UsageError: the mask says nothing, or nothing is to be drawn.
        UnusableImage: a file is no picture that can be read.
    """
    rows, columns = grid
    is_drawn = np.zeros(grid, dtype=np.bool_)
    if isinstance(mask, str) and mask in get_args(Half):
        row, column = np.ogrid[:rows, :columns]
        is_first = row < rows // 2 if mask in ("upper", "lower") else column < columns // 2
        return np.broadcast_to(is_first == (mask in ("upper", "left")), grid)
    share = _share(mask)
    if share is not None:
        if not 0 < share <= 1:
            raise UsageError(
                f"a mask that is a share of the codes must lie over 0 and be at most 1, got {share:g}"
            )
        num = max(1, round(share * rows * columns))
        order = np.random.default_rng([seed, 1]).permutation(rows * columns)
        is_drawn.ravel()[order[:num]] = True
        return is_drawn
    pixels = np.asarray(mask_pixels(mask, rows * downsampling_factor)) >= _WHITE
    cells = pixels.reshape(rows, downsampling_factor, columns, downsampling_factor)
    of_codes: Bool[np.ndarray, "r s"] = np.logical_or.reduce(cells, axis=(1, 3))
    if not of_codes.any():
        raise UsageError(
            "the mask has no white, so nothing would be drawn: paint what is to be drawn anew white"
        )
    return of_codes


def mask_pixels(mask: Mask, size_pixels: int) -> Image.Image:
    """Return a mask that is a picture as grey levels, cut as the picture it belongs to is.

    Raises:
        UsageError: it is nothing of what a mask can be.
        UnusableImage: a file is no picture that can be read.
    """
    if isinstance(mask, str) and not Path(mask).exists():
        raise UsageError(
            f"there is no mask {mask}: give {', '.join(get_args(Half))}, a share such as 0.3, or a picture that is "
            "white where it is to be drawn anew"
        )
    if not isinstance(mask, Image.Image | Path | str):
        raise UsageError(f"a mask must be a half, a share, a picture or a path, got {type(mask).__name__}")
    image = as_rgb(mask) if isinstance(mask, Image.Image) else read_image(mask)
    return resize_and_crop(image, size_pixels).convert("L")


def with_given_pixels(
    drawn: Image.Image, given: Image.Image, mask: Mask, is_drawn: Bool[np.ndarray, "r s"]
) -> Image.Image:
    """Return a drawn picture that has exactly the given pixels where nothing was to be drawn.

    Args:
        drawn: the picture.
        given: what it was drawn from, scaled to the drawn one's size.
        mask: a picture decides by the pixel, anything else by the code.
        is_drawn: the codes that were drawn anew.
    """
    if isinstance(mask, float | int) or mask in get_args(Half) or _share(mask) is not None:
        area = Image.fromarray(is_drawn.astype(np.uint8) * 255).resize(drawn.size, Image.Resampling.NEAREST)
    else:
        area = mask_pixels(mask, min(drawn.size)).point(lambda level: 255 if level >= _WHITE else 0)
    return Image.composite(drawn, resize_and_crop(as_rgb(given), min(drawn.size)), area)


def fit_losses(
    runner: Runner,
    template: TextToImageTemplate,
    pieces: Sequence[Pieces],
    codes: Sequence[Codes],
    is_drawn: Sequence[Bool[np.ndarray, "r s"]],
) -> Float64[np.ndarray, "c"]:
    """Return how badly what stands behind the drawn codes fits them, in nats per given code; the lower, the better.

    Args:
        runner: of the transformer that drew.
        template: of its sequences.
        pieces: of each picture's text.
        codes: of each picture.
        is_drawn: which of them were drawn.

    Raises:
        UsageError: nothing that was given stands behind what was drawn.
    """
    behind: list[Int64[np.ndarray, "_"]] = []
    for each in is_drawn:
        first = int(np.flatnonzero(each)[0])
        behind.append(first + np.flatnonzero(~each.ravel()[first:]))
    if not all(map(len, behind)):
        raise UsageError(
            "no given code stands behind what is drawn, so nothing can be ranked by fit: rank by the captioner"
        )
    results = runner.engine.run(
        [
            Request(
                context=text_context(template, text),
                legal=template.vocabulary.image_codes,
                given=each.ravel().astype(np.int64),
                variant=runner.variant,
                is_scored=True,
            )
            for text, each in zip(pieces, codes, strict=True)
        ]
    )
    nats = [result.nats for result in results if isinstance(result, Drawn) and result.nats is not None]
    return np.array([each[places].mean() for each, places in zip(nats, behind, strict=True)])


def _share(mask: Mask) -> float | None:
    """Return a mask that is a number."""
    if isinstance(mask, float | int):
        return float(mask)
    try:
        return float(mask) if isinstance(mask, str) else None
    except ValueError:
        return None
