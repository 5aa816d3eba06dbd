"""Builder of the default data set: an image folder or WebDataset tars, independent of the number of workers."""

import io
import json
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, atomic_write_text
from cogview.folders import atomic_folder
from cogview.workers import map_in_order
from cogview.world.captions import captions
from cogview.world.colours import COLOURS
from cogview.world.config import HELD_OUT_STYLES, TRAINING_STYLES, DefaultDataConfig, Language, Split, Style
from cogview.world.icon_sheets import IconSheets, icon_sizes
from cogview.world.icons import Icons, IconWords, credits_of, load_icons, packages_of
from cogview.world.objects import GROUNDS, held_out_codes, known_codes
from cogview.world.packages import CREDITS_FILE
from cogview.world.scene_maker import make_scene
from cogview.world.scenes import LATTICE_CELLS, Scene, draw_scene

CHUNK_PICTURES = 250
PNG_COMPRESS_LEVEL = 1  # 2 % larger than the best, five times as fast
PICTURES_PER_FOLDER = 10_000


@dataclass(frozen=True, kw_only=True)
class Example:
    """Picture with its captions.

    Args:
        name: file name without extension, unique in the data set.
        image: the picture.
        texts: captions, all different.
        split: its split.
        scene: its contents.
    """

    name: str
    image: Image.Image
    texts: list[str]
    split: Split
    scene: Scene

    def record(self) -> dict[str, Any]:
        """Return the metadata as plain data."""
        return {"texts": self.texts, "split": self.split, "scene": self.scene.to_json()}


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    number: int
    split: Split
    start: int
    stop: int


def split_sizes(config: DefaultDataConfig) -> dict[Split, int]:
    """Return the number of pictures of each split."""
    return {
        "train": config.num_train,
        "held-out-composition": config.num_held_out_composition,
        "held-out-colour": config.num_held_out_colour,
        "held-out-object": config.num_held_out_object,
        "held-out-style": config.num_held_out_style,
        "held-out-drawing": config.num_held_out_drawing,
    }


def check_config(config: DefaultDataConfig) -> None:
    """Check a configuration.

    Raises:
        UsageError: a field is out of range, or a training style has a share-alike licence.
    """
    for style in config.styles:
        if style in HELD_OUT_STYLES:
            raise UsageError(
                f"style {style!r} is held out of training (its licence is share-alike);"
                " ask for it with num_held_out_style instead"
            )
        if style not in TRAINING_STYLES:
            raise UsageError(f"style {style!r} is unknown; wanted {', '.join(TRAINING_STYLES)}")
    for language in config.languages:
        if language not in get_args(Language):
            raise UsageError(f"language {language!r} is unknown; wanted {', '.join(get_args(Language))}")
    if not config.styles or not config.languages:
        raise UsageError("styles and languages are empty; wanted at least one of each")
    if config.num_held_out_drawing and len(set(config.styles)) < 2:
        raise UsageError(
            "num_held_out_drawing holds back one style of each object; wanted at least two styles"
        )
    if config.num_held_out_colour and not config.coloured_share:
        raise UsageError(
            "num_held_out_colour needs things in colours; set coloured_share, to 0.4 for instance"
        )
    if config.size_pixels < LATTICE_CELLS or config.size_pixels % LATTICE_CELLS:
        raise UsageError(
            f"size_pixels is {config.size_pixels}; wanted a positive multiple of {LATTICE_CELLS}"
        )
    if min(split_sizes(config).values()) < 0 or sum(split_sizes(config).values()) == 0:
        raise UsageError("the numbers of pictures must not be negative, nor all 0")
    for field in ("captions_per_picture", "pictures_per_tar", "num_workers"):
        if getattr(config, field) < 1:
            raise UsageError(f"{field} is {getattr(config, field)}; wanted at least 1")
    known_codes(config.num_objects)


def load_icons_for(config: DefaultDataConfig) -> Icons:
    """Load the icons that a configuration needs: complete sets, or the table's objects alone."""
    only = None if config.icon_share else _objects(config)
    return load_icons(_styles(config), config.packages_folder, only)


class ExampleSource:
    """Random access to the examples of a configuration."""

    def __init__(self, config: DefaultDataConfig, icons: Icons | None = None) -> None:
        check_config(config)
        self.config = config
        self.icons = load_icons_for(config) if icons is None else icons
        # Only icons of all styles, so that style and content are independent.
        in_all_styles = set.intersection(*(set(self.icons.codes(style)) for style in _styles(config)))
        self._icon_codes = tuple(sorted(in_all_styles))
        self._colour_named_codes: frozenset[str] = frozenset()
        if config.coloured_share:
            self._colour_named_codes = frozenset(
                code for code in self._icon_codes if _names_colour(self.icons.words[code])
            )

    def example(self, split: Split, index: int) -> Example:
        """Return example `index` of a split, a function of configuration, split and index."""
        scene, texts = self.scene_and_texts(split, index)
        return Example(
            name=f"{split}-{index:07d}",
            image=draw_scene(scene, self.icons, self.config.size_pixels),
            texts=texts,
            split=split,
            scene=scene,
        )

    def scene_and_texts(self, split: Split, index: int) -> tuple[Scene, list[str]]:
        """Return scene and captions of example `index` of a split, without drawing it."""
        scene = make_scene(self.config, split, index, self._icon_codes, self._colour_named_codes)
        rng = random.Random(f"{self.config.seed}/{split}/{index}/captions")
        words = self.icons.words.get(scene.placements[0].code)
        texts: list[str] = []
        languages = self.config.languages
        for number, language in enumerate(languages):
            # The first languages get the remainder.
            share = len(range(number, self.config.captions_per_picture, len(languages)))
            texts += captions(scene, rng, share, language, words)
        return scene, texts


def build_default_data(
    config: DefaultDataConfig,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    icons: Icons | None = None,
) -> dict[Split, int]:
    """Build the default data set.

    The same configuration gives the same bytes. The folder appears when it is complete.

    Args:
        config: of the data set.
        out: the folder to make; it must not exist, or be empty.
        progress: called with (pictures done, pictures in all) from time to time.
        icons: the art, or None to load it.

    Returns:
        The number of pictures of each split that has any.

    Raises:
        UsageError: the configuration cannot be built or `out` already holds something.
        CogViewError: a package is missing or cannot be fetched, or the disk refuses.
    """
    check_config(config)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and isn't an empty folder; delete it or choose another")
    if icons is None:
        icons = load_icons_for(config)
    sizes = {split: number for split, number in split_sizes(config).items() if number}
    total, done = sum(sizes.values()), 0
    metadata: list[str] = []
    try:
        with atomic_folder(out) as folder:
            for num_pictures, lines in _draw_all(config, icons, folder, _chunks(config, sizes)):
                metadata += lines
                done += num_pictures
                if progress is not None:
                    progress(done, total)
            if config.format == "image-folder":
                (folder / "metadata.jsonl").write_text("".join(metadata), encoding="utf-8")
            IconSheets.write(
                folder,
                icons,
                _styles(config),
                _objects(config),
                icon_sizes(config),
                config.size_pixels,
                with_colours=config.coloured_share > 0,
            )
            atomic_write_json(folder / "data-config.json", _description(config))
            atomic_write_text(folder / CREDITS_FILE, credits_of(_styles(config)))
    except OSError as error:
        raise CogViewError(
            f"{out} cannot be written ({error}); free some space or choose another folder"
        ) from error
    return sizes


def _names_colour(words: IconWords) -> bool:
    """Return whether an icon's label or tags name a colour."""
    texts = {language: " ".join((words.labels[language], *words.tags[language])) for language in words.labels}
    return any(
        any(name in texts["zh"] for name in colour.chinese)
        or any(re.search(rf"\b{name}\b", texts["en"], re.IGNORECASE) for name in colour.english)
        for colour in (*COLOURS.values(), *GROUNDS.values())
    )


def _objects(config: DefaultDataConfig) -> list[str]:
    """Return the codes of the table's objects that scenes may show."""
    return [*known_codes(config.num_objects), *held_out_codes()]


def _styles(config: DefaultDataConfig) -> tuple[Style, ...]:
    styles = tuple(dict.fromkeys(config.styles))
    return styles + HELD_OUT_STYLES if config.num_held_out_style else styles


def _description(config: DefaultDataConfig) -> dict[str, Any]:
    """Return the configuration and packages, for `data-config.json`."""
    fields = asdict(config)
    for field in ("num_workers", "packages_folder"):  # not properties of the data
        del fields[field]
    return {
        "format": "cogview-default-data",
        "version": 1,
        "config": fields,
        "packages": [asdict(package) for package in packages_of(_styles(config))],
    }


def _chunks(config: DefaultDataConfig, sizes: dict[Split, int]) -> list[_Chunk]:
    """Divide the work; of tars, each chunk is one."""
    length = config.pictures_per_tar if config.format == "webdataset" else CHUNK_PICTURES
    return [
        _Chunk(number=start // length, split=split, start=start, stop=min(start + length, size))
        for split, size in sizes.items()
        for start in range(0, size, length)
    ]


def _draw_all(
    config: DefaultDataConfig, icons: Icons, folder: Path, chunks: list[_Chunk]
) -> Iterator[tuple[int, list[str]]]:
    """Write the chunks, and yield the number of pictures and the metadata lines of each in order."""
    num_workers = min(config.num_workers, len(chunks))
    writer = _Writer(config, icons, folder)
    with closing(map_in_order(writer.write, chunks, num_workers if num_workers > 1 else 0)) as written:
        yield from (lines for _, lines in written)


class _Writer:
    def __init__(self, config: DefaultDataConfig, icons: Icons, folder: Path) -> None:
        self._config = config
        self._icons = icons
        self._folder = folder

    def write(self, chunk: _Chunk) -> tuple[int, list[str]]:
        write = self._write_tar if self._config.format == "webdataset" else self._write_images
        return chunk.stop - chunk.start, write(chunk)

    @cached_property
    def _source(self) -> ExampleSource:
        return ExampleSource(self._config, self._icons)

    def _examples(self, chunk: _Chunk) -> Iterator[Example]:
        return (self._source.example(chunk.split, index) for index in range(chunk.start, chunk.stop))

    def _write_images(self, chunk: _Chunk) -> list[str]:
        lines = []
        for index, example in enumerate(self._examples(chunk), chunk.start):
            name = f"images/{chunk.split}-{index // PICTURES_PER_FOLDER:03d}/{example.name}.png"
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(example.image))
            lines.append(json.dumps({"file_name": name, **example.record()}, ensure_ascii=False) + "\n")
        return lines

    def _write_tar(self, chunk: _Chunk) -> list[str]:
        with tarfile.open(
            self._folder / f"{chunk.split}-{chunk.number:05d}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for example in self._examples(chunk):
                members = {
                    "png": _png(example.image),
                    "txt": example.texts[0].encode(),
                    "json": json.dumps(example.record(), ensure_ascii=False).encode(),
                }
                for ending, data in members.items():
                    info = tarfile.TarInfo(
                        f"{example.name}.{ending}"
                    )  # without time and owner, for reproducible bytes
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return []


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()
