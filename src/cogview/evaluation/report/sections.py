"""Sections of the report's page, from the data of `report.json` and pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from cogview.evaluation.plots import blur_figure, candidates_figure
from cogview.evaluation.report.page import cells, drawing, markdown, picture, render

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
"""Better direction of a figure, by the start of its name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportImages:
    """Pictures and plots of a report.

    Args:
        samples: pictures by prompt and seed.
        reconstructions: grid of originals and reconstructions; None if they were not measured.
        losses: matplotlib figure of the losses; None if there is none.
    """

    samples: Sequence[Sequence[Image.Image]]
    reconstructions: Image.Image | None = None
    losses: Any = None


def report_page(report: Mapping[str, Any], shown: ReportImages) -> str:
    """Return the report as one page of HTML.

    Args:
        report: content of `report.json`.
        shown: pictures and plots.
    """
    sections = {
        "model": _model(report["model"]),
        "samples": _samples(report["samples"], shown.samples),
        "drawn": [_drawn(backbone, result) for backbone, result in report["text_to_image"].items()],
        "composition": report["composition"] and list(markdown(report["composition"]["table"])),
        "tokenizer": report["tokenizer"] and _tokenizer(report["tokenizer"], shown.reconstructions),
        "attention": report["attention"] and _attention(report["attention"]),
        "losses": report["run"] and _run(report["run"], shown.losses),
        "environment": _environment(report),
        "lacking": report["lacking"],
    }
    return render(
        "report.html",
        title=report["title"],
        name=report["model"]["name"],
        date=report["date"],
        sections={anchor: section for anchor, section in sections.items() if section},
    )


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section on the model and its parts."""
    return {
        "facts": [("licence", model["licence"] or "not given"), ("draws", model["draws"])],
        "parts": [
            (each["part"], each["shape"], _count(each["parameters"]), each["fingerprint"] or "")
            for each in model["parts"]
        ],
        "adapters": [
            (each["name"], each["task"], _count(each["parameters"]), each["licence"] or "not given")
            for each in model["adapters"]
        ],
        "trainings": model["trainings"],
        "card": list(markdown(model["card"])),
        "config": _json(model["config"]),
    }


def _samples(samples: Mapping[str, Any], rows: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
    """Return the section of samples for the prompts."""
    return {
        **_sampling(samples),
        "seeds": ", ".join(map(str, samples["seeds"])),
        "top_k": "all codes" if samples["top_k"] is None else f"the {samples['top_k']} most probable codes",
        "dtype": samples["dtype"],
        "device": samples["device"],
        "rows": [
            (
                prompt,
                [
                    picture(image, f"{prompt}, seed {seed}", _SAMPLE_PIXELS)
                    for seed, image in zip(samples["seeds"], row, strict=True)
                ],
            )
            for prompt, row in zip(samples["prompts"], rows, strict=True)
        ],
    }


def _sampling(request: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{request[name]:g}" for name in ("temperature", "top_p", "guidance")}


def _drawn(backbone: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section of text-to-image figures by one backbone."""
    request, figures = result["request"], result["figures"]
    blur = blur_figure(figures, backbone)
    return {
        **_sampling(request),
        "backbone": backbone,
        "num_captions": f"{request['num_captions']:,}",
        "candidates": request["candidates"],
        "images": result["images"],
        "split": result["split"],
        "size_pixels": result["size_pixels"],
        "chosen_by": result["chosen_by"],
        "contrast": f"{result['contrast']:g}",
        "num_problems": f"{result['num_problems']:,}",
        "figures": [
            (name, _rounded(figure["value"]), _interval(figure), _better(name))
            for name, figure in figures.items()
        ],
        "blur": drawing(blur, f"blur-{backbone}", "The distance against the radius of the blur"),
        "curve": result["curve"] and _curve(result["curve"], backbone),
    }


def _interval(figure: Mapping[str, Any]) -> str:
    if "low" in figure:
        return f"{figure['low']:.4g} to {figure['high']:.4g}"
    if "deviation" in figure:
        return f"deviation over {figure['num_splits']} parts {figure['deviation']:.2g}"
    return ""


def _curve(curve: Sequence[Mapping[str, Any]], backbone: str) -> dict[str, Any]:
    names = [name for name in curve[0] if name not in ("choice", "num_candidates")]
    return {
        "head": ("chosen by", "of candidates", *names),
        "rows": [
            (each["choice"], str(each["num_candidates"]), *(f"{each[name]:.4g}" for name in names))
            for each in curve
        ],
        "plot": drawing(
            candidates_figure(curve), f"candidates-{backbone}", "Quality against the number of candidates"
        ),
    }


def _better(name: str) -> str:
    return next((way for start, way in _BETTER.items() if name.startswith(start)), "")


def _tokenizer(result: Mapping[str, Any], reconstructions: Image.Image | None) -> dict[str, Any]:
    """Return the section on reconstruction by the image tokenizer."""
    grid = None
    if reconstructions is not None:
        grid = picture(reconstructions, "Real pictures, with what the codes keep below", _GRID_PIXELS)
    return {
        "size_pixels": result["size_pixels"],
        **{name: f"{result[name]:,}" for name in ("num_pictures", "num_codes", "num_problems")},
        "figures": [(name, _rounded(value), _better(name)) for name, value in result["figures"].items()],
        "reconstructions": grid,
    }


def _attention(attention: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section on attention scores and weights by layer and head."""
    tables = []
    for name, caption, form in (
        ("largest_score", "Largest score |q k| / √e by layer and head", "{:.2f}"),
        ("mean_absolute_score", "Mean |score|", "{:.2f}"),
        ("text_share", "Share of the weights on the text", "{:.1%}"),
    ):
        layers: dict[int, list[str]] = {}
        for each in attention["scores"]:
            layers.setdefault(each["layer"], []).append(form.format(each[name]))
        head = ("", *(f"head {head}" for head in range(len(layers[0]))))
        rows = [(f"layer {layer}", *values) for layer, values in layers.items()]
        tables.append({"head": head, "rows": rows, "caption": caption})
    return {"tables": tables, **{name: attention[name] for name in ("text", "seed", "heads")}}


def _run(run: Mapping[str, Any], losses: Any) -> dict[str, Any]:
    """Return the section on the training run."""
    names = ("command", "seed", "device", "precision", "commit", "versions")
    return {
        "facts": [*((name, _plain(run[name])) for name in names), ("steps", f"{run['num_steps']:,}")],
        "losses": drawing(losses, "losses", "The losses against the step"),
        "last": _metrics(run["last"]),
        "evaluation": [(split, _metrics(values)) for split, values in run["evaluation"].items()],
        "config": _json(run["config"]),
    }


def _environment(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section on command, software and devices."""
    environment = report["environment"]
    return {
        "command": report["command"],
        "facts": [
            ("date", report["date"]),
            ("cogview", f"{environment['cogview']}, commit {report['commit'] or 'not given'}"),
            ("Python", environment["python"]),
            ("system", environment["system"]),
            ("packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
            *(
                (name, ", ".join(f"{key} {value}" for key, value in each.items()))
                for name, each in environment["devices"].items()
            ),
        ],
    }


def training_table(card: str) -> list[list[str]]:
    """Return the rows of the first table under "Training" in a model card, its head first; empty without one."""
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
            rows.append(cells(line))
    return [rows[0], *rows[2:]] if len(rows) > 2 else []


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _rounded(value: float) -> str:
    return f"{value:,.4g}"


def _metrics(values: Mapping[str, int | float | None]) -> list[tuple[str, str]]:
    return [(name, _number(value)) for name, value in values.items()]


def _number(value: int | float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:,}" if isinstance(value, int) else _rounded(value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return "not given" if value is None else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
