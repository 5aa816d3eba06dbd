"""Plots of distances against blur, and of quality against the number of candidates (figure 9)."""

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
    """Write `blur-NAME.png`, and `candidates-NAME.png` if there is a curve.

    Args:
        figures: result of `compare`.
        curve: result of `candidates_curve`.
        backbone: NAME, the backbone's.
        folder: folder of the files.

    Returns:
        The paths; none without matplotlib (the extra `plot`).
    """
    plots = {"blur": blur_figure(figures, backbone), "candidates": candidates_figure(curve)}
    paths = []
    for name, figure in plots.items():
        if figure is not None:
            picture = io.BytesIO()
            figure.savefig(picture, dpi=120, format="png")
            paths.append(folder / f"{name}-{backbone}.png")
            atomic_write_bytes(paths[-1], picture.getvalue())
    return paths


def blur_figure(figures: Mapping[str, Mapping[str, Any]], backbone: str) -> Any:
    """Plot the distance against the blur; None without matplotlib.

    Args:
        figures: result of `compare`.
        backbone: name of the backbone.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    blur = Figure(figsize=(5, 4), layout="constrained")
    axes = blur.add_subplot()
    values = [figures[figure_name("frechet", backbone, radius)]["value"] for radius in RADII]
    axes.plot(RADII, values, marker="o")
    axes.set_xlabel("radius of the blur, pixels")
    axes.set_ylabel(_axis(figure_name("frechet", backbone)))
    axes.grid(alpha=0.3)
    return blur


def candidates_figure(curve: Sequence[Mapping[str, Any]]) -> Any:
    """Plot quality against the number of candidates; None without a curve or matplotlib.

    Args:
        curve: result of `candidates_curve`.

    Paper: figure 9.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not curve:
        return None
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
    return panels


def as_svg(figure: Any) -> str:
    """Return a matplotlib figure as reproducible SVG, with its texts as text."""
    from matplotlib import rc_context

    drawing = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cogview"}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    return drawing.getvalue()


def _axis(name: str) -> str:
    return name.removesuffix("_blur_0").replace("_", " ")
