"""Icons drawn a little otherwise: turned, mirrored, in other colours, so that a thing is learnt and not its pixels."""

import random

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MOST_DEGREES = 15.0
MOST_HUE = 14
"""Of 256 steps of the colour wheel."""


def varied(raster: UInt8[np.ndarray, "y x 4"], seed: int) -> UInt8[np.ndarray, "y x 4"]:
    """Return an icon drawn otherwise: the same for the same seed.

    Args:
        raster: RGBA with straight alpha.
        seed: decides on mirroring, angle, hue, saturation and brightness; below 0, the colours stay as they are.
    """
    draw = random.Random(seed)
    image = Image.fromarray(raster, "RGBA")
    if draw.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Colours are weighed by their alpha while they are mixed, or the edges would darken.
    degrees = draw.uniform(-MOST_DEGREES, MOST_DEGREES)
    turned = np.asarray(image.convert("RGBa").rotate(degrees, Image.Resampling.BILINEAR).convert("RGBA"))
    if seed < 0:
        return turned
    hsv = np.asarray(Image.fromarray(turned[..., :3]).convert("HSV")).astype(np.int32)
    hue = (hsv[..., 0] + draw.randint(-MOST_HUE, MOST_HUE)) % 256
    saturation = np.minimum(hsv[..., 1] * draw.randint(60, 130) // 100, 255)
    value = np.minimum(hsv[..., 2] * draw.randint(75, 115) // 100, 255)
    colours = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)
    rgb = np.asarray(Image.fromarray(colours, "HSV").convert("RGB"))
    return np.concatenate([rgb, turned[..., 3:]], axis=-1)
