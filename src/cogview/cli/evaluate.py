"""Verbs `cogview evaluate ...`."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cogview.cli.report import print_result
from cogview.runs.evaluate import evaluate
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_options import (
    AnswersOptions,
    AttentionEvaluationOptions,
    CompositionEvaluationOptions,
    ModelEvaluationOptions,
    QuestionnaireOptions,
    TextToImageEvaluationOptions,
    TokenizerEvaluationOptions,
)
from cogview.runs.flags import FLAT


def text_to_image(options: Annotated[TextToImageEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Compare the pictures that a model draws for captions with the real ones, as in the paper.

    Of some candidates per caption, the best by CapLoss is kept. Pictures are stored in the folder: a stopped or killed
    command is resumed by the same command, and one with other features reuses them. Under torchrun, each process draws
    its share and the first one computes the figures.

    Args:
        options: captions, model and features.
        json: print the result as JSON.
    """
    result = evaluate(options)
    if result is None:
        _print_share(options.out, json)
        return
    from cogview.evaluation.text_to_image import figures_table

    facts = result.facts
    written = {kind: result.files[kind] for kind in ("json", "table")}
    plots = [path for kind, path in result.files.items() if kind not in written]
    lines = [
        *figures_table(facts),
        "",
        *_left_out(f"{facts['num_problems']:,} pictures left out", facts["problems"], facts["num_problems"]),
        *(["no plots, for want of matplotlib: pip install '.[plot]' in the checkout"] if not plots else []),
        *(str(path) for path in (*written.values(), *plots)),
    ]
    print_result({**facts, **written, "plots": plots}, lines, json)


def composition(options: Annotated[CompositionEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Count how often pictures of scenes show what their captions ask for: objects, colours, sizes, places, style.

    A picture is read by comparing every place with every object of the data set, in each style, size and colour. Each
    run also measures this reader on real pictures and their reconstructions by the image tokenizer, with right and
    wrong captions. Pictures are stored in the folder: a stopped or killed command is resumed by the same command. Under
    torchrun, each process draws its share.

    Args:
        options: scenes, model and sampling.
        json: print the result as JSON.
    """
    result = evaluate(options)
    if result is None:
        _print_share(options.out, json)
        return
    from cogview.evaluation.composition_table import composition_table

    facts = result.facts
    num = facts["num_left_out"]
    lines = [
        *composition_table(facts),
        "",
        *_left_out(f"{num:,} pictures were passed over", facts["left_out"], num),
        *map(str, result.files.values()),
    ]
    print_result({**facts, **result.files}, lines, json)


def tokenizer(options: Annotated[TokenizerEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Measure the reconstructions of an image tokenizer, and the use of its codes.

    Writes only a picture of originals with their reconstructions below. Unreadable pictures are skipped, counted and
    listed.

    Args:
        options: pictures and image tokenizer.
        json: print the result as JSON.
    """
    result = _evaluate_alone(options)
    facts, grid = result.facts, result.files.get("grid")
    width, size = max(map(len, facts["figures"])), facts["size_pixels"]
    lines = [
        f"{facts['num_pictures']:,} pictures of {size} x {size}, {facts['num_codes']:,} codes",
        *(f"{name:<{width}}  {value:>12,.4f}" for name, value in facts["figures"].items()),
        *_left_out(f"{facts['num_problems']:,} pictures left out", facts["problems"], facts["num_problems"]),
        *([f"grid: {grid}"] if grid else []),
    ]
    print_result({**facts, "grid": grid}, lines, json)


def attention(options: Annotated[AttentionEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Plot the attention of each layer and head while a model draws a picture.

    Writes token.png, the attention of one code to the earlier codes, by layer and head; text.png, the piece of the text
    that each code attends to; scores.json and scores.txt, the sizes of each head's scores and the place of its weights;
    and picture.png. Files of these names are replaced.

    Args:
        options: text, picture and code.
        json: print the result as JSON.
    """
    result = _evaluate_alone(options)
    from cogview.evaluation.attention import comparison_of_heads

    lines = [
        "pieces: " + "  ".join(f"{number} {word}" for number, word in enumerate(result.facts["pieces"])),
        comparison_of_heads(result.facts["scores"]),
        *map(str, result.files.values()),
    ]
    print_result({**result.facts, "files": result.files}, lines, json)


def model(options: Annotated[ModelEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Write a report on a checkpoint: description, samples, figures and training.

    Writes report.html, a single self-contained page, and report.json with all figures. Pictures are stored in the
    folder: a stopped or killed command is resumed by the same command. The report includes the results of `cogview
    evaluate text-to-image --out FOLDER/text-to-image` and `cogview evaluate composition --out FOLDER/composition`.

    Args:
        options: the checkpoint, and the parts of the report.
        json: print the result as JSON.
    """
    result = _evaluate_alone(options)
    page = result.files["html"]
    lines = [f"{page}, {page.stat().st_size / 1e6:.1f} MB", str(result.files["json"])]
    print_result({**result.facts, "files": result.files}, [*lines, *result.facts["lacking"]], json)


def questionnaire(
    options: Annotated[QuestionnaireOptions, FLAT],
    *,
    serve: bool = False,
    host: str = "127.0.0.1",
    port: int = 8300,
    json: bool = False,
) -> None:
    """Make a blind questionnaire about pictures of several systems, serve it to raters, or both.

    Each question shows one caption with a picture of each system in random order; raters score all of them and pick
    the best. With --systems and --captions the folder is made; with --serve it is served until Ctrl-C, and answers are
    appended to its answers.jsonl. `cogview evaluate answers` summarizes them.

    Args:
        options: contents of the questionnaire.
        serve: serve the questionnaire.
        host: address to listen at; 127.0.0.1 is reachable from this machine alone, 0.0.0.0 from its network.
        port: to listen at; 0 picks a free one.
        json: print the result as JSON.
    """
    folder = options.folder
    if options.systems or not serve:
        facts = _evaluate_alone(options).facts
        left_out = facts["pictures_left_out"]
        lines = [
            f"{folder}: {facts['num_questions']:,} questions about {len(left_out)} systems",
            *(
                f"{name}: {number:,} pictures without a caption left out"
                for name, number in left_out.items()
                if number
            ),
            *([] if serve else [f"serve it: cogview evaluate questionnaire {folder} --serve"]),
        ]
        print_result(facts, lines, json)
        sys.stdout.flush()
    if serve:
        _serve(folder, host, port)


def answers(options: Annotated[AnswersOptions, FLAT], *, json: bool = False) -> None:
    """Summarize the answers to a questionnaire: preferences, mean scores, agreement of raters.

    Writes figures.json, and charts.png if matplotlib (extra `plot`) is installed.

    Args:
        options: the questionnaire and its answers.
        json: print the figures as JSON.
    """
    result = _evaluate_alone(options)
    lines = [*_answers_table(result.facts), *(f"{kind}: {path}" for kind, path in result.files.items())]
    print_result({**result.facts, "charts": result.files.get("charts")}, lines, json)


def _evaluate_alone(options: Any) -> EvaluationResult:
    """Evaluate in a single process."""
    result = evaluate(options)
    assert result is not None, "no processes share this work"
    return result


def _print_share(out: Path, as_json: bool) -> None:
    """Print that a process other than the first has done its share."""
    from cogview.data.ranks import Ranks

    rank = Ranks.from_environment(os.environ).rank
    print_result({"folder": out, "rank": rank}, [f"rank {rank} has done its share"], as_json)


def _left_out(title: str, listed: Sequence[Mapping[str, str]], num: int) -> list[str]:
    """Return a title and the listed problems, of `num` in all."""
    return [
        title + (":" if listed else ""),
        *(f"  {each['where']}: {each['reason']}" for each in listed),
        *([f"  and {num - len(listed):,} more"] if num > len(listed) else []),
    ]


def _serve(folder: Path, host: str, port: int) -> None:
    """Serve a questionnaire until Ctrl-C or SIGTERM."""
    from cogview.evaluation.questionnaire.answers import AnswerFile
    from cogview.evaluation.questionnaire.folder import ANSWERS, read_questionnaire
    from cogview.evaluation.questionnaire.server import QuestionnaireServer

    questionnaire = read_questionnaire(folder)
    answers = AnswerFile(folder / ANSWERS, questionnaire)
    try:
        with QuestionnaireServer(questionnaire, answers, host, port) as server:
            print(f"open {server.url} in a browser; Ctrl-C ends it", file=sys.stderr, flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                num_answers, num_raters = answers.counts()
                summary = f"{num_answers:,} answers of {num_raters:,} raters are in {folder / ANSWERS}"
                print(f"\n{summary}; see them: cogview evaluate answers {folder}", file=sys.stderr)
    finally:
        answers.close()


def _answers_table(figures: Mapping[str, Any]) -> list[str]:
    """Format the figures: a table of systems with the agreement of raters."""
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
    """Format a figure with its interval, if it has one."""
    value, low, high = (None if each is None else scale * each for each in figure.values())
    return f"{value:.2f}" if low is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _alpha(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
