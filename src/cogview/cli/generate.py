"""`cogview generate`: draws pictures for texts."""

import json
import sys
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from cogview.errors import printable
from cogview.runs.drawing_options import DrawPicturesOptions
from cogview.runs.flags import FLAT

if TYPE_CHECKING:
    from cogview.runs.drawing_run import DrawingRun

_MAX_SHOWN = 300  # characters of a text, to people


def run(options: Annotated[DrawPicturesOptions, FLAT], *, json: bool = False) -> None:
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


def _print_json(drawn: "DrawingRun") -> None:
    """Print the result for programs, picture by picture."""
    head = {
        "folder": drawn.folder.path,
        "seed": drawn.seed,
        "contact_sheets": drawn.sheets,
        "drawing": drawn.work.facts(),
    }
    print(_as_json(head)[:-1], end=', "pictures": [')
    for index, picture in enumerate(drawn.folder.all_pictures()):
        print(", " * (index > 0) + _as_json(picture), end="")
    print("]}")


def _as_json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, default=str)


def _print_lines(drawn: "DrawingRun") -> None:
    """Print the result for people, picture by picture."""
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
