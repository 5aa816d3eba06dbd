"""One page of HTML that needs no other file: a template filled in, with pictures and plots that lie in the page."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from cogview.evaluation.plots import as_svg

# Texts of models, cards and captions are escaped; a name that is not given is an error.
_TEMPLATES = Environment(
    loader=PackageLoader("cogview.evaluation.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def render(template: str, **data: Any) -> str:
    """Return a page.

    Args:
        template: its file in `templates`.
        data: by the names that the template uses.
    """
    page = _TEMPLATES.get_template(template).render(data)
    # What came from a file or the command line may hold half surrogates, which UTF-8 does not have.
    return page.encode(errors="replace").decode()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that lies in the page itself.

    Args:
        source: the picture as a data URL.
        told: what it shows, for those who do not see it.
        width_pixels: as it lies in the page.
        height_pixels: likewise.
    """

    source: str
    told: str
    width_pixels: int
    height_pixels: int


def picture(image: Image.Image, told: str, max_pixels: int) -> Picture:
    """Return a picture for the page.

    Args:
        image: the picture.
        told: what it shows, for those who do not see it.
        max_pixels: its longest side; a larger one is made smaller.
    """
    shown = image.convert("RGB")
    shown.thumbnail((max_pixels, max_pixels), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    shown.save(data, "WEBP", quality=88, method=6)
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    return Picture(source=source, told=told, width_pixels=shown.width, height_pixels=shown.height)


def drawing(figure: Any, name: str, told: str) -> Markup | None:
    """Return a figure of matplotlib as SVG in the colours of the page, its texts escaped.

    Args:
        figure: the figure; None where there is none, without matplotlib for instance.
        name: tells the names within it from those of others on the page.
        told: what it shows, for those who do not see it.
    """
    if figure is None:
        return None
    # Its axes are black and its legend's ground is white; on a dark page it is the other way round.
    themed = as_svg(figure).replace("#000000", "currentColor").replace("#ffffff", "var(--ground)")
    root = ElementTree.fromstring(themed)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for each in root.iter():
        each.tag = each.tag.removeprefix(_SVG)
        each.attrib = {
            attribute.replace(_LINK, "href"): _named(attribute, value, name)
            for attribute, value in each.attrib.items()
            if not attribute.startswith("{") or attribute == _LINK
        }
    width = float(root.attrib["width"].removesuffix("pt"))
    # On a narrow screen it shrinks as long as its letters can be read, and is moved from there on.
    style = f"min-width: {0.6 * width:.0f}pt; max-width: {width:.0f}pt"
    root.attrib |= {"role": "img", "aria-label": told, "style": style}
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))


def _named(attribute: str, value: str, name: str) -> str:
    """Return the value of an attribute with the names of things changed to names that no other drawing has."""
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == _LINK:
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")


def markdown(text: str) -> Iterator[dict[str, Any]]:
    """Yield what Markdown says: tables as `head` and `rows`, all else as it is `written`."""
    block: list[str] = []
    for line in [*text.strip().splitlines(), None]:
        is_in_table = line is not None and line.startswith("|")
        if block and (line is None or is_in_table != block[0].startswith("|")):
            yield from _block(block)
            block = []
        if line is not None:
            block.append(line)


def cells(line: str) -> list[str]:
    """Return the cells of a row of a table in Markdown."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _block(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one table, or the lines between two."""
    if lines[0].startswith("|") and len(lines) > 2:
        yield {"head": cells(lines[0]), "rows": [cells(line) for line in lines[2:]]}
    elif written := "\n".join(lines).strip("\n"):
        yield {"rows": [], "written": written}
