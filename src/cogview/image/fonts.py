"""Fonts for words on pictures: Pillow's own for ASCII, one with Chinese glyphs from this machine for the rest."""

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageFont

TEXT_PIXELS = 16

# Beginnings of the file names of common fonts with Chinese glyphs. None is shipped: good ones have some 10 MB.
_CHINESE_FONTS = (
    *(
        "notosanscjk",
        "notosanssc",
        "notosanshans",
        "notoserifcjk",
        "sourcehansans",
        "wqy-",
        "droidsansfallback",
    ),
    *("uming", "ukai", "pingfang", "hiragino sans gb", "stheiti", "msyh", "simhei", "simsun", "deng"),
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption_font(caption: str, size_pixels: int = TEXT_PIXELS) -> Font | None:
    """Return a font that can show the caption, or None if there is none on this machine."""
    if caption.isascii():  # which is what Pillow's own font can show
        return ImageFont.load_default(size_pixels)
    return _chinese_font(size_pixels)


@functools.cache
def _chinese_font(size_pixels: int) -> Font | None:
    """Return the first font found here whose file name is that of a Chinese one."""
    for beginning in _CHINESE_FONTS:
        for path in _font_files():
            if path.name.lower().startswith(beginning):
                try:
                    return ImageFont.truetype(path, size_pixels)
                except OSError:
                    continue  # a damaged or unsupported file; another may do
    return None


@functools.cache
def _font_files() -> tuple[Path, ...]:
    """Return all font files in the places where systems keep them."""

    def files() -> Iterator[Path]:
        for folder in _font_folders():
            for directory, _, names in os.walk(folder):
                yield from (Path(directory, name) for name in sorted(names))

    return tuple(path for path in files() if path.suffix.lower() in (".ttf", ".ttc", ".otf"))


def _font_folders() -> list[Path]:
    """Return the folders in which this kind of system keeps its fonts."""
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [*(Path(folder) / "fonts" for folder in shared.split(":")), Path.home() / ".local/share/fonts"]
