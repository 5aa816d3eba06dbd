"""Plot of a run's losses."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cogview.files import atomic_write_bytes
from cogview.training.metrics import read_metrics


def plot_losses(metrics_path: Path, picture_path: Path) -> bool:
    """Write the plot of a run's losses.

    Args:
        metrics_path: a run's `metrics.jsonl`.
        picture_path: the PNG to write.

    Returns:
        False without matplotlib (the extra `plot`) or without metrics, when nothing is written.
    """
    figure = loss_figure(read_metrics(metrics_path))
    if figure is None:
        return False
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(picture_path, picture.getvalue())
    return True


def loss_figure(lines: Sequence[Mapping[str, int | float]]) -> Any:
    """Plot every metric with "loss" in its name, except the loss scale, against the step.

    Args:
        lines: a run's metrics, from `read_metrics`.

    Returns:
        A matplotlib figure; None without matplotlib or losses.
    """
    names = sorted({name for line in lines for name in line if "loss" in name and name != "loss_scale"})
    if not names:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 5))
    axes = figure.add_subplot()
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
