"""Atomic writing of a folder of captioned pictures."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from cogview.data.folder_contents import METADATA
from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, atomic_write_text
from cogview.folders import atomic_folder
from cogview.world.packages import CREDITS_FILE

PNG_COMPRESS_LEVEL = 1
PICTURES_PER_FOLDER = 10_000
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CaptionedPicture:
    """Picture with its captions.

    Args:
        image: the picture.
        texts: captions.
        split: name of its split.
        facts: further metadata, as plain data.
    """

    image: Image.Image
    texts: list[str]
    split: str
    facts: dict[str, Any] = field(default_factory=dict)


def shuffled_rounds(things: list[T], number: int, rng: random.Random) -> Iterator[T]:
    """Yield `number` things, in rounds over all of them that are shuffled anew."""
    for index in range(number):
        if index % len(things) == 0:
            rng.shuffle(things)
        yield things[index % len(things)]


def check_empty_folder(out: Path) -> None:
    """Check that a folder is missing or empty.

    Raises:
        UsageError: it is not.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and isn't an empty folder; delete it or choose another")


def write_captioned_folder(
    out: Path,
    pictures: Iterable[CaptionedPicture],
    *,
    total: int,
    description: dict[str, Any],
    credits: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write pictures and their captions into a new folder that `cogview tokenize` reads.

    Args:
        out: the folder to make; it must not exist, or be empty.
        pictures: in order.
        total: number of pictures.
        description: contents of `data-config.json`.
        credits: authors and licences, for `CREDITS.txt`.
        progress: called with (pictures done, pictures in all).

    Raises:
        UsageError: `out` already holds something.
        CogViewError: the disk refuses.
    """
    check_empty_folder(out)
    lines: list[str] = []
    try:
        with atomic_folder(out) as folder:
            for number, picture in enumerate(pictures):
                name = f"images/{picture.split}-{number // PICTURES_PER_FOLDER:03d}/{number:07d}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                picture.image.save(folder / name, "PNG", compress_level=PNG_COMPRESS_LEVEL)
                record = {
                    "file_name": name,
                    "texts": picture.texts,
                    "split": picture.split,
                    **picture.facts,
                }
                lines.append(json.dumps(record, ensure_ascii=False) + "\n")
                if progress is not None and (number % 100 == 99 or number == total - 1):
                    progress(number + 1, total)
            atomic_write_text(folder / METADATA, "".join(lines))
            atomic_write_json(folder / "data-config.json", description)
            atomic_write_text(folder / CREDITS_FILE, credits)
    except OSError as error:
        raise CogViewError(
            f"{out} cannot be written ({error}); free some space or choose another folder"
        ) from error
