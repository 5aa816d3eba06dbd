"""Rendering of a self-contained page of HTML, with embedded pictures and plots."""

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

# All texts are escaped; undefined names are errors.
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
    """Render a page.

    Args:
        template: file name in `templates`.
        data: variables of the template.
    """
    page = _TEMPLATES.get_template(template).render(data)
    # Texts may hold lone surrogates.
    return page.encode(errors="replace").decode()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Picture embedded in the page.

    Args:
        source: the picture as a data URL.
        description: alternative text.
        width_pixels: width on the page.
        height_pixels: height on the page.
    """

    source: str
    description: str
    width_pixels: int
    height_pixels: int


def picture(image: Image.Image, description: str, max_pixels: int) -> Picture:
    """Embed a picture.

    Args:
        image: the picture.
        description: alternative text.
        max_pixels: longest side; larger pictures are scaled down.
    """
    shown = image.convert("RGB")
    shown.thumbnail((max_pixels, max_pixels), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    shown.save(data, "WEBP", quality=88, method=6)
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    return Picture(
        source=source, description=description, width_pixels=shown.width, height_pixels=shown.height
    )


def drawing(figure: Any, name: str, description: str) -> Markup | None:
    """Return a matplotlib figure as SVG in the colours of the page, its texts escaped.

    Args:
        figure: the figure; None if there is none, for example without matplotlib.
        name: prefix of the SVG's identifiers, unique on the page.
        description: alternative text.
    """
    if figure is None:
        return None
    # Axes are black and the legend's background is white, but not on a dark page.
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
    # On narrow screens it shrinks while its letters are legible, then scrolls.
    style = f"min-width: {0.6 * width:.0f}pt; max-width: {width:.0f}pt"
    root.attrib |= {"role": "img", "aria-label": description, "style": style}
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))


def _named(attribute: str, value: str, name: str) -> str:
    """Prefix the identifiers in an attribute's value with the drawing's name."""
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == _LINK:
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")


def markdown(text: str) -> Iterator[dict[str, Any]]:
    """Yield the blocks of Markdown: tables as `head` and `rows`, other text unchanged as `written`."""
    block: list[str] = []
    for line in [*text.strip().splitlines(), None]:
        is_in_table = line is not None and line.startswith("|")
        if block and (line is None or is_in_table != block[0].startswith("|")):
            yield from _block(block)
            block = []
        if line is not None:
            block.append(line)


def cells(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _block(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one table or the text between two."""
    if lines[0].startswith("|") and len(lines) > 2:
        yield {"head": cells(lines[0]), "rows": [cells(line) for line in lines[2:]]}
    elif written := "\n".join(lines).strip("\n"):
        yield {"rows": [], "written": written}
