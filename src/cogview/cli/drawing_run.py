"""The run of `cogview generate`: draws share by share, and writes each picture as soon as it is done."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.cli.drawn_pictures import PictureFolder, save_picture
from cogview.cli.prompts import Prompts
from cogview.errors import printable

if TYPE_CHECKING:
    from cogview.generation.pipeline import GeneratedImage, Pipeline

_PICTURES_AT_ONCE = 16  # which the engine draws together
_MAX_SHOWN = 300  # characters of a text, to people
_CANDIDATES_AT_ONCE = 64  # where what is kept of them is then magnified together


@dataclass(frozen=True, kw_only=True)
class Share:
    """Pictures that are drawn together.

    Args:
        first_number: of its texts, from 1.
        texts: of consecutive numbers.
        first_candidate: of each text, from 0.
        num_candidates: of each text.
    """

    first_number: int
    texts: Sequence[str]
    first_candidate: int
    num_candidates: int


def shares_of(
    prompts: Prompts, num_candidates: int, num_kept: int, *, is_ranked: bool, is_magnified: bool
) -> Iterator[Share]:
    """Yield all pictures in their order, in shares that fill a batch; what is ranked together is one share.

    Args:
        prompts: the texts.
        num_candidates: of each text.
        num_kept: of these.
        is_ranked: whether all candidates of a text have to be known.
        is_magnified: whether those that are kept are drawn again, larger.
    """
    at_once = num_candidates if is_ranked else min(num_candidates, _PICTURES_AT_ONCE)
    num_texts = _PICTURES_AT_ONCE // num_candidates
    if is_magnified:
        num_texts = min(_PICTURES_AT_ONCE // num_kept, _CANDIDATES_AT_ONCE // num_candidates)
    texts, first_number = iter(prompts), 1
    while part := list(islice(texts, max(1, num_texts))):
        for first in range(0, num_candidates, at_once):
            yield Share(
                first_number=first_number,
                texts=part,
                first_candidate=first,
                num_candidates=min(at_once, num_candidates - first),
            )
        first_number += len(part)


@dataclass(kw_only=True, eq=False)
class DrawingRun:
    """What `cogview generate` was asked for.

    Args:
        pipeline: draws.
        prompts: the texts.
        num_candidates: of each text.
        keep: how many of them are kept; all if None.
        is_ranked: whether they are ranked.
        seed: of the first candidate of each text.
        options: further arguments of `Pipeline.generate`.
        settings: what a picture's file says beside its text and seed.
        folder: where the pictures go.
        picture_height: in pixels.
        sheet_scale: how many times as large pictures are shown on contact sheets.

    Attributes:
        sheets: the contact sheets, as far as they are written.
    """

    pipeline: "Pipeline"
    prompts: Prompts
    num_candidates: int
    keep: int | None
    is_ranked: bool
    seed: int
    options: dict[str, Any]
    settings: dict[str, Any]
    folder: PictureFolder
    picture_height: int
    sheet_scale: int = 1
    sheets: list[Path] = field(default_factory=list)

    @property
    def num_kept(self) -> int:
        """Pictures that are kept of each text."""
        return self.num_candidates if self.keep is None else self.keep

    def draw(self, move: Callable[[int, int], None]) -> None:
        """Draw what is not there yet.

        Args:
            move: called with the numbers of codes that are drawn and to be drawn.
        """
        from cogview.generation.contact_sheet import Pages

        pages = Pages.of(self.num_kept, self.picture_height * self.sheet_scale, noted=self.is_ranked)
        num_pages = -(-len(self.prompts) // pages.texts_per_page) * len(pages.sizes)
        sizes = cycle(pages.sizes)
        size = next(sizes)
        num_left = len(self.prompts) * self.num_candidates
        num_left -= self.folder.num_kept * self.num_candidates // self.num_kept
        num_done = 0
        waiting: list[dict[str, Any]] = []
        for number, share in enumerate(self._shares()):
            pictures = self.folder.pictures(number)
            if pictures is None:
                num_here = len(share.texts) * share.num_candidates

                def progress(done: int, here: int, before: int = num_done, pictures: int = num_here) -> None:
                    each = here // pictures
                    move(before * each + done, max(num_left, before + pictures) * each)

                pictures = self._drawn(share, progress)
                self.folder.keep(number, pictures)
                num_done += num_here
            waiting += pictures
            while len(waiting) >= size:
                self._add_sheet(waiting[:size], num_pages)
                waiting, size = waiting[size:], next(sizes)
        if waiting:
            self._add_sheet(waiting, num_pages)

    def _shares(self) -> Iterator[Share]:
        return shares_of(
            self.prompts,
            self.num_candidates,
            self.num_kept,
            is_ranked=self.is_ranked,
            is_magnified=self.options["upscale"] > 1,
        )

    def _drawn(self, share: Share, progress: Callable[[int, int], None]) -> list[dict[str, Any]]:
        """Draw and write a share of the pictures."""
        rows = self.pipeline.generate(
            list(share.texts),
            share.num_candidates,
            self.keep if self.is_ranked else None,
            self.seed + share.first_candidate,
            progress=progress,
            **self.options,
        )
        return [
            self._saved(picture, number)
            for number, row in enumerate(rows, start=share.first_number)
            for picture in row
        ]

    def _saved(self, picture: "GeneratedImage", number: int) -> dict[str, Any]:
        """Write one picture with the settings that draw it again from the same weights; return what to report of it."""
        facts: dict[str, Any] = {"text": picture.text, "seed": picture.seed}
        if picture.caption_loss is not None:
            facts["caption_loss"] = picture.caption_loss
        if picture.fit_loss is not None:
            facts["fit_loss"] = picture.fit_loss
        if picture.drawn_text is not None:
            facts["drawn_text"] = picture.drawn_text
        width = max(2, len(str(len(self.prompts))))
        path = self.folder.path / f"{number:0{width}d}-{_slug(picture.text)}-seed{picture.seed}.png"
        save_picture(picture.image, path, picture.text, facts | self.settings)
        return {"path": path, "number": number, **facts}

    def _add_sheet(self, pictures: Sequence[dict[str, Any]], num_pages: int) -> None:
        """Write the next contact sheet, unless it is there."""
        from cogview.generation.contact_sheet import contact_sheet, save_sheet
        from cogview.image.pixels import enlarged, read_image

        name = "contact-sheet.png" if num_pages == 1 else f"contact-sheet-{len(self.sheets) + 1}.png"
        path = self.folder.path / name
        self.sheets.append(path)
        if path.exists():
            return
        rows = [list(row) for _, row in groupby(pictures, key=lambda picture: picture["number"])]
        images = [
            [enlarged(read_image(picture["path"]), self.sheet_scale) for picture in row] for row in rows
        ]
        notes = None
        if self.is_ranked:
            notes = [[f"{_loss_of(picture)[1]:.3f}" for picture in row] for row in rows]
        captions = [row[0]["text"] for row in rows]
        save_sheet(contact_sheet(images, captions, rows[0][0]["number"], notes), path)


def print_pictures(run: DrawingRun, as_json: bool) -> None:
    """Print the result, picture by picture.

    Args:
        run: that is done.
        as_json: for programs instead of people.
    """
    folder = run.folder
    if as_json:
        head = {"folder": folder.path, "seed": run.seed, "contact_sheets": run.sheets}
        print(json.dumps(head, ensure_ascii=False, default=str)[:-1], end=', "pictures": [')
        for index, picture in enumerate(folder.all_pictures()):
            print(", " * (index > 0) + json.dumps(picture, ensure_ascii=False, default=str), end="")
        print("]}")
        return
    for number, row in groupby(folder.all_pictures(), key=lambda picture: picture["number"]):
        for index, picture in enumerate(row):
            if not index:
                text = picture["text"]
                shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
                print(f"{number}. {printable(shown)}")
            drawn = f" ({picture['drawn_text']})" if "drawn_text" in picture else ""
            name, loss = _loss_of(picture)
            told = f"  {name} {loss:.3f}" if name else ""
            print(printable(f"   {picture['path']}{drawn}{told}"))
    for sheet in run.sheets:
        print(printable(f"contact sheet: {sheet}"))


def _loss_of(picture: Mapping[str, Any]) -> tuple[str, float]:
    """Return the name and the value of what a picture was ranked by; no name if it was not."""
    for name, key in (("CapLoss", "caption_loss"), ("fit", "fit_loss")):
        if key in picture:
            return name, picture[key]
    return "", 0.0


def _slug(text: str) -> str:
    """Return the beginning of a text as a part of a file name: letters and digits of any script."""
    return re.sub(r"\W+", "-", text)[:40].strip("-_") or "text"
