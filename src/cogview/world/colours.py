"""Recolouring of icons: their main colour is replaced, with its shading."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

LEAST_MAIN_SHARE = 0.45
"""Least share of the area that the main colour must have for the icon to be recoloured."""

MOST_DIFFERENCE_OF_OWN = 25.0
"""Largest RMS difference, of 255, from a recoloured copy that counts as the icon's own colour."""

_HUES = 36
_FULL_DEGREES, _NO_DEGREES = 24.0, 40.0  # distance from the main hue of full and of no membership
_GREY_CHROMA, _COLOUR_CHROMA = 0.10, 0.22
_DARKEST = 0.22  # darker pixels, outlines and eyes, are not recoloured


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Colour of things or grounds.

    Args:
        english: English names, the usual one first.
        chinese: Chinese names without 色, the usual one first.
        rgb: 0..255 each; of a thing, for pixels of mean brightness.
    """

    english: tuple[str, ...]
    chinese: tuple[str, ...]
    rgb: tuple[int, int, int]


COLOURS = {
    colour.english[0]: colour
    for colour in (
        Colour(english=("red",), chinese=("红",), rgb=(206, 36, 42)),
        Colour(english=("orange",), chinese=("橙", "橘"), rgb=(238, 122, 16)),
        Colour(english=("yellow",), chinese=("黄",), rgb=(246, 206, 28)),
        Colour(english=("green",), chinese=("绿",), rgb=(44, 150, 62)),
        Colour(english=("blue",), chinese=("蓝",), rgb=(34, 92, 208)),
        Colour(english=("purple",), chinese=("紫",), rgb=(118, 56, 176)),
        Colour(english=("pink",), chinese=("粉", "粉红"), rgb=(246, 126, 176)),
        Colour(english=("black",), chinese=("黑",), rgb=(48, 48, 54)),
        Colour(english=("white",), chinese=("白",), rgb=(238, 238, 242)),
    )
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _MainColour:
    """Segmentation of an icon's main colour."""

    share: float
    membership: Float32[np.ndarray, "y x"]
    luma: Float32[np.ndarray, "y x"]


def main_share(raster: UInt8[np.ndarray, "y x 4"]) -> float:
    """Return the main colour's share of an icon's area."""
    return _main(raster).share


def recolour(raster: UInt8[np.ndarray, "y x 4"], colour: str) -> UInt8[np.ndarray, "y x 4"]:
    """Replace the main colour of an icon.

    Args:
        raster: RGBA with straight alpha.
        colour: a key of `COLOURS`.
    """
    return _paint(raster, _main(raster), colour)


def in_all_colours(raster: UInt8[np.ndarray, "y x 4"]) -> dict[str, UInt8[np.ndarray, "y x 4"]]:
    """Return an icon in each of `COLOURS`, faster than by `recolour`.

    Args:
        raster: RGBA with straight alpha.
    """
    main = _main(raster)
    return {colour: _paint(raster, main, colour) for colour in COLOURS}


def own_colour(
    raster: UInt8[np.ndarray, "y x 4"], painted: Mapping[str, UInt8[np.ndarray, "y x 4"]]
) -> str | None:
    """Return an icon's own colour, in which its recoloured copy looks almost the same; None if there is none.

    Args:
        raster: RGBA with straight alpha.
        painted: its copies from `in_all_colours`.
    """
    alpha = raster[..., 3:].astype(np.float32)
    most = 3 * float(alpha.sum()) * MOST_DIFFERENCE_OF_OWN**2
    own = raster[..., :3].astype(np.float32)
    away = {colour: float((alpha * (other[..., :3] - own) ** 2).sum()) for colour, other in painted.items()}
    nearest = min(away, key=away.__getitem__)
    return nearest if away[nearest] < most else None


def _paint(
    raster: UInt8[np.ndarray, "y x 4"], main: "_MainColour", colour: str
) -> UInt8[np.ndarray, "y x 4"]:
    weight = main.membership * raster[..., 3]
    mean = float((main.luma * weight).sum() / max(weight.sum(), 1e-6))
    ratio = main.luma[..., None] / max(mean, 1e-3)
    target = np.array(COLOURS[colour].rgb, dtype=np.float32)
    # Darker than the mean is a shadow of the colour, lighter is a highlight.
    light = np.clip((ratio - 1) / max(1 / max(mean, 1e-3) - 1, 0.5), 0, 1) * 0.8
    shaded = target * np.minimum(ratio, 1) * (1 - light) + 255 * light
    if colour == "black":  # shadows would not be visible
        shaded = target + 40 * (ratio - 1)
    rgb = raster[..., :3].astype(np.float32)
    mixed = rgb + (shaded - rgb) * main.membership[..., None]
    return np.concatenate([np.clip(mixed + 0.5, 0, 255).astype(np.uint8), raster[..., 3:]], axis=-1)


def _main(raster: UInt8[np.ndarray, "y x 4"]) -> _MainColour:
    rgb, alpha = raster[..., :3].astype(np.float32) / 255, raster[..., 3].astype(np.float32) / 255
    highest, lowest = rgb.max(-1), rgb.min(-1)
    chroma = highest - lowest
    luma = (rgb * np.array([0.299, 0.587, 0.114], dtype=np.float32)).sum(-1)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    spread = np.maximum(chroma, 1e-6)
    sixth = np.where(
        highest == red,
        ((green - blue) / spread) % 6,
        np.where(highest == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    hue = sixth * 60
    is_dark = highest < _DARKEST
    coloured = np.clip((chroma - _GREY_CHROMA) / (_COLOUR_CHROMA - _GREY_CHROMA), 0, 1) * ~is_dark
    area = float(alpha.sum())
    candidates = [(1 - coloured) * ~is_dark]
    for number in range(_HUES):
        away = np.abs((hue - number * 360 / _HUES + 180) % 360 - 180)
        candidates.append(coloured * np.clip((_NO_DEGREES - away) / (_NO_DEGREES - _FULL_DEGREES), 0, 1))
    shares = [float((candidate * alpha).sum()) / max(area, 1e-6) for candidate in candidates]
    best = int(np.argmax(shares))
    return _MainColour(share=shares[best], membership=candidates[best].astype(np.float32), luma=luma)
