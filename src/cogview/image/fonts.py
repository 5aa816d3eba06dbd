"""Fonts for captions on pictures: Pillow's, the package's, or the system's."""

import functools
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageFont

TEXT_PIXELS = 16
SHIPPED_FONT = Path(__file__).parent / "font" / "noto-sans-sc.woff"
"""Latin, plain Greek and Cyrillic letters, kana, and the characters of GB 2312; made by `scripts/caption_font.py`."""

# Prefixes of file names of common fonts with many characters, for those that the shipped one lacks.
_KNOWN_FONTS = (
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
    *("dejavusans.", "freesans.", "unifont", "arial unicode", "arialuni"),
)
_NO_CHARACTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption_font(caption: str, size_pixels: int = TEXT_PIXELS) -> Font | None:
    """Return a font that has all characters of a caption; None if there is none."""
    font, missing = nearest_font(caption, size_pixels)
    return None if missing else font


def nearest_font(caption: str, size_pixels: int = TEXT_PIXELS) -> tuple[Font, str]:
    """Return the font that has most of a caption's characters, and the missing ones, drawn as boxes."""
    if caption.isascii():  # as Pillow's own font is
        return ImageFont.load_default(size_pixels), ""
    best: tuple[Font, str] | None = None
    for font in _fonts(size_pixels):
        missing = "".join(each for each in dict.fromkeys(caption) if not _shows(font, each))
        if best is None or len(missing) < len(best[1]):
            best = font, missing
        if not missing:
            break
    return best or (ImageFont.load_default(size_pixels), "".join(dict.fromkeys(caption)))


def _shows(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Return whether a font has a character, or the character is invisible."""
    if unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
        return True
    return _glyph(font, character) != _glyph(font, _NO_CHARACTER)


@functools.lru_cache(maxsize=4096)
def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _fonts(size_pixels: int) -> Iterator[ImageFont.FreeTypeFont]:
    """Yield the shipped font and then the system's known fonts."""
    for path in (SHIPPED_FONT, *_known_files()):
        font = _opened(path, size_pixels)
        if font is not None:
            yield font


@functools.cache
def _opened(path: Path, size_pixels: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, size_pixels)
    except OSError:  # a damaged or unsupported file; another may do
        return None


@functools.cache
def _known_files() -> tuple[Path, ...]:
    """Return the files of known fonts, preferred ones first."""
    files = [(path.name.lower(), path) for path in _font_files()]
    return tuple(path for start in _KNOWN_FONTS for name, path in files if name.startswith(start))


def _font_files() -> tuple[Path, ...]:
    """Return all font files of the system."""

    def files() -> Iterator[Path]:
        for folder in _font_folders():
            for directory, _, names in os.walk(folder):
                yield from (Path(directory, name) for name in sorted(names))

    return tuple(path for path in files() if path.suffix.lower() in (".ttf", ".ttc", ".otf"))


def _font_folders() -> list[Path]:
    """Return the font folders of the operating system."""
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [*(Path(folder) / "fonts" for folder in shared.split(":")), Path.home() / ".local/share/fonts"]
