"""The loss of a run as a picture."""

import io
from pathlib import Path

from cogview.files import atomic_write_bytes
from cogview.training.metrics import read_metrics


def plot_losses(metrics_path: Path, picture_path: Path) -> bool:
    """Draw every metric that has "loss" in its name against the step, but for the loss scale.

    Args:
        metrics_path: a run's `metrics.jsonl`.
        picture_path: the PNG to write.

    Returns:
        Whether it was drawn: without matplotlib (the extra `plot`), or without metrics, it is not.
    """
    lines = read_metrics(metrics_path)
    names = sorted({name for line in lines for name in line if "loss" in name and name != "loss_scale"})
    if not names:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
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
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(picture_path, picture.getvalue())
    return True
