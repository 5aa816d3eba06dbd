"""`cogview evaluate`: measures whatever the next word says."""

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
    """Measure the pictures that a model draws for captions beside the real ones, as the paper does.

    Of each caption, some candidates are drawn and the best by CapLoss is kept. What is drawn is kept in the folder, so
    that a command that was stopped or killed goes on when it is given again, and one with another feature draws nothing
    again. Started by torchrun, each process draws its share and the first computes.

    Args:
        options: captions, model, and how both sides are seen.
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
    """Count how often drawn pictures of scenes show what is asked for: objects, colours, sizes, places, ground, style.

    A picture is read by comparing every place with every object of the data set, in each style, size and colour. The
    reader is measured in each run, on the real pictures of the same captions: as they are and as the image tokenizer
    redraws them, under their own captions and under others'. What is drawn is kept in the folder, so that a command
    that was stopped or killed goes on when it is given again. Started by torchrun, each process draws its share.

    Args:
        options: scenes, model, and how it draws.
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
    """Measure how well pictures survive an image tokenizer, and what their codes cost.

    Nothing is written but a picture of originals with their reconstructions below. What cannot be read is left out,
    counted and listed.

    Args:
        options: pictures and image tokenizer.
        json: print the result as JSON.
    """
    result = _evaluated(options)
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
    """Draw what each layer and head of a model looks at while it draws a picture for a text.

    Writes token.png, where one code of the picture looks in the picture drawn so far, by layer and head; text.png,
    which piece of the text each place of the picture looks at; scores.json and scores.txt, how large the scores of each
    head are and where its weights lie; and picture.png. Files of these names are replaced.

    Args:
        options: text, picture and place.
        json: print the result as JSON.
    """
    result = _evaluated(options)
    from cogview.evaluation.attention import comparison_of_heads

    lines = [
        "pieces: " + "  ".join(f"{number} {word}" for number, word in enumerate(result.facts["pieces"])),
        comparison_of_heads(result.facts["scores"]),
        *map(str, result.files.values()),
    ]
    print_result({**result.facts, "files": result.files}, lines, json)


def model(options: Annotated[ModelEvaluationOptions, FLAT], *, json: bool = False) -> None:
    """Make the report of a checkpoint: what it is, what it draws, its figures, what it was made by.

    Writes report.html, one page that needs no other file and no network, and report.json, all figures. The folder also
    keeps what is drawn, so that a command that was stopped or killed goes on when it is given again. What `cogview
    evaluate text-to-image --out FOLDER/text-to-image` and `cogview evaluate composition --out FOLDER/composition` left
    there is taken in.

    Args:
        options: the checkpoint, and what the report has of it.
        json: print the result as JSON.
    """
    result = _evaluated(options)
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
    appended to answers.jsonl in it. `cogview evaluate answers` tells what they say.

    Args:
        options: what raters are asked.
        serve: serve the questionnaire.
        host: the address to serve at; 127.0.0.1 is seen by this machine alone, 0.0.0.0 by its network.
        port: to serve at; 0 takes a free one.
        json: print the result as JSON.
    """
    folder = options.folder
    if options.systems or not serve:
        facts = _evaluated(options).facts
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
    """Tell what the answers to a questionnaire say: who was preferred, mean scores, how far raters agree.

    The figures go to figures.json and the charts to charts.png (which needs matplotlib, the extra `plot`).

    Args:
        options: the questionnaire, and where its answers are.
        json: print the figures as JSON.
    """
    result = _evaluated(options)
    lines = [*_answers_table(result.facts), *(f"{kind}: {path}" for kind, path in result.files.items())]
    print_result({**result.facts, "charts": result.files.get("charts")}, lines, json)


def _evaluated(options: Any) -> EvaluationResult:
    """Return what comes of an evaluation that one process makes."""
    result = evaluate(options)
    assert result is not None, "no processes share this work"
    return result


def _print_share(out: Path, as_json: bool) -> None:
    """Print that a process which is not the first of several has done its share."""
    from cogview.data.ranks import Ranks

    rank = Ranks.from_environment(os.environ).rank
    print_result({"folder": out, "rank": rank}, [f"rank {rank} has done its share"], as_json)


def _left_out(told: str, listed: Sequence[Mapping[str, str]], num: int) -> list[str]:
    """Return a line, then what was left out, as far as it is listed."""
    return [
        told + (":" if listed else ""),
        *(f"  {each['where']}: {each['reason']}" for each in listed),
        *([f"  and {num - len(listed):,} more"] if num > len(listed) else []),
    ]


def _serve(folder: Path, host: str, port: int) -> None:
    """Serve a questionnaire until Ctrl-C, or until the process is asked to end."""
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
                told = f"{num_answers:,} answers of {num_raters:,} raters are in {folder / ANSWERS}"
                print(f"\n{told}; see them: cogview evaluate answers {folder}", file=sys.stderr)
    finally:
        answers.close()


def _answers_table(figures: Mapping[str, Any]) -> list[str]:
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
