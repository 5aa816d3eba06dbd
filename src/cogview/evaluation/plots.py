"""The figures as pictures: distances against blur, and quality against the number of candidates (figure 9)."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cogview.evaluation.text_to_image import RADII, figure_name
from cogview.files import atomic_write_bytes


def plot_figures(
    figures: Mapping[str, Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    backbone: str,
    folder: Path,
) -> list[Path]:
    """Draw `blur-NAME.png`, and `candidates-NAME.png` if there is a curve.

    Args:
        figures: by name, as `compare` gives them.
        curve: as `candidates_curve` gives it.
        backbone: NAME.
        folder: where they will lie.

    Returns:
        The paths; none without matplotlib (the extra `plot`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    paths = [folder / f"blur-{backbone}.png"]
    blur = Figure(figsize=(5, 4), layout="constrained")
    axes = blur.add_subplot()
    values = [figures[figure_name("frechet", backbone, radius)]["value"] for radius in RADII]
    axes.plot(RADII, values, marker="o")
    axes.set_xlabel("radius of the blur, pixels")
    axes.set_ylabel(_axis(figure_name("frechet", backbone)))
    axes.grid(alpha=0.3)
    _save(blur, paths[0])
    if not curve:
        return paths
    choices = dict.fromkeys(line["choice"] for line in curve)
    names = [name for name in curve[0] if name not in ("choice", "num_candidates")]
    panels = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = panels.add_subplot(1, len(names), number)
        for choice in choices:
            points = [(line["num_candidates"], line[name]) for line in curve if line["choice"] == choice]
            axes.plot(*zip(*points, strict=True), marker="o", label=choice)
        axes.set_xlabel("candidates")
        axes.set_ylabel(_axis(name))
        axes.grid(alpha=0.3)
        axes.legend()
    paths.append(folder / f"candidates-{backbone}.png")
    _save(panels, paths[1])
    return paths


def _axis(name: str) -> str:
    return name.removesuffix("_blur_0").replace("_", " ")


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(path, picture.getvalue())
