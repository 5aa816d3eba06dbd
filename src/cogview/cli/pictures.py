"""Verbs `cogview generate`, `caption`, `rank` and `upscale`."""

import json
import string
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cogview.cli.report import print_above_bars, print_result
from cogview.errors import printable, shortened
from cogview.runs.drawing_options import (
    CaptionPicturesOptions,
    DrawPicturesOptions,
    RankPicturesOptions,
    UpscalePicturesOptions,
)
from cogview.runs.flags import FLAT

if TYPE_CHECKING:
    from cogview.generation.captioner import Caption
    from cogview.runs.drawing_run import DrawingRun

_MAX_SHOWN = 300  # characters of a text, to people


def generate(options: Annotated[DrawPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Draw pictures for texts.

    Each call writes pictures and contact sheets into a new numbered folder and prints their paths. A picture is written
    as soon as it is done; a stopped or killed command is resumed by the same command. Files contain text, seed and the
    other settings.

    Args:
        options: prompts, settings and output folder.
        json: print the result as JSON.
    """
    from cogview.runs.draw_pictures import draw_pictures

    _tell_lone_words(options.texts)
    with draw_pictures(options) as drawing:
        if drawing.work.num_pictures:
            print(f"cogview: {drawing.work.line}", file=sys.stderr)
        if json:
            _print_json(drawing)
        else:
            _print_lines(drawing)


def caption(options: Annotated[CaptionPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Write captions of pictures.

    Captions are printed as they are written. Unreadable pictures are skipped with a warning, and the exit code is 1.
    Contact sheets are skipped.

    Args:
        options: pictures and settings.
        json: print the result as JSON.
    """
    from cogview.runs.caption_and_rank import caption_pictures

    captions, problems = caption_pictures(options, None if json else _print_captions)
    if json:
        pictures = [{"path": path, "captions": [*map(asdict, texts)]} for path, texts in captions.items()]
        print_result({"pictures": pictures, **problems.facts()}, [], json)
    problems.refuse_problems()


def rank(options: Annotated[RankPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Rank pictures by how well a text fits them, best first.

    The number beside a picture is CapLoss: the loss of the text after the picture, in nats per piece. Unreadable
    pictures are skipped with a warning, and the exit code is 1.

    Args:
        options: pictures and text.
        json: print the result as JSON.
    """
    _tell_words_for_pictures(options.text, options.pictures)
    from cogview.runs.caption_and_rank import rank_pictures
    from cogview.runs.prompts import as_text

    losses, problems = rank_pictures(options)
    pictures = [{"path": path, "caption_loss": loss} for path, loss in losses.items()]
    lines = [f"{loss:.3f}  {path}" for path, loss in losses.items()]
    print_result({"text": as_text(options.text), "pictures": pictures, **problems.facts()}, lines, json)
    problems.refuse_problems()


def upscale(options: Annotated[UpscalePicturesOptions, FLAT], *, json: bool = False) -> None:
    """Draw pictures at twice or four times the size that the model encodes.

    Uses the image tokenizer's decoder for that size; an upscaler, if one is named or there is no such decoder. Refuses
    pictures unlike its training data, such as photographs: the image tokenizer loses most of them.

    Each call writes pictures into a new numbered folder and prints their paths; a stopped or killed command is resumed
    by the same command. Unreadable pictures are skipped with a warning, and the exit code is 1.

    Args:
        options: pictures, settings and output folder.
        json: print the result as JSON.
    """
    _tell_words_for_pictures(options.text, options.pictures)
    from cogview.runs.upscale_pictures import upscale_pictures

    pictures, problems = upscale_pictures(options)
    facts = {"folder": pictures[0]["path"].parent, "pictures": pictures, **problems.facts()}
    print_result(facts, [str(each["path"]) for each in pictures], json)
    problems.refuse_problems()


def _tell_lone_words(texts: Sequence[str]) -> None:
    """Print a hint if several texts look like the words of one, without quotation marks."""
    if len(texts) > 1 and all(text.isascii() and not set(text) & set(string.whitespace) for text in texts):
        print(
            f"cogview: {len(texts)} texts are drawn, each of one word; for one text, use quotation marks: "
            f'"{printable(shortened(" ".join(texts)))}"',
            file=sys.stderr,
        )


def _tell_words_for_pictures(text: str, pictures: Sequence[Path]) -> None:
    """Print a hint if the first pictures look like words of the text, without quotation marks."""
    words = [
        str(path) for path in takewhile(lambda path: path.name.isalpha() and not path.exists(), pictures)
    ]
    if words:
        print(
            f"cogview: the text is {text!r}; for a longer one, use quotation marks: "
            f'"{printable(shortened(" ".join([text, *words])))}"',
            file=sys.stderr,
        )


def _print_json(drawing: "DrawingRun") -> None:
    """Print the result as JSON, picture by picture."""
    head = {
        "folder": drawing.folder.path,
        "seed": drawing.seed,
        "contact_sheets": drawing.sheets,
        "drawing": drawing.work.facts(),
    }
    as_json = partial(json.dumps, ensure_ascii=False, default=str)
    print(as_json(head)[:-1], end=', "pictures": [')
    for index, picture in enumerate(drawing.folder.all_pictures()):
        print(", " * (index > 0) + as_json(picture), end="")
    print("]}")


def _print_lines(drawing: "DrawingRun") -> None:
    """Print the result as text, picture by picture."""
    from cogview.runs.drawing_run import loss_of

    for number, row in groupby(drawing.folder.all_pictures(), key=lambda picture: picture["number"]):
        for index, picture in enumerate(row):
            if not index:
                text = picture["text"]
                short_text = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
                print(f"{number}. {printable(short_text)}")
            drawn_text = f" ({picture['drawn_text']})" if "drawn_text" in picture else ""
            name, loss = loss_of(picture)
            score = f"  {name} {loss:.3f}" if name else ""
            print(printable(f"   {picture['path']}{drawn_text}{score}"))
    for sheet in drawing.sheets:
        print(printable(f"contact sheet: {sheet}"))


def _print_captions(path: Path, captions: "list[Caption]") -> None:
    """Print a picture's path and its captions with their losses."""
    print_above_bars([str(path), *(f"   {each.caption_loss:.3f}  {each.text}" for each in captions)])
