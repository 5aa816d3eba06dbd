"""Progress bars of pictures, and a contact sheet that grows while they are drawn."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from PIL import Image
from tqdm import tqdm

from cogview.errors import UsageError
from cogview.generation.contact_sheet import contact_sheet, is_contact_sheet, save_sheet
from cogview.generation.picture_events import CodesDrawn, PictureDone, PictureEvent, PicturePreview
from cogview.generation.picture_task import Prompt
from cogview.generation.previews import GREY
from cogview.runs.progress_bar import progress_bar

_MAX_NAME = 24  # characters of a text beside its bar
_MAX_TEXTS = 16  # on a sheet that grows
_SECONDS_BETWEEN = 0.1  # two pictures of a bar
_MAX_SHARE = 0.03  # of the time, for writing it

Display: TypeAlias = Callable[[Prompt | PictureEvent], None]
"""Called with each prompt as its drawing begins, and with each event."""


@contextmanager
def progress_display(num_pictures: int, num_codes: int, codes_per_picture: int) -> Iterator[Display]:
    """Show progress: a bar for each picture on a terminal, a line now and then elsewhere.

    Args:
        num_pictures: pictures to draw.
        num_codes: codes to draw for them.
        codes_per_picture: codes of a candidate before ranking and upscaling.
    """
    if sys.stderr.isatty():
        with closing(PictureBars(num_pictures, codes_per_picture)) as bars:
            yield bars.update
        return
    num_done = 0
    with progress_bar("drawing", "codes") as move:

        def count_codes(event: Prompt | PictureEvent) -> None:
            nonlocal num_done
            if isinstance(event, CodesDrawn):
                num_done += event.num_codes
                move(num_done, max(num_done, num_codes))

        yield count_codes


class PictureBars:
    """A bar for each picture being drawn, below one for all with pictures per second.

    Args:
        num_pictures: pictures to draw.
        codes_per_picture: codes of a candidate; those after them are upscaling.
    """

    def __init__(self, num_pictures: int, codes_per_picture: int) -> None:
        self._codes_per_picture = codes_per_picture
        self._names: dict[int, str] = {}
        self._nums: dict[tuple[int, int], int] = {}
        self._bars: dict[tuple[int, int], tqdm] = {}
        self._all = tqdm(
            desc="drawing",
            unit=" pictures",
            total=num_pictures,
            file=sys.stderr,
            position=0,
            mininterval=_SECONDS_BETWEEN,
        )

    def close(self) -> None:
        """Leave the last state on the terminal."""
        for bar in self._bars.values():
            bar.close()
        self._all.close()

    def update(self, event: Prompt | PictureEvent) -> None:
        """Update the bars."""
        if isinstance(event, Prompt):
            text = " ".join(event.text.split())
            shown = text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…"
            self._names[event.index] = f"{event.index + 1}. {shown}"
        elif isinstance(event, CodesDrawn):
            key = event.text_index, event.seed
            num = self._nums[key] = self._nums.get(key, 0) + event.num_codes
            if num <= self._codes_per_picture:
                self._bar(key).update(event.num_codes)
            if num >= self._codes_per_picture and key in self._bars:
                self._bars.pop(key).close()
        elif isinstance(event, PictureDone):
            self._all.update(1)

    def _bar(self, key: tuple[int, int]) -> tqdm:
        if key not in self._bars:
            taken = {-bar.pos for bar in self._bars.values()}
            position = next(place for place in range(1, len(taken) + 2) if place not in taken)
            self._bars[key] = tqdm(
                desc=f"  {self._names[key[0]]}, seed {key[1]}",
                unit=" codes",
                total=self._codes_per_picture,
                file=sys.stderr,
                position=position,
                leave=False,
                mininterval=_SECONDS_BETWEEN,
            )
        return self._bars[key]


class PreviewSheet:
    """A contact sheet of the latest texts, with their unfinished candidates.

    Args:
        path: its file, replaced whole each time.
        size: width and height of a picture on it.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self._path = path
        self._size = size
        self._texts: dict[int, str] = {}
        self._images: dict[int, dict[int, Image.Image]] = {}
        self._is_new = False
        self._next = 0.0

    def _begin(self, prompt: Prompt) -> None:
        """Show a text's candidates as blanks, and drop the first texts if there are many."""
        self._texts[prompt.index] = prompt.text
        blank = Image.new("RGB", self._size, (GREY,) * 3)
        self._images[prompt.index] = dict.fromkeys(prompt.seeds, blank)
        for index in list(islice(self._texts, max(len(self._texts) - _MAX_TEXTS, 0))):
            del self._texts[index], self._images[index]

    def _show(self, text_index: int, seed: int, image: Image.Image) -> None:
        if text_index in self._images:
            self._images[text_index][seed] = image.resize(self._size, Image.Resampling.LANCZOS)
            self._is_new = True

    def update(self, event: Prompt | PictureEvent) -> None:
        """Update the sheet; previews and finished pictures are shown at once."""
        if isinstance(event, Prompt):
            self._begin(event)
        elif isinstance(event, PicturePreview):
            self._show(event.text_index, event.seed, event.image)
        elif isinstance(event, PictureDone):
            self._show(event.text_index, event.picture.seed, event.picture.image)
        elif time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the sheet if it has changed."""
        if not self._is_new:
            return
        start = time.monotonic()
        rows: Sequence[Sequence[Image.Image]] = [list(row.values()) for row in self._images.values()]
        sheet = contact_sheet(rows, list(self._texts.values()), min(self._texts) + 1)
        try:
            save_sheet(sheet, self._path)
        except OSError as error:
            raise UsageError(
                f"--preview {self._path} cannot be written ({error.strerror}): give another name"
            ) from error
        self._is_new = False
        now = time.monotonic()
        self._next = now + (now - start) / _MAX_SHARE


def check_preview(path: Path) -> None:
    """Refuse a path that no preview sheet can be written to.

    Raises:
        UsageError: it is not named .png, something else lies there, or its folder is missing.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--preview {path} must be a PNG: give a name that ends in .png")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for --preview: make it, or give another")
    if path.exists() and not is_contact_sheet(path):
        raise UsageError(f"--preview {path} is there already and is not a contact sheet: give another name")
