"""Pictures that show nothing: one colour from edge to edge, or nearly so."""

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
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    distances = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1)
    return bool(np.mean(distances <= MAX_LEVELS) >= MIN_SHARE)
