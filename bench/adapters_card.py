"""What a model's card says of the adapters beside it: what they reach of what was wanted, and why not more."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from environment import RESULTS


def megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f}"


def figure(mean_and_half: Sequence[float], unit: str, reached: bool | None = None) -> str:
    """Return a mean with its interval, in percent or as a distance, and whether it is less than was wanted."""
    digits = ".1%" if unit == "%" else ".3f"
    told = " +- ".join(format(each, digits) for each in mean_and_half)
    return f"{told}, **missed**" if reached is False else told


def caption_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return figure, reached and wanted of a captioner."""
    naming = found["naming"]["share"]
    rows = [("the object named, in a style in which it was never learnt", naming, 0.8)]
    for split in ("held-out-drawing", "held-out-composition"):
        rows.append(
            (f"a picture's own caption first of 32, {split}", found[f"telling, {split}"]["share"], 0.9)
        )
    told = [(name, figure(share, "%", share[0] >= wanted), f"{wanted:.0%}") for name, share, wanted in rows]
    for title in (title for title in found if title.startswith("ranking")):
        of = f"{found[title]['num_candidates']}{title.removeprefix('ranking')}"
        for kind in ("perceptual", "pooled"):
            mean, half = found[title][kind]["random_minus_best"]
            best = figure(found[title][kind]["best_by_caption_loss"], "")
            told.append(
                (
                    f"{kind} distance from the true picture of a random one of {of}, less that of the best by CapLoss "
                    f"({best})",
                    figure((mean, half), "", mean > half),
                    "over 0",
                )
            )
    return told


def super_resolution_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return figure, reached and wanted of an upscaler."""
    of = {name: kinds["perceptual"] for name, kinds in found["mean_and_half_interval"].items()}
    right = {name: share["value"] for name, share in found["everything_right"].items()}
    ours, decoder = of["super-resolution"], of["decoder"]
    size = f"{found['factor']} times the size"
    return [
        (
            f"perceptual distance from the true picture of {size}",
            figure(ours, "", ours[0] < decoder[0]),
            f"under {figure(decoder, '')}, the decoder for the same codes",
        ),
        (
            f"drawn pictures of {size} that show all that was asked for",
            figure([right["super-resolution"]], "%", right["super-resolution"] >= right["decoder"]),
            f"{right['decoder']:.1%}, the decoder's",
        ),
    ]


def style_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return figure, reached and wanted of a style, at each strength that was measured."""
    told, without = ("object_recognised", "in_style", "both"), found["figures"]["without the adapter"]
    rows = []
    for name, of in found["figures"].items():
        if not name.startswith("with the adapter"):
            continue
        way, ours, before = (
            name.removeprefix("with the adapter, "),
            of["frechet_distance"],
            without["frechet_distance"],
        )
        rows.append(
            (
                f"{way}: Frechet distance from true pictures of objects never seen in the style",
                f"{ours:.1f}" + ("" if ours < before else ", **missed**"),
                f"under {before:.1f}, without it",
            )
        )
        reached = "; ".join(figure(of[share], "%") for share in told)
        wanted = "; ".join(f"{without[share][0]:.1%}" for share in told)
        rows.append((f"{way}: the object recognised; the style; both", reached, f"over {wanted}, without it"))
    return rows


ADAPTERS = {
    "caption": (("captioning",), caption_rows),
    "super-resolution": (("super-resolution-x2", "super-resolution-x4"), super_resolution_rows),
    "style-openmoji": (("styles",), style_rows),
    "style-3d": (("styles-3d",), style_rows),
}
"""Of each adapter, the results that measured it and what is told of each."""


def adapters_section(folder: Path) -> str:
    """Return what the card says of the model's adapters: what they reach of what was wanted."""
    rows = [
        (name, megabytes(folder / "adapters" / name), *row)
        for name, (results, of) in ADAPTERS.items()
        if (folder / "adapters" / name).is_dir()
        for result in results
        for row in of(json.loads((RESULTS / f"{result}.json").read_text(encoding="utf-8")))
    ]
    if not rows:
        return ""
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""
## Adapters

Low-rank adapters that lie beside the model and are used when a task asks for them; each has its own card and licence.

| adapter | MB | figure | reached | wanted |
|---|---|---|---|---|
{lines}

The means have 95 % intervals. Measured by `bench/captioning.py`, `super_resolution.py` and `styles.py`; devices and
commits are in their results in `bench/results`.
{ranking_missed() if any("random" in row[2] and "missed" in row[3] for row in rows) else ""}"""


def ranking_missed() -> str:
    """Return why the best by CapLoss is no nearer to the true picture, and what it is better at."""
    shown = json.loads((RESULTS / "ranking-composition.json").read_text(encoding="utf-8"))["figures"]
    best, any_one = (f"{shown[chosen]['all']['value']:.1%}" for chosen in ("CapLoss", "random"))
    return f"""
Ranking brings pictures no nearer to the true one, since most of what is drawn shows all that the caption asks for, and
from those the true one differs by what no caption says: where things stand, and how large. By what is asked for it
works: of the best of 16 by CapLoss {best} show all of it, of random ones {any_one}.
"""
