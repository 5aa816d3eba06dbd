"""What `cogview generate` writes: a file a candidate, contact sheets, and lines for people."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.cli.drawn_pictures import save_picture

if TYPE_CHECKING:
    from cogview.generation.pipeline import GeneratedImage


def save_candidate(
    picture: "GeneratedImage", folder: Path, number: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Write one picture with the settings that draw it again from the same weights, and return what to report of it."""
    facts: dict[str, Any] = {"text": picture.text, "seed": picture.seed}
    if picture.caption_loss is not None:
        facts["caption_loss"] = picture.caption_loss
    if picture.drawn_text is not None:
        facts["drawn_text"] = picture.drawn_text
    path = folder / f"{number:02d}-{_slug(picture.text)}-seed{picture.seed}.png"
    save_picture(picture.image, path, picture.text, facts | settings)
    return {"path": path, "number": number, **facts}


def _slug(text: str) -> str:
    """Return the beginning of a text as a part of a file name: letters and digits of any script."""
    return re.sub(r"\W+", "-", text)[:40].strip("-_") or "text"


def save_contact_sheet(
    rows: "Sequence[Sequence[GeneratedImage]]", texts: Sequence[str], path: Path, first_number: int
) -> None:
    """Write the contact sheet of some texts."""
    from cogview.files import atomic_write_bytes
    from cogview.generation.contact_sheet import contact_sheet

    data = io.BytesIO()
    images = [[picture.image for picture in row] for row in rows]
    notes = None
    if rows[0][0].caption_loss is not None:
        notes = [[f"{picture.caption_loss:.3f}" for picture in row] for row in rows]
    contact_sheet(images, texts, first_number, notes).save(data, "PNG")
    atomic_write_bytes(path, data.getvalue())


def lines_of(pictures: Sequence[dict[str, Any]], sheets: Sequence[Path]) -> list[str]:
    """Return the result for people: each text with the number it has on the contact sheet, and its pictures."""
    lines: list[str] = []
    for number, row in itertools.groupby(pictures, key=lambda picture: picture["number"]):
        same_text = list(row)
        lines.append(f"{number}. {same_text[0]['text']}")
        for picture in same_text:
            drawn = f" ({picture['drawn_text']})" if "drawn_text" in picture else ""
            loss = f"  CapLoss {picture['caption_loss']:.3f}" if "caption_loss" in picture else ""
            lines.append(f"   {picture['path']}{drawn}{loss}")
    return [*lines, *(f"contact sheet: {sheet}" for sheet in sheets)]
