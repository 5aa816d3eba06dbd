"""`cogview evaluate answers`: tells what the answers to a questionnaire say."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogview.cli.report import print_result
from cogview.errors import CogViewError


def run(
    folder: Path,
    /,
    *,
    answers: tuple[Path, ...] = (),
    out: Path | None = None,
    draws: int = 10_000,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Tell what the answers to a questionnaire say: who was preferred, mean scores, how far raters agree.

    The figures go to figures.json and the charts to charts.png (which needs matplotlib, the extra `plot`).

    Args:
        folder: the questionnaire's.
        answers: files of answers, if the folder was served in several places; its own answers.jsonl by default.
        out: the folder to write to; the questionnaire's own by default.
        draws: of the bootstrap over questions that the intervals come from.
        seed: of these draws.
        json: print the figures as JSON.
    """
    from cogview.evaluation.questionnaire.answers import read_answers
    from cogview.evaluation.questionnaire.charts import draw_charts
    from cogview.evaluation.questionnaire.figures import figures_of
    from cogview.evaluation.questionnaire.folder import ANSWERS, read_key, read_questionnaire
    from cogview.files import atomic_write_json

    questionnaire = read_questionnaire(folder)
    key = read_key(questionnaire)
    if not answers and not (folder / ANSWERS).exists():
        raise CogViewError(
            f"nobody has answered {folder} yet: ask with `cogview evaluate questionnaire {folder} --serve`, "
            "or name files of answers with --answers"
        )
    given = read_answers(answers or (folder / ANSWERS,), questionnaire)
    figures = figures_of(given, key, num_draws=draws, seed=seed)
    out = out or folder
    atomic_write_json(out / "figures.json", figures)
    charts: Path | None = out / "charts.png"
    if not draw_charts(figures, out / "charts.png"):
        charts = None
        warnings.warn(
            "The charts are left out, for want of matplotlib: pip install '.[plot]' in the checkout",
            stacklevel=1,
        )
    lines = [*_lines(figures), f"figures: {out / 'figures.json'}", *([f"charts: {charts}"] if charts else [])]
    print_result({**figures, "charts": charts}, lines, json)


def _lines(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures for people: a table of systems, then how far raters agree."""
    columns = {"best, %": (figures["preference_share"], 100.0)}
    columns |= {name: (values, 1.0) for name, values in figures["mean_scores"].items()}
    rows = [["", *columns]]
    for system in figures["systems"]:
        rows.append([system, *(_with_interval(values[system], scale) for values, scale in columns.values())])
    alphas = figures["krippendorff_alpha"]
    rows.append(["alpha", *(_alpha(alphas[name]) for name in ("best", *figures["mean_scores"]))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    num_shared = figures["num_questions_of_several_raters"]
    return [
        f"{figures['num_answers']:,} answers of {figures['num_raters']:,} raters to "
        f"{figures['num_questions_answered']:,} questions, {num_shared:,} of them by several",
        *table,
        f"in brackets: {figures['interval']}; alpha: Krippendorff's, between raters",
    ]


def _with_interval(figure: Mapping[str, float | None], scale: float) -> str:
    """Return a figure with its interval, if it has one."""
    value, low, high = (None if each is None else scale * each for each in figure.values())
    return f"{value:.2f}" if low is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _alpha(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
