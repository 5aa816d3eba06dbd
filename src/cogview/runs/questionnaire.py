"""Runs that make a questionnaire about several systems' pictures, and evaluate its answers."""

import warnings

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.answers import read_answers
from cogview.evaluation.questionnaire.build import build_questionnaire
from cogview.evaluation.questionnaire.charts import draw_charts
from cogview.evaluation.questionnaire.figures import figures_of
from cogview.evaluation.questionnaire.folder import ANSWERS, read_key, read_questionnaire
from cogview.evaluation.questionnaire.systems import parse_systems, read_captions
from cogview.files import atomic_write_json
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_options import AnswersOptions, QuestionnaireOptions
from cogview.runs.progress_bar import progress_bar


def make_questionnaire(options: QuestionnaireOptions) -> EvaluationResult:
    """Make the folder of a blind questionnaire: a caption and a picture of each system per question.

    Args:
        options: pictures and captions.

    Returns:
        The number of questions, and the number of pictures without a caption by system.
    """
    if options.captions is None:
        raise UsageError("there is nothing to do: give --systems and --captions to make it, or --serve")
    asked = read_captions(options.captions)
    with progress_bar("copying", "pictures") as move:
        left_out = build_questionnaire(
            options.folder,
            parse_systems(options.systems),
            asked,
            title=options.title,
            questions_per_rater=options.questions_per_rater,
            size_pixels=options.size_pixels,
            progress=move,
        )
    return EvaluationResult(
        facts={"folder": str(options.folder), "num_questions": len(asked), "pictures_left_out": left_out}
    )


def evaluate_answers(options: AnswersOptions) -> EvaluationResult:
    """Compute preferences, mean scores and agreement between raters.

    Args:
        options: the questionnaire and its answers.

    Returns:
        The figures, in `figures.json`, and charts if matplotlib is installed.
    """
    folder, out = options.folder, options.out or options.folder
    questionnaire = read_questionnaire(folder)
    key = read_key(questionnaire)
    if not options.answers and not (folder / ANSWERS).exists():
        raise CogViewError(
            f"nobody has answered {folder} yet: ask with `cogview evaluate questionnaire {folder} --serve`, "
            "or name files of answers with --answers"
        )
    given = read_answers(options.answers or (folder / ANSWERS,), questionnaire)
    figures = figures_of(given, key, num_draws=options.draws, seed=options.seed)
    files = {"figures": out / "figures.json"}
    atomic_write_json(files["figures"], figures)
    if draw_charts(figures, out / "charts.png"):
        files["charts"] = out / "charts.png"
    else:
        warnings.warn(
            "The charts are left out, for want of matplotlib: pip install '.[plot]' in the checkout",
            stacklevel=1,
        )
    return EvaluationResult(facts=figures, files=files)
