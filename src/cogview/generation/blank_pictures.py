"""Detection of blank pictures: one colour from edge to edge, or nearly so."""

import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

MAX_LEVELS = 24
"""Tolerance per channel, of 255; image tokenizers add less noise than that to a white ground."""
MIN_SHARE = 0.98


def is_blank(image: Image.Image) -> bool:
    """Return whether nearly all pixels of a picture have nearly its median colour.

    Args:
        image: of any size; 98 % of its pixels must be within 24 levels of 255 in each channel.
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


def warn_of_blank_pictures(texts: Sequence[str], top_p: float) -> None:
    """Warn that all pictures of some texts are blank, and say what helps.

    Args:
        texts: whose pictures are all blank; may be empty.
        top_p: that the pictures were drawn with.
    """
    if texts:
        more = f"; there are {len(texts):,} such texts" if len(texts) > 1 else ""
        cure = (
            f"draw with top-p 1 (--top-p 1), not {top_p:g}, or train longer" if top_p < 1 else "train longer"
        )
        warnings.warn(
            f"all pictures of {texts[0]!r} are of one colour: unless that is wanted, {cure}{more}",
            stacklevel=3,
        )
