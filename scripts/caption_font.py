"""Make the font that captions are drawn with: Noto Sans SC, cut down to what Chinese and European captions need.

    python scripts/caption_font.py

Writes `src/cogview/image/font/noto-sans-sc.woff` and its licence, `OFL.txt`. The package is pinned; fonttools 4.68.0 of
the extra `plot` made the file in the repository (Python 3.11, zlib 1.2.13).
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from cogview.files import atomic_write_bytes
from cogview.world.packages import Package, find_package, read_members

PACKAGE = Package(
    name="@expo-google-fonts/noto-sans-sc",
    version="0.4.3",
    sha256="0d69d0f4971d2ff574e3d93cbc218dc950bf3f3f8f8e2c008d97687ed53aee59",
    licence="OFL-1.1",
    author="Adobe",
)
FONT, LICENCE = "400Regular/NotoSansSC_400Regular.ttf", "LICENSE_FONT"
OUT = Path(__file__).parents[1] / "src" / "cogview" / "image" / "font"
# Latin, Greek and Cyrillic letters, punctuation, kana, full-width forms.
BLOCKS = (range(0x20, 0x7F), range(0xA0, 0x180), range(0x370, 0x460), range(0x2010, 0x2040))
BLOCKS_OF_CHINESE = (range(0x3000, 0x3100), range(0xFF00, 0xFF66))
DROPPED_TABLES = ("vhea", "vmtx", "VORG", "BASE", "GSUB", "GPOS", "GDEF", "STAT", "MVAR", "HVAR")


def characters() -> Iterator[int]:
    """Yield the characters to keep: the blocks above and the 6,763 characters and the signs of GB 2312."""
    for block in (*BLOCKS, *BLOCKS_OF_CHINESE):
        yield from block
    for row in (*range(0xA1, 0xAA), *range(0xB0, 0xF8)):
        for cell in range(0xA1, 0xFF):
            pair = bytes([row, cell]).decode("gb2312", errors="ignore")
            yield from map(ord, pair)


def cut_down(font: bytes, kept: Iterable[int]) -> bytes:
    """Return a font with some characters alone, unhinted, as WOFF."""
    options = subset.Options(
        hinting=False,
        layout_features=[],
        glyph_names=False,
        notdef_outline=True,
        name_IDs=[0, 1, 2, 3, 4, 5, 6, 7, 13, 14],
    )
    options.drop_tables += DROPPED_TABLES
    whole = TTFont(io.BytesIO(font), recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=set(kept))
    subsetter.subset(whole)
    whole.flavor = "woff"
    data = io.BytesIO()
    whole.save(data)
    return data.getvalue()


def main() -> None:
    """Fetch the package and write font and licence."""
    members = dict(read_members(find_package(PACKAGE), [FONT, LICENCE]))
    atomic_write_bytes(OUT / "noto-sans-sc.woff", cut_down(members[FONT], characters()))
    atomic_write_bytes(OUT / "OFL.txt", members[LICENCE])


if __name__ == "__main__":
    main()
