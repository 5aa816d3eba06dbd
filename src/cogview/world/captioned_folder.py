"""Writes a folder of captioned pictures, whole or not at all."""

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
    """One picture with what is said of it.

    Args:
        image: the picture.
        texts: captions.
        split: where it belongs.
        facts: what else is known of it, as plain data.
    """

    image: Image.Image
    texts: list[str]
    split: str
    facts: dict[str, Any] = field(default_factory=dict)


def in_turn(things: list[T], number: int, rng: random.Random) -> Iterator[T]:
    """Yield so many of some things: each once a round, in another order each round."""
    for index in range(number):
        if index % len(things) == 0:
            rng.shuffle(things)
        yield things[index % len(things)]


def refuse_filled(out: Path) -> None:
    """Refuse a folder that already holds something.

    Raises:
        UsageError: it does.
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
        pictures: in their order.
        total: how many there are.
        description: what the folder holds, for `data-config.json`.
        credits: whose work it is and under which terms, for `CREDITS.txt`.
        progress: called with (pictures done, pictures in all).

    Raises:
        UsageError: `out` already holds something.
        CogViewError: the disk refuses.
    """
    refuse_filled(out)
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
