"""Icons in seven styles with their labels, rasterized at any size."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.world import packages
from cogview.world.colours import recolour
from cogview.world.config import Language, Style
from cogview.world.packages import Package, find_package, read_json_member, read_members

PACKAGE_OF_STYLE: dict[Style, Package] = {
    "noto": packages.NOTO,
    "twemoji": packages.TWEMOJI,
    "fluent": packages.FLUENT,
    "fluent-flat": packages.FLUENT_FLAT,
    "fluent-3d": packages.FLUENT_3D,
    "openmoji": packages.OPENMOJI,
    "outlined": packages.TWEMOJI,  # with black lines around all of its shapes
}
OUTLINE_SHARE = 0.033
"""Width of the outline, as a share of an icon's side."""
SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
COMPONENT_GROUP = 2  # emojibase's group of bare skin tones and hair styles
MAX_CACHED_BYTES = 512 * 2**20
"""Limit of the raster cache; 185 objects in 4 styles and 2 sizes take 37 MB at 128 pixels."""


@dataclass(frozen=True, kw_only=True)
class IconWords:
    """Names of an icon.

    Args:
        labels: one name per language.
        tags: further words per language, without the label.
    """

    labels: Mapping[Language, str]
    tags: Mapping[Language, tuple[str, ...]]


def code_of(sequence: str) -> str:
    """Normalize hex code points such as `1F6E9-FE0F`: lower case, without variation selectors."""
    return "-".join(point for point in sequence.lower().split("-") if point not in {"fe0f", "fe0e"})


def packages_of(styles: Sequence[Style]) -> list[Package]:
    """Return the packages of the labels and of each style's art."""
    return list(dict.fromkeys([packages.EMOJIBASE, *(PACKAGE_OF_STYLE[style] for style in styles)]))


def credits_of(styles: Sequence[Style]) -> str:
    """Return the credits and licences of pictures in some styles, and of their captions."""
    lines = [package.credit for package in packages_of(styles)]
    return "\n".join(
        [
            "The pictures in this folder and their captions are made from icons and labels of:",
            *lines,
            "CC-BY-4.0 is at https://creativecommons.org/licenses/by/4.0/; weights that learn from the pictures should",
            "credit the same people.",
            "Changes: drawn as pixels, scaled, and placed on coloured grounds.",
            "",
        ]
    )


class Icons:
    """Icons of some styles, rasterized on demand.

    Args:
        art: SVG text or encoded bitmap by style and code.
        words: names by code.
    """

    def __init__(
        self, art: Mapping[Style, Mapping[str, str | bytes]], words: Mapping[str, IconWords]
    ) -> None:
        self._art = art
        self.words = words
        self._rasters: dict[tuple[Style, str, int, str | None], UInt8[np.ndarray, "y x 4"]] = {}
        self._num_bytes = 0

    @property
    def styles(self) -> tuple[Style, ...]:
        """Return the loaded styles."""
        return tuple(self._art)

    def codes(self, style: Style) -> list[str]:
        """Return the sorted codes of a style's icons that have names."""
        return sorted(self._art[style].keys() & self.words.keys())

    def has(self, style: Style, code: str) -> bool:
        """Return whether a style has an icon."""
        return code in self._art.get(style, {})

    def draw(
        self, style: Style, code: str, size_pixels: int, colour: str | None = None, *, keep: bool = True
    ) -> UInt8[np.ndarray, "y x 4"]:
        """Return an icon as RGBA with straight alpha.

        Args:
            style: a loaded style.
            code: of an icon of the style.
            size_pixels: side of the raster, at least 1.
            colour: a key of `colours.COLOURS` to recolour it, or None for its own.
            keep: whether to cache the raster.

        Raises:
            UsageError: the style is not loaded or has no such icon.
        """
        key = (style, code, size_pixels, colour)
        if key in self._rasters:
            return self._rasters[key]
        if style not in self._art:
            raise UsageError(f"style {style!r} is not loaded; loaded are {', '.join(self.styles)}")
        if code not in self._art[style]:
            raise UsageError(f"style {style!r} has no icon {code!r}")
        raster = _rasterize(self._art[style][code], size_pixels)
        if colour is not None:
            raster = recolour(raster, colour)
        raster.setflags(write=False)
        if keep and self._num_bytes + raster.nbytes <= MAX_CACHED_BYTES:
            self._rasters[key] = raster
            self._num_bytes += raster.nbytes
        return raster


def load_icons(
    styles: Iterable[Style], packages_folder: Path | None = None, only_codes: Iterable[str] | None = None
) -> Icons:
    """Read the icons of some styles and their names.

    Args:
        styles: each needs its own package.
        packages_folder: a folder with the packages' archives, or None to fetch missing ones.
        only_codes: load only these icons; None for all without skin tones.
    """
    only = None if only_codes is None else frozenset(only_codes)
    art = {style: _read_art(style, packages_folder, only) for style in styles}
    words = _read_words(find_package(packages.EMOJIBASE, packages_folder), only)
    return Icons(art, words)


def _read_words(archive: Path, only: frozenset[str] | None) -> dict[str, IconWords]:
    labels: dict[str, dict[Language, str]] = {}
    tags: dict[str, dict[Language, tuple[str, ...]]] = {}
    languages: tuple[Language, ...] = ("zh", "en")
    for language in languages:
        for entry in read_json_member(archive, f"{language}/data.json"):
            # Variants with skin tones are nested in an icon's entry.
            for each in (entry, *entry.get("skins", ())):
                code = code_of(each["hexcode"])
                if "group" not in entry or entry["group"] == COMPONENT_GROUP or not _wanted(code, only):
                    continue
                label = each["label"]
                labels.setdefault(code, {})[language] = label
                tags.setdefault(code, {})[language] = tuple(
                    tag for tag in each.get("tags", []) if tag != label
                )
    return {
        code: IconWords(labels=labels[code], tags=tags[code]) for code in labels if len(labels[code]) == 2
    }


def _read_art(
    style: Style, packages_folder: Path | None, only: frozenset[str] | None
) -> dict[str, str | bytes]:
    archive = find_package(PACKAGE_OF_STYLE[style], packages_folder)
    art: dict[str, str | bytes] = {}
    if style == "fluent-3d":
        for path, data in read_members(archive):
            match = re.fullmatch(r"assets/([0-9a-f-]+)\.webp", path)
            if match and _wanted(code := code_of(match[1]), only):
                art[code] = data
        return art
    icon_set = read_json_member(archive, "icons.json")
    # The fluent set has no table of code points, but the names of the flat set.
    table_archive = archive if style != "fluent" else find_package(packages.FLUENT_FLAT, packages_folder)
    for sequence, name in read_json_member(table_archive, "chars.json").items():
        code = code_of(sequence)
        outline = OUTLINE_SHARE if style == "outlined" else 0.0
        if _wanted(code, only) and (svg := _svg_of(icon_set, name, outline)) is not None:
            art[code] = svg
    return art


def _wanted(code: str, only: frozenset[str] | None) -> bool:
    return SKIN_TONES.isdisjoint(code.split("-")) if only is None else code in only


def _svg_of(icon_set: dict[str, Any], name: str, outline: float = 0.0) -> str | None:
    """Convert an icon of an Iconify set to a square SVG document; None if the set lacks it.

    Args:
        icon_set: icons by name.
        name: of the icon.
        outline: width of black lines around shapes without lines, as a share of the side.
    """
    flips: list[str] = []
    while name not in icon_set["icons"]:
        alias = icon_set.get("aliases", {}).get(name)
        if alias is None:
            return None
        flips += [flip for flip in ("hFlip", "vFlip") if alias.get(flip)]
        name = alias["parent"]
    icon = icon_set["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icon_set.get("width", 16))
    height = icon.get("height", icon_set.get("height", 16))
    body = icon["body"]
    if flips.count("hFlip") % 2:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    if flips.count("vFlip") % 2:
        body = f'<g transform="translate(0 {2 * top + height}) scale(1 -1)">{body}</g>'
    side = max(width, height)
    if outline:
        line = (
            f'stroke="#000" stroke-width="{outline * side:g}" stroke-linejoin="round" stroke-linecap="round"'
        )
        body = f"<g {line}>{body}</g>"
    box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{box}" width="{side:g}" height="{side:g}">{body}</svg>'
    )


def _rasterize(art: str | bytes, size_pixels: int) -> UInt8[np.ndarray, "y x 4"]:
    if isinstance(art, str):
        try:
            import resvg_py
        except ImportError as error:
            raise CogViewError(
                "drawing icons needs resvg-py; install it with `pip install resvg-py`"
            ) from error
        art = bytes(
            resvg_py.svg_to_bytes(
                svg_string=art, width=size_pixels, height=size_pixels, skip_system_fonts=True
            )
        )
    with Image.open(io.BytesIO(art)) as image:
        picture = image.convert("RGBA")
    if picture.size != (size_pixels, size_pixels):
        picture = picture.resize((size_pixels, size_pixels), Image.Resampling.LANCZOS)
    return np.array(picture)
