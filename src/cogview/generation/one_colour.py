"""Pictures that show nothing: one colour from edge to edge, or nearly so."""

import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

MAX_LEVELS = 24
"""Of 255; image tokenizers redraw a white ground with less than that of noise."""
MIN_SHARE = 0.98


def is_one_coloured(image: Image.Image) -> bool:
    """Return whether nearly all pixels of a picture have nearly its median colour.

    Args:
        image: of any size; a pixel counts if each channel is at most 24 of 255 away, and 98 % of them have to.
    """
    rgb = image.convert("RGB")
    counts = np.array(rgb.histogram()).reshape(3, 256)
    least = MIN_SHARE * rgb.width * rgb.height
    # Few pictures come so far that their pixels are looked at one by one.
    if any(np.convolve(each, np.ones(2 * MAX_LEVELS + 1)).max() < least for each in counts):
        return False
    pixels = np.asarray(rgb).reshape(-1, 3)
    distances = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1)
    return bool(np.mean(distances <= MAX_LEVELS) >= MIN_SHARE)


def warn_of_one_colour(texts: Sequence[str], top_p: float) -> None:
    """Say of which texts all pictures are all but one colour, and what helps.

    Args:
        texts: whose pictures are; maybe none.
        top_p: that they were drawn with.
    """
    if texts:
        more = f"; there are {len(texts):,} such texts" if len(texts) > 1 else ""
        cure = (
            f"draw with top-p 1 (--top-p 1), not {top_p:g}, or train longer" if top_p < 1 else "train longer"
        )
        warnings.warn(
            f"all that was drawn for {texts[0]!r} is of one colour: if that is not asked for, {cure}{more}",
            stacklevel=3,
        )
