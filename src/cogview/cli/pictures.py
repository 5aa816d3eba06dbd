"""`cogview generate`, `caption`, `rank` and `upscale`: pictures are drawn, looked at, and drawn again."""

import json
import sys
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cogview.cli.report import print_above_bars, print_result
from cogview.errors import printable
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

    Each call writes its pictures, and contact sheets of them all, into a new numbered folder and prints their paths. A
    picture is written as soon as it is done; if the command is stopped or killed, the same command goes on there. A
    picture's file holds its text, its seed and the other settings.

    Args:
        options: what is drawn, how, and where to.
        json: print the result as JSON.
    """
    from cogview.runs.draw_pictures import draw_pictures

    with draw_pictures(options) as drawn:
        if drawn.work.num_pictures:
            print(f"cogview: {drawn.work.line}", file=sys.stderr)
        if json:
            _print_json(drawn)
        else:
            _print_lines(drawn)


def caption(options: Annotated[CaptionPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Write captions of pictures.

    Captions are printed as they are written. A picture that cannot be read is warned of and left out; the command then
    ends with exit code 1. Contact sheets are passed over.

    Args:
        options: which pictures, and how.
        json: print the result as JSON.
    """
    from cogview.runs.caption_and_rank import caption_pictures

    captions, told = caption_pictures(options, None if json else _print_captions)
    if json:
        pictures = [{"path": path, "captions": [*map(asdict, found)]} for path, found in captions.items()]
        print_result({"pictures": pictures, **told.facts()}, [], json)
    told.refuse_problems()


def rank(options: Annotated[RankPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Order pictures by how well a text fits them, the best first.

    The number beside a picture is CapLoss: what the text costs after the picture, in nats per piece. A picture that
    cannot be read is warned of and left out; the command then ends with exit code 1.

    Args:
        options: which pictures, and the text.
        json: print the result as JSON.
    """
    from cogview.runs.caption_and_rank import rank_pictures
    from cogview.runs.prompts import as_text

    losses, told = rank_pictures(options)
    pictures = [{"path": path, "caption_loss": loss} for path, loss in losses.items()]
    lines = [f"{loss:.3f}  {path}" for path, loss in losses.items()]
    print_result({"text": as_text(options.text), "pictures": pictures, **told.facts()}, lines, json)
    told.refuse_problems()


def upscale(options: Annotated[UpscalePicturesOptions, FLAT], *, json: bool = False) -> None:
    """Draw pictures again at twice or four times the size that the model encodes.

    The image tokenizer's decoder for that size draws them, if it has one; an upscaler, if one is named or there is no
    such decoder. Pictures of another world than the model's, photographs for instance, are refused: either draws only
    what the image tokenizer keeps of them.

    Each call writes its pictures into a new numbered folder and prints their paths; if it is stopped or killed, the
    same command goes on there. A picture that cannot be read is warned of and left out; the command then ends with exit
    code 1.

    Args:
        options: which pictures, how, and where to.
        json: print the result as JSON.
    """
    from cogview.runs.upscale_pictures import upscale_pictures

    pictures, told = upscale_pictures(options)
    facts = {"folder": pictures[0]["path"].parent, "pictures": pictures, **told.facts()}
    print_result(facts, [str(each["path"]) for each in pictures], json)
    told.refuse_problems()


def _print_json(drawn: "DrawingRun") -> None:
    """Print what was drawn for programs, picture by picture."""
    head = {
        "folder": drawn.folder.path,
        "seed": drawn.seed,
        "contact_sheets": drawn.sheets,
        "drawing": drawn.work.facts(),
    }
    as_json = partial(json.dumps, ensure_ascii=False, default=str)
    print(as_json(head)[:-1], end=', "pictures": [')
    for index, picture in enumerate(drawn.folder.all_pictures()):
        print(", " * (index > 0) + as_json(picture), end="")
    print("]}")


def _print_lines(drawn: "DrawingRun") -> None:
    """Print what was drawn for people, picture by picture."""
    from cogview.runs.drawing_run import loss_of

    for number, row in groupby(drawn.folder.all_pictures(), key=lambda picture: picture["number"]):
        for index, picture in enumerate(row):
            if not index:
                text = picture["text"]
                shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
                print(f"{number}. {printable(shown)}")
            read = f" ({picture['drawn_text']})" if "drawn_text" in picture else ""
            name, loss = loss_of(picture)
            told = f"  {name} {loss:.3f}" if name else ""
            print(printable(f"   {picture['path']}{read}{told}"))
    for sheet in drawn.sheets:
        print(printable(f"contact sheet: {sheet}"))


def _print_captions(path: Path, captions: "list[Caption]") -> None:
    """Print a picture for people, and its captions with their losses."""
    print_above_bars([str(path), *(f"   {each.caption_loss:.3f}  {each.text}" for each in captions)])
