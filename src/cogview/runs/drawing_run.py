"""Drawing of many texts into a folder, each picture written as soon as it is done."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

from cogview.generation.blank_pictures import is_blank, warn_of_blank_pictures
from cogview.generation.contact_sheet import Pages, contact_sheet, save_sheet
from cogview.generation.picture_events import CodesDrawn, GeneratedImage, PictureDone
from cogview.generation.picture_stream import picture_events
from cogview.generation.picture_task import PictureTask, Prompt
from cogview.generation.previews import PreviewOptions
from cogview.image.picture_reading import enlarged, read_image
from cogview.runs.drawing_display import Display
from cogview.runs.drawing_options import DrawPicturesOptions
from cogview.runs.picture_folder import PictureFolder, save_picture
from cogview.runs.prompts import Prompts


@dataclass(kw_only=True)
class Work:
    """Amount of drawing and its time.

    Args:
        num_pictures: finished pictures.
        num_codes: drawn codes, those of rejected candidates included.
        num_passes: passes of the drawing transformer, for all pictures together.
        seconds: from the first text to the last picture.
    """

    num_pictures: int = 0
    num_codes: int = 0
    num_passes: int = 0
    seconds: float = 0.0
    _num_kept_codes: int = 0
    _num_own_passes: int = 0

    def add(self, picture: GeneratedImage) -> None:
        """Count a picture."""
        self.num_pictures += 1
        self._num_kept_codes += picture.codes.numel()
        self._num_own_passes += picture.num_passes

    @property
    def codes_per_pass(self) -> float:
        """Mean codes of one picture in each pass that includes it."""
        return self._num_kept_codes / max(self._num_own_passes, 1)

    @property
    def line(self) -> str:
        """Summary for people."""
        pictures = f"{self.num_pictures:,} picture{'s' * (self.num_pictures != 1)}"
        return (
            f"{pictures} in {self.seconds:.1f} s ({self.num_pictures / max(self.seconds, 1e-9):.2f} a second): "
            f"{self.num_passes:,} passes, {self.codes_per_pass:.1f} codes of a picture in each"
        )

    def facts(self) -> dict[str, Any]:
        """Return the summary for programs."""
        return {
            "pictures": self.num_pictures,
            "codes": self.num_codes,
            "passes": self.num_passes,
            "codes_per_pass": round(self.codes_per_pass, 2),
            "seconds": round(self.seconds, 3),
        }


@dataclass(kw_only=True, eq=False)
class DrawingRun:
    """A run that draws texts into a folder.

    A unit of resumable work is one picture, or all kept pictures of a text if they are ranked.

    Args:
        options: of the run.
        task: draws.
        prompts: the texts.
        seed: seed of each text's first candidate.
        settings: metadata of a picture's file beside its text and seed.
        folder: holds the pictures.

    Attributes:
        sheets: the contact sheets written so far.
        work: amount of drawing so far.
    """

    options: DrawPicturesOptions
    task: PictureTask
    prompts: Prompts
    seed: int
    settings: dict[str, Any]
    folder: PictureFolder
    sheets: list[Path] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    _is_plain: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def num_kept(self) -> int:
        """Kept pictures per text."""
        return self.task.num_kept(self.options.num_candidates)

    @property
    def is_ranked(self) -> bool:
        """Whether the candidates of a text are ranked."""
        return self.task.ranking is not None

    def draw(self, displays: Sequence[Display], previews: PreviewOptions | None = None) -> None:
        """Draw the missing pictures.

        Args:
            displays: called with each prompt and event.
            previews: how often unfinished pictures are shown.
        """
        engine = self.task.codes.runner.engine
        start, num_before = time.monotonic(), engine.num_passes
        ranked: dict[int, dict[int, dict[str, Any]]] = {}
        sheets = self._sheets()
        next(sheets)
        with closing(picture_events(self.task, self._prompts(displays), previews)) as events:
            for event in events:
                for display in displays:
                    display(event)
                if isinstance(event, CodesDrawn):
                    self.work.num_codes += event.num_codes
                elif isinstance(event, PictureDone):
                    self.work.add(event.picture)
                    self._is_plain.setdefault(event.picture.text, []).append(is_blank(event.picture.image))
                    self._keep(event, ranked)
                    next(sheets)
        self.work.seconds = time.monotonic() - start
        self.work.num_passes = engine.num_passes - num_before

    def warn(self) -> None:
        """Warn of texts whose pictures are all of one colour."""
        texts = [text for text, are_plain in self._is_plain.items() if all(are_plain)]
        warn_of_blank_pictures(texts, self.task.codes.sampling.top_p)

    def _keep(self, event: PictureDone, ranked: dict[int, dict[int, dict[str, Any]]]) -> None:
        """Write a picture and record its unit of work once that is complete."""
        picture, index = self._saved(event.picture, event.text_index + 1), event.text_index
        if not self.is_ranked:
            self.folder.keep(self._unit(index, event.picture.seed), [picture])
            return
        kept = ranked.setdefault(index, {})
        kept[event.place] = picture
        if len(kept) == self.num_kept:
            del ranked[index]
            self.folder.keep(index, [kept[place] for place in sorted(kept)])

    def _unit(self, text_index: int, seed: int) -> int:
        """Return the number of a picture's unit of work."""
        return text_index if self.is_ranked else text_index * self.options.num_candidates + seed - self.seed

    @property
    def num_left(self) -> int:
        """Pictures that were missing at the start."""
        return max(len(self.prompts) * self.num_kept - self.folder.num_kept, 0)

    @property
    def num_codes_left(self) -> int:
        """Codes to draw for them."""
        return self.task.num_codes(self.options.num_candidates) * self.num_left // self.num_kept

    def _prompts(self, displays: Sequence[Display]) -> Iterator[Prompt]:
        """Yield the texts with missing pictures."""
        for index, text in enumerate(self.prompts):
            seeds: Sequence[int] = range(self.seed, self.seed + self.options.num_candidates)
            if self.is_ranked:
                lacking = seeds if self.folder.pictures(index) is None else ()
            else:
                lacking = [seed for seed in seeds if self.folder.pictures(self._unit(index, seed)) is None]
            if lacking:
                (prompt,) = self.task.prompts([text], lacking, index)
                for display in displays:
                    display(prompt)
                yield prompt

    def _sheets(self) -> Iterator[None]:
        """Write all contact sheets whose pictures are complete, at each step of the iterator."""
        template = self.task.codes.template
        height = self.task.size_pixels * template.grid_rows // max(template.grid_rows, template.grid_columns)
        pages = Pages.of(self.num_kept, height * self.options.sheet_scale, noted=self.is_ranked)
        num_pages = -(-len(self.prompts) // pages.texts_per_page) * len(pages.sizes)
        sizes = cycle(pages.sizes)
        size = next(sizes)
        waiting: list[dict[str, Any]] = []
        for unit in range(len(self.prompts) * (1 if self.is_ranked else self.options.num_candidates)):
            while (pictures := self.folder.pictures(unit)) is None:
                yield
            waiting += pictures
            while len(waiting) >= size:
                self._add_sheet(waiting[:size], num_pages)
                waiting, size = waiting[size:], next(sizes)
        if waiting:
            self._add_sheet(waiting, num_pages)
        while True:
            yield

    def _saved(self, picture: GeneratedImage, number: int) -> dict[str, Any]:
        """Write one picture with the settings that reproduce it, and return its facts."""
        facts: dict[str, Any] = {"text": picture.text, "seed": picture.seed}
        for name in ("caption_loss", "fit_loss", "drawn_text"):
            if (value := getattr(picture, name)) is not None:
                facts[name] = value
        width = max(2, len(str(len(self.prompts))))
        path = self.folder.path / f"{number:0{width}d}-{_slug(picture.text)}-seed{picture.seed}.png"
        save_picture(picture.image, path, picture.text, facts | self.settings)
        return {"path": path, "number": number, **facts}

    def _add_sheet(self, pictures: Sequence[dict[str, Any]], num_pages: int) -> None:
        name = "contact-sheet.png" if num_pages == 1 else f"contact-sheet-{len(self.sheets) + 1}.png"
        path = self.folder.path / name
        self.sheets.append(path)
        if path.exists():
            return
        rows = [list(row) for _, row in groupby(pictures, key=lambda picture: picture["number"])]
        images = [
            [enlarged(read_image(picture["path"]), self.options.sheet_scale) for picture in row]
            for row in rows
        ]
        notes = None
        if self.is_ranked:
            notes = [[f"{loss_of(picture)[1]:.3f}" for picture in row] for row in rows]
        captions = [row[0]["text"] for row in rows]
        save_sheet(contact_sheet(images, captions, rows[0][0]["number"], notes), path)


def loss_of(picture: Mapping[str, Any]) -> tuple[str, float]:
    """Return the name and value of a picture's ranking loss; the name is empty if it was not ranked."""
    for name, key in (("CapLoss", "caption_loss"), ("fit", "fit_loss")):
        if key in picture:
            return name, picture[key]
    return "", 0.0


def _slug(text: str) -> str:
    """Return the beginning of a text as a file name: letters and digits of any script."""
    return re.sub(r"\W+", "-", text)[:40].strip("-_") or "text"
