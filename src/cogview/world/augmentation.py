"""Augmentation of icons: rotation, mirroring and colours."""

import random

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MOST_DEGREES = 15.0
MOST_HUE = 14
"""Largest shift of the hue, of 256 steps."""


def augment(raster: UInt8[np.ndarray, "y x 4"], seed: int) -> UInt8[np.ndarray, "y x 4"]:
    """Return an augmented icon, a function of the seed.

    Args:
        raster: RGBA with straight alpha.
        seed: of mirroring, angle, hue, saturation and brightness; below 0, colours are unchanged.
    """
    draw = random.Random(seed)
    image = Image.fromarray(raster, "RGBA")
    if draw.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Interpolated with premultiplied alpha, or the edges would darken.
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
