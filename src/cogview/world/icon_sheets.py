"""Files with the icons of a data set's scenes, to compare pictures with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json
from cogview.plain_json import parse_json
from cogview.world.config import DefaultDataConfig, Style
from cogview.world.icons import Icons
from cogview.world.objects import scene_objects
from cogview.world.scenes import LATTICE_CELLS, NAMED_SIZES, SMALL_CELLS

ICONS_FOLDER, INDEX = "icons", "index.json"
FORMAT, VERSION = "cogview-icon-sheets", 1


def icon_sizes(config: DefaultDataConfig) -> tuple[int, ...]:
    """Return the possible sides of objects in the scenes of a configuration, in cells."""
    sizes: set[int] = set()
    if config.single_share or config.num_held_out_drawing:
        sizes.add(config.single_cells)
    if config.single_share and config.sized_share:
        sizes.update(NAMED_SIZES.values())
    if config.count_share or config.relation_share or config.group_share or config.groups_share:
        sizes.add(SMALL_CELLS)
    if (config.count_share and config.most_counted > 4) or config.groups_share:
        sizes.add(NAMED_SIZES["small"])
    if config.sizes_share:
        sizes.update((SMALL_CELLS, *NAMED_SIZES.values()))
    return tuple(sorted(sizes))


@dataclass(frozen=True, kw_only=True)
class IconSheets:
    """Icons of a data set, one file per style and size.

    Args:
        folder: `ICONS_FOLDER` of a data set.
        size_pixels: side of the data set's pictures.
        sizes: sides of the icons, in cells of the lattice.
        codes: of the icons by style, in the order of the files.
        coloured: codes that scenes may show in any of `colours.COLOURS`.
    """

    folder: Path
    size_pixels: int
    sizes: tuple[int, ...]
    codes: dict[Style, tuple[str, ...]]
    coloured: frozenset[str]

    @staticmethod
    def write(
        data_set: Path,
        icons: Icons,
        styles: Sequence[Style],
        codes: Sequence[str],
        sizes: Sequence[int],
        size_pixels: int,
        *,
        with_colours: bool,
    ) -> None:
        """Write the icons into a data set; nothing if `sizes` is empty.

        Args:
            data_set: folder of the data set.
            icons: the art; icons that a style lacks are left out.
            styles: of the scenes.
            codes: of objects of the table.
            sizes: sides of the icons, in cells of the lattice.
            size_pixels: side of the data set's pictures.
            with_colours: whether scenes show recoloured things.
        """
        if not sizes:
            return
        folder = data_set / ICONS_FOLDER
        folder.mkdir(exist_ok=True)
        of_style = {style: [code for code in codes if icons.has(style, code)] for style in styles}
        for style, present in of_style.items():
            for size in sizes:
                side = size * size_pixels // LATTICE_CELLS
                rasters = [icons.draw(style, code, side, keep=False) for code in present]
                sheet = np.stack(rasters) if rasters else np.empty((0, side, side, 4), np.uint8)
                np.savez_compressed(folder / _name(style, size), rasters=sheet)
        table = scene_objects()
        coloured = [code for code in codes if with_colours and table[code].has_colours]
        index = {
            "format": FORMAT,
            "version": VERSION,
            "size_pixels": size_pixels,
            "sizes": list(sizes),
            "codes": of_style,
            "coloured": coloured,
        }
        atomic_write_json(folder / INDEX, index)

    @staticmethod
    def of(data_set: Path) -> "IconSheets":
        """Open the icons of a data set.

        Raises:
            UsageError: it has none.
            CogViewError: they cannot be read.
        """
        folder = data_set / ICONS_FOLDER
        path = folder / INDEX
        if not path.is_file():
            raise UsageError(
                f"{data_set} has no {ICONS_FOLDER}/{INDEX} with the icons of its objects: build the data set again "
                "with `cogview data build`"
            )
        try:
            index: Any = parse_json(path.read_bytes())
            if (index["format"], index["version"]) != (FORMAT, VERSION):
                raise ValueError(f"got {index['format']} {index['version']}, wanted {FORMAT} {VERSION}")
            if not index["sizes"] or not any(index["codes"].values()):
                raise ValueError("it names no icons")
            return IconSheets(
                folder=folder,
                size_pixels=int(index["size_pixels"]),
                sizes=tuple(map(int, index["sizes"])),
                codes={style: tuple(codes) for style, codes in index["codes"].items()},
                coloured=frozenset(index["coloured"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CogViewError(f"{path} cannot be read ({error}): build the data set again") from error

    def rasters(self, style: Style, size: int) -> UInt8[np.ndarray, "n y x 4"]:
        """Return the icons of a style at a size as RGBA with straight alpha, in the order of `codes`.

        Raises:
            CogViewError: they cannot be read.
        """
        path = self.folder / _name(style, size)
        side = size * self.size_pixels // LATTICE_CELLS
        wanted = (len(self.codes[style]), side, side, 4)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                rasters: np.ndarray = arrays["rasters"]
            if rasters.shape != wanted or rasters.dtype != np.uint8:
                raise ValueError(f"got {rasters.dtype} {rasters.shape}, wanted uint8 {wanted}")
        except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile) as error:
            raise CogViewError(f"{path} cannot be read ({error}): build the data set again") from error
        return rasters


def _name(style: Style, size: int) -> str:
    return f"{style}-{size}.npz"
