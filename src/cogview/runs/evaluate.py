"""Evaluation from Python, dispatched by the class of the options."""

from collections.abc import Callable
from typing import Any, TypeAlias

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

EvaluationOptions: TypeAlias = (
    AnswersOptions
    | AttentionEvaluationOptions
    | CompositionEvaluationOptions
    | ModelEvaluationOptions
    | QuestionnaireOptions
    | TextToImageEvaluationOptions
    | TokenizerEvaluationOptions
)


def evaluate(options: EvaluationOptions) -> EvaluationResult | None:
    """Evaluate as `cogview evaluate` does.

        result = cogview.evaluate(TextToImageEvaluationOptions(images=Path("pictures"), candidates=4))

    Slow results are kept in the folder `out`, so the same options resume there.

    Args:
        options: their class selects the evaluation.

    Returns:
        The figures and the written files; None in all processes of `torchrun` but the first.

    Raises:
        UsageError: the options cannot be carried out.
        CogViewError: something cannot be read or written.
    """
    run: Callable[[Any], EvaluationResult | None]
    match options:
        case TextToImageEvaluationOptions():
            from cogview.runs.evaluate_text_to_image import evaluate_text_to_image as run
        case CompositionEvaluationOptions():
            from cogview.runs.evaluate_composition import evaluate_composition as run
        case TokenizerEvaluationOptions():
            from cogview.runs.evaluate_tokenizer import evaluate_tokenizer as run
        case AttentionEvaluationOptions():
            from cogview.runs.evaluate_attention import evaluate_attention as run
        case ModelEvaluationOptions():
            from cogview.runs.evaluate_model import evaluate_model as run
        case QuestionnaireOptions():
            from cogview.runs.questionnaire import make_questionnaire as run
        case AnswersOptions():
            from cogview.runs.questionnaire import evaluate_answers as run
    return run(options)
