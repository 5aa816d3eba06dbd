"""One page of HTML that needs no other file, built as a tree, so that no text of others becomes markup."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from PIL import Image

from cogview.evaluation.plots import as_svg

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def element(tag: str, *content: Element | str, **attributes: str) -> Element:
    """Return an element.

    Args:
        tag: its name.
        content: what is in it, in order; texts are escaped when the page is written.
        attributes: by name; `class_` is HTML's `class`, and `aria_label` its `aria-label`.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for each in content:
        if isinstance(each, Element):
            made.append(each)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + each
        else:
            made.text = (made.text or "") + each
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A part of the page that the table of contents names.

    Args:
        anchor: what links call it.
        title: above it.
        content: what is in it.
    """

    anchor: str
    title: str
    content: Sequence[Element]


def page(title: str, lead: Sequence[Element], sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: of the page.
        lead: what stands before the table of contents.
        sections: the rest.
    """
    style = resources.files("cogview.evaluation.report").joinpath("report.css").read_text(encoding="utf-8")
    contents = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("header", element("h1", title), *lead),
        element("nav", element("h2", "Contents"), element("ol", *contents), aria_label="Contents"),
        element(
            "main",
            *(
                element("section", element("h2", each.title), *each.content, id=each.anchor)
                for each in sections
            ),
        ),
    )
    whole = ElementTree.tostring(element("html", head, body, lang="en"), encoding="unicode", method="html")
    # What came from a file or the command line may hold half surrogates, which UTF-8 does not have.
    return f"<!DOCTYPE html>\n{whole}\n".encode(errors="replace").decode()


def table(head: Sequence[str], rows: Sequence[Sequence[Element | str]], caption: str = "") -> Element:
    """Return a table whose first column names its rows, in a box that scrolls where the screen is too narrow.

    Args:
        head: of the columns.
        rows: of cells.
        caption: above it, if it has one.
    """
    return element(
        "div",
        element(
            "table",
            *([element("caption", caption)] if caption else []),
            element("thead", element("tr", *(element("th", name, scope="col") for name in head))),
            element("tbody", *(_row(row) for row in rows)),
        ),
        class_="wide",
        tabindex="0",
    )


def _row(cells: Sequence[Element | str]) -> Element:
    first, *others = cells
    return element("tr", element("th", first, scope="row"), *(element("td", each) for each in others))


def facts(pairs: Sequence[tuple[str, Element | str]]) -> Element:
    """Return names and what they stand for."""
    return element(
        "dl", *(each for name, value in pairs for each in (element("dt", name), element("dd", value)))
    )


def folded(summary: str, *content: Element) -> Element:
    """Return what is shown when its summary is clicked."""
    return element("details", element("summary", summary), *content)


def picture(image: Image.Image, told: str, max_pixels: int) -> Element:
    """Return a picture that lies in the page itself.

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
    return element("img", src=source, alt=told, width=str(shown.width), height=str(shown.height))


def drawing(figure: Any, name: str, told: str) -> Element:
    """Return a figure of matplotlib as SVG in the colours of the page.

    Args:
        figure: the figure.
        name: tells the names within it from those of others on the page.
        told: what it shows, for those who do not see it.
    """
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
    return element("figure", root, class_="drawing", tabindex="0")


def _named(attribute: str, value: str, name: str) -> str:
    """Return the value of an attribute with the names of things changed to names that no other drawing has."""
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == _LINK:
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")


def markdown(text: str) -> Iterator[Element]:
    """Yield what Markdown says: its tables as tables, all else as it is written."""
    block: list[str] = []
    for line in [*text.strip().splitlines(), None]:
        is_in_table = line is not None and line.startswith("|")
        if block and (line is None or is_in_table != block[0].startswith("|")):
            yield from _block(block)
            block = []
        if line is not None:
            block.append(line)


def spoken(cell: str) -> Element | str:
    """Return a cell of a table in Markdown: as code if it is marked so, else as it is written."""
    is_code = len(cell) > 2 and cell.startswith("`") and cell.endswith("`")
    return element("code", cell[1:-1]) if is_code else cell


def _block(lines: list[str]) -> Iterator[Element]:
    """Yield one table, or the lines between two."""
    if lines[0].startswith("|") and len(lines) > 2:
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
        yield table(rows[0], [[spoken(cell) for cell in row] for row in rows[2:]])
    elif written := "\n".join(lines).strip("\n"):
        yield element("pre", written, class_="written")
