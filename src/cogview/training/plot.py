"""The loss of a run as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cogview.files import atomic_write_bytes
from cogview.training.metrics import read_metrics


def plot_losses(metrics_path: Path, picture_path: Path) -> bool:
    """Write the picture of a run's losses.

    Args:
        metrics_path: a run's `metrics.jsonl`.
        picture_path: the PNG to write.

    Returns:
        Whether it was drawn: without matplotlib (the extra `plot`), or without metrics, it is not.
    """
    figure = loss_figure(read_metrics(metrics_path))
    if figure is None:
        return False
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(picture_path, picture.getvalue())
    return True


def loss_figure(lines: Sequence[Mapping[str, int | float]]) -> Any:
    """Draw every metric that has "loss" in its name against the step, but for the loss scale.

    Args:
        lines: a run's metrics, as `read_metrics` gives them.

    Returns:
        A figure of matplotlib; None without it, or without a loss.
    """
    names = sorted({name for line in lines for name in line if "loss" in name and name != "loss_scale"})
    if not names:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
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
