"""Where drawn pictures go: a new numbered folder for each call, and files that say what they were drawn with."""

import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.errors import CogViewError

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def numbered_folder(parent: Path) -> Iterator[Path]:
    """Make and yield the next numbered folder in `parent`; remove it again if nothing came to lie in it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name) for path in parent.iterdir() if re.fullmatch(r"\d{3,9}", path.name)]
        for number in itertools.count(max(numbers, default=0) + 1):
            folder = parent / f"{number:03d}"
            with suppress(FileExistsError):  # another process took this number just now
                folder.mkdir()
                break
    except OSError as error:
        raise CogViewError(
            f"no folder for the pictures can be made in {parent} ({error.strerror}); give another with --out"
        ) from error
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def save_picture(image: "Image.Image", path: Path, text: str, facts: Mapping[str, Any]) -> None:
    """Write a picture as PNG, with what it was drawn for and with.

    Args:
        image: the picture.
        path: of its file.
        text: what it shows.
        facts: what draws it again from the same weights.
    """
    from PIL.PngImagePlugin import PngInfo

    import cogview
    from cogview.files import atomic_write_bytes

    info = PngInfo()
    info.add_itxt("Description", text)
    info.add_text("Software", f"cogview {cogview.__version__}")
    info.add_itxt("cogview", json.dumps(facts, ensure_ascii=False))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    atomic_write_bytes(path, data.getvalue())
