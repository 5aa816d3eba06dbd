"""The sections of a checkpoint's report, from its figures alone: what `report.json` holds, and the pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from PIL import Image

from cogview.evaluation.plots import blur_figure, candidates_figure
from cogview.evaluation.report.page import (
    Section,
    drawing,
    element,
    facts,
    folded,
    markdown,
    page,
    picture,
    spoken,
    table,
)

_SAMPLE_PIXELS = 256
_GRID_PIXELS = 1024
_BETTER = {
    "psnr": "higher",
    "ssim": "to 1",
    "unweighted_perceptual_distance": "to 0",
    "frechet_distance": "to 0",
    "kernel_distance": "to 0",
    "FID": "to 0",
    "KID": "to 0",
    "IS": "higher",
    "class_score": "higher",
    "CapLoss": "lower",
    "bits_per_pixel": "lower",
    "entropy_bits_per_pixel": "lower",
}
"""Which way a figure is better, by the beginning of its name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What is seen in a report beside its figures.

    Args:
        samples: pictures by prompt and seed.
        reconstructions: originals and what the image tokenizer makes of them; None if it was not measured.
        losses: matplotlib's figure of the losses; None if there is none.
    """

    samples: Sequence[Sequence[Image.Image]]
    reconstructions: Image.Image | None = None
    losses: Any = None


def report_page(report: Mapping[str, Any], shown: Shown) -> str:
    """Return the report as one page of HTML.

    Args:
        report: all figures, as plain data: what `report.json` holds.
        shown: the pictures.
    """
    model = report["model"]
    lead = [
        element("p", f"Report of the checkpoint {model['name']}, {report['date']}", class_="quiet"),
    ]
    sections = [_model(model), _samples(report["samples"], shown.samples)]
    if report["text_to_image"]:
        sections.append(_drawn(report["text_to_image"]))
    if report["composition"]:
        sections.append(_composition(report["composition"]))
    if report["tokenizer"]:
        sections.append(_tokenizer(report["tokenizer"], shown.reconstructions))
    if report["attention"]:
        sections.append(_attention(report["attention"]))
    if report["run"]:
        sections.append(_run(report["run"], shown.losses))
    sections.append(_environment(report))
    if report["lacking"]:
        lines = [element("li", line) for line in report["lacking"]]
        sections.append(
            Section(anchor="lacking", title="Not in this report", content=[element("ul", *lines)])
        )
    return page(report["title"], lead, sections)


def _model(model: Mapping[str, Any]) -> Section:
    """Say what it is."""
    parts = [
        (each["part"], each["shape"], _count(each["parameters"]), each["fingerprint"] or "")
        for each in model["parts"]
    ]
    content = [
        facts([("licence", model["licence"] or "not told"), ("draws", model["draws"])]),
        table(("part", "shape", "parameters", "fingerprint"), parts),
    ]
    if model["adapters"]:
        adapters = [
            (each["name"], each["task"], _count(each["parameters"]), each["licence"] or "not told")
            for each in model["adapters"]
        ]
        content.append(table(("adapter", "for", "parameters", "licence"), adapters))
    if model["trainings"]:
        head, *rows = model["trainings"]
        told = [[spoken(cell) for cell in row] for row in rows]
        content += [element("h3", "Training, as the card tells it"), table(head, told)]
    if model["card"]:
        content.append(folded("The whole card", *markdown(model["card"])))
    content.append(folded("config.json", element("pre", _json(model["config"]))))
    return Section(anchor="model", title="What it is", content=content)


def _samples(samples: Mapping[str, Any], rows: Sequence[Sequence[Image.Image]]) -> Section:
    """Show what is drawn for the prompts."""
    figures = []
    for number, (prompt, row) in enumerate(zip(samples["prompts"], rows, strict=True), start=1):
        pictures = [
            picture(image, f"{prompt}, seed {seed}", _SAMPLE_PIXELS)
            for seed, image in zip(samples["seeds"], row, strict=True)
        ]
        figures.append(
            element(
                "figure",
                element("div", *pictures, class_="row"),
                element("figcaption", f"{number}. {prompt}"),
            )
        )
    seeds = ", ".join(map(str, samples["seeds"]))
    top_k = "all codes" if samples["top_k"] is None else f"the {samples['top_k']} most probable codes"
    told = (
        f"Seeds {seeds}, from left to right; none was picked. Temperature {samples['temperature']:g}, top-p "
        f"{samples['top_p']:g} of {top_k}, guidance {samples['guidance']:g}; {samples['dtype']} on {samples['device']}."
    )
    content = [element("p", told), element("div", *figures, class_="sheet")]
    return Section(anchor="samples", title="Samples", content=content)


def _drawn(results: Mapping[str, Mapping[str, Any]]) -> Section:
    """Tell the figures of drawn pictures beside real ones, by what saw them."""
    content: list[Element] = []
    for backbone, result in results.items():
        request, size = result["request"], result["size_pixels"]
        guidance = request["guidance"]
        content += [
            element("h3", f"Seen by {backbone}"),
            element(
                "p",
                f"{request['num_captions']:,} captions of {result['images']}"
                + (f", split {result['split']}" if result["split"] else "")
                + f", {request['candidates']} candidates of each, {size} x {size} pixels; the best by "
                f"{result['chosen_by']}. Contrast x {result['contrast']:g}, temperature {request['temperature']:g}, "
                f"top-p {request['top_p']:g}, guidance {guidance:g}. {result['num_problems']:,} pictures left out.",
            ),
            _figures(
                {name: figure["value"] for name, figure in result["figures"].items()},
                {name: _interval(figure) for name, figure in result["figures"].items()},
            ),
        ]
        blur = blur_figure(result["figures"], backbone)
        if blur is not None:
            content.append(drawing(blur, f"blur-{backbone}", "The distance against the radius of the blur"))
        if result["curve"]:
            content += [element("h3", "Quality against the number of candidates"), _curve(result["curve"])]
            curve = candidates_figure(result["curve"])
            if curve is not None:
                told = "Quality against the number of candidates"
                content.append(drawing(curve, f"candidates-{backbone}", told))
    return Section(anchor="drawn", title="Drawn pictures beside real ones", content=content)


def _interval(figure: Mapping[str, Any]) -> str:
    if "low" in figure:
        return f"{figure['low']:.4g} to {figure['high']:.4g}"
    if "deviation" in figure:
        return f"deviation over {figure['num_splits']} parts {figure['deviation']:.2g}"
    return ""


def _curve(curve: Sequence[Mapping[str, Any]]) -> Element:
    names = [name for name in curve[0] if name not in ("choice", "num_candidates")]
    rows = [
        (each["choice"], str(each["num_candidates"]), *(f"{each[name]:.4g}" for name in names))
        for each in curve
    ]
    return folded("The numbers", table(("chosen by", "of candidates", *names), rows))


def _figures(values: Mapping[str, float], intervals: Mapping[str, str] | None = None) -> Element:
    """Return a table of figures, with their intervals if there are some."""
    rows: list[tuple[str, ...]] = []
    for name, value in values.items():
        better = next((way for start, way in _BETTER.items() if name.startswith(start)), "")
        interval = () if intervals is None else (intervals[name],)
        rows.append((name, f"{value:,.4g}", *interval, better))
    return table(("figure", "value", *(() if intervals is None else ("95 %",)), "better"), rows)


def _composition(composition: Mapping[str, Any]) -> Section:
    """Tell whether drawn pictures show what their captions ask for."""
    return Section(anchor="composition", title="Composition", content=list(markdown(composition["table"])))


def _tokenizer(result: Mapping[str, Any], reconstructions: Image.Image | None) -> Section:
    """Tell how well pictures survive the image tokenizer."""
    size = result["size_pixels"]
    content = [
        element(
            "p",
            f"{result['num_pictures']:,} real pictures of {size} x {size} pixels as {result['num_codes']:,} different "
            f"codes and back. {result['num_problems']:,} pictures left out.",
        ),
        _figures(result["figures"]),
    ]
    if reconstructions is not None:
        grid = picture(reconstructions, "Real pictures, with what the codes keep below", _GRID_PIXELS)
        caption = element("figcaption", "Real pictures, each with what its codes keep of it below.")
        content.append(element("figure", grid, caption))
    return Section(anchor="tokenizer", title="Image tokenizer", content=content)


def _attention(attention: Mapping[str, Any]) -> Section:
    """Tell how large the scores of each head are, and how much of it lies on the text."""
    content = [
        element(
            "p", f"While “{attention['text']}” is drawn with seed {attention['seed']}: {attention['heads']}."
        )
    ]
    for name, told, form in (
        ("largest_score", "Largest score |q k| / √e by layer and head", "{:.2f}"),
        ("mean_absolute_score", "Mean |score|", "{:.2f}"),
        ("text_share", "Share of the weights on the text", "{:.1%}"),
    ):
        layers: dict[int, list[str]] = {}
        for each in attention["scores"]:
            layers.setdefault(each["layer"], []).append(form.format(each[name]))
        heads = [f"head {head}" for head in range(len(layers[0]))]
        rows = [(f"layer {layer}", *values) for layer, values in layers.items()]
        content.append(table(("", *heads), rows, told))
    return Section(anchor="attention", title="Attention", content=content)


def _run(run: Mapping[str, Any], losses: Any) -> Section:
    """Tell of the training run."""
    told = [
        (name, _plain(run[name])) for name in ("command", "seed", "device", "precision", "commit", "versions")
    ]
    content = [facts([*told, ("steps", f"{run['num_steps']:,}")])]
    if losses is not None:
        content.append(drawing(losses, "losses", "The losses against the step"))
    last = [(name, _number(value)) for name, value in run["last"].items()]
    content.append(table(("metric", "last logged"), last))
    for split, values in run["evaluation"].items():
        rows = [(name, _number(value)) for name, value in values.items()]
        content.append(table(("metric", "value"), rows, f"On {split}"))
    content.append(folded("The run's config", element("pre", _json(run["config"]))))
    return Section(anchor="losses", title="Loss curves", content=content)


def _environment(report: Mapping[str, Any]) -> Section:
    """Tell what it was made by, on what."""
    environment = report["environment"]
    devices = [
        (name, ", ".join(f"{key} {value}" for key, value in each.items()))
        for name, each in environment["devices"].items()
    ]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    content = [
        element("p", "This report was made by"),
        element("pre", report["command"]),
        facts(
            [
                ("date", report["date"]),
                ("cogview", f"{environment['cogview']}, commit {report['commit'] or 'not told'}"),
                ("Python", environment["python"]),
                ("system", environment["system"]),
                ("packages", packages),
                *devices,
            ]
        ),
    ]
    return Section(anchor="environment", title="Environment and command", content=content)


def training_table(card: str) -> list[list[str]]:
    """Return the rows of the first table below the heading "Training" of a model card, its head first; or none."""
    lines = iter(card.splitlines())
    for line in lines:
        if line.lstrip("#").strip() == "Training" and line.startswith("#"):
            return _first_table(lines)
    return []


def _first_table(lines: Iterator[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("#") or (rows and not line.startswith("|")):
            break
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return [rows[0], *rows[2:]] if len(rows) > 2 else []


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _number(value: int | float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return "not told" if value is None else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
