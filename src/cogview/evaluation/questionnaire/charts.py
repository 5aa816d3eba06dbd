"""Charts of preference shares and mean scores (figure 10)."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.evaluation.questionnaire.answers import SCALES
from cogview.files import atomic_write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours for the colour-blind (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def draw_charts(figures: Mapping[str, Any], path: Path) -> bool:
    """Draw preference shares and mean scores with their intervals.

    Args:
        figures: result of `figures_of`.
        path: the PNG to write.

    Returns:
        Whether it was drawn: not without matplotlib (the extra `plot`).

    Paper: figure 10.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    systems: list[str] = figures["systems"]
    height = 2.2 + 0.45 * len(systems)
    figure = Figure(figsize=(13, height), layout="constrained")
    preferred, scored, overall = figure.subplots(1, 3, width_ratios=(1, 1.25, 1), sharey=True)
    _bars(preferred, figures["preference_share"], systems, 0.7, 0.0, _COLOURS[0], scale=100.0)
    preferred.set_title("picked as the best, %")
    preferred.set_xlim(left=0)
    preferred.set_yticks(range(len(systems)), systems, parse_math=False)  # a name with $ is no formula
    preferred.invert_yaxis()
    short = [name for name in SCALES if name != "overall"]
    for place, name in enumerate(short):
        shift = (place - (len(short) - 1) / 2) * 0.26
        _bars(scored, figures["mean_scores"][name], systems, 0.24, shift, _COLOURS[place + 1], label=name)
    scored.set_title(f"mean scores, 1 to {SCALES[short[0]]}")
    scored.set_xlim(1, SCALES[short[0]])
    figure.legend(loc="outside lower center", ncols=len(short), frameon=False)
    _bars(overall, figures["mean_scores"]["overall"], systems, 0.7, 0.0, _COLOURS[4])
    overall.set_title(f"mean overall score, 1 to {SCALES['overall']}")
    overall.set_xlim(1, SCALES["overall"])
    for axes in (preferred, scored, overall):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(path, picture.getvalue())
    return True


def _bars(
    axes: "Axes",
    figures: Mapping[str, Mapping[str, float | None]],
    systems: list[str],
    height: float,
    shift: float,
    colour: str,
    *,
    scale: float = 1.0,
    label: str | None = None,
) -> None:
    """Draw a bar for each system, and its interval where there is one.

    Args:
        axes: the axes.
        figures: value, low and high of each system.
        systems: systems from the top.
        height: height of a bar; systems are 1 apart.
        shift: downward shift of the bars.
        colour: colour of the bars.
        scale: factor of the figures.
        label: label in the legend.
    """
    places = [row + shift for row in range(len(systems))]
    values = [scale * (figures[system]["value"] or 0.0) for system in systems]
    axes.barh(places, values, height=height, color=colour, label=label)
    for place, system in zip(places, systems, strict=True):
        low, high = figures[system]["low"], figures[system]["high"]
        if low is not None and high is not None:
            axes.plot([scale * low, scale * high], [place, place], color="#222222", linewidth=1.4)
