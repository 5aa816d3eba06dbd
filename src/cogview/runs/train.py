"""Training from Python, dispatched by the class of the recipe."""

from typing import Any, TypeAlias

from cogview.errors import UsageError
from cogview.recipes.config import (
    CaptioningRecipe,
    DecoderRecipe,
    ImageTokenizerRecipe,
    StyleRecipe,
    SuperResolutionRecipe,
    TextToImageRecipe,
    VQGANRecipe,
)
from cogview.runs.training import DryRunResult, TrainingResult
from cogview.runs.training_options import (
    CaptioningOptions,
    DecoderOptions,
    ImageTokenizerOptions,
    StyleOptions,
    SuperResolutionOptions,
    TextToImageOptions,
    TrainingOptions,
    VQGANOptions,
)

TrainingRecipe: TypeAlias = (
    CaptioningRecipe
    | DecoderRecipe
    | ImageTokenizerRecipe
    | StyleRecipe
    | SuperResolutionRecipe
    | TextToImageRecipe
    | VQGANRecipe
)

OPTIONS_OF: dict[type, type[TrainingOptions]] = {
    CaptioningRecipe: CaptioningOptions,
    DecoderRecipe: DecoderOptions,
    ImageTokenizerRecipe: ImageTokenizerOptions,
    StyleRecipe: StyleOptions,
    SuperResolutionRecipe: SuperResolutionOptions,
    TextToImageRecipe: TextToImageOptions,
    VQGANRecipe: VQGANOptions,
}
"""Options and run of each recipe."""


def train(recipe: TrainingRecipe, options: TrainingOptions) -> TrainingResult | DryRunResult | None:
    """Train a recipe as `cogview train` does.

        cogview.train(text_to_image.small(), TextToImageOptions(data=tokens, out=run, start_from=Path("bundled")))

    The run folder gets metrics, sample sheets and checkpoints on the way, and the model at the end.

    Args:
        recipe: shape and training: one of `cogview.recipes`, or your own.
        options: files and names, of the class that goes with the recipe.

    Returns:
        The result, or that of a dry run; with `torchrun`, None in all processes but the first.

    Raises:
        UsageError: the options are for another recipe, or cannot be carried out.
        CogViewError: the data cannot be read, or the training failed.
        TrainingInterrupted: the run was stopped; finished work is kept, and `resume` continues it.
    """
    wanted = OPTIONS_OF[type(recipe)]
    if type(options) is not wanted:
        raise UsageError(
            f"a {type(recipe).__name__} is trained with {wanted.__name__}, got {type(options).__name__}"
        )
    run: Any
    match recipe:
        case TextToImageRecipe():
            from cogview.runs.text_to_image import train_text_to_image as run
        case StyleRecipe():
            from cogview.runs.style import train_style as run
        case CaptioningRecipe():
            from cogview.runs.captioning import train_captioning as run
        case SuperResolutionRecipe():
            from cogview.runs.super_resolution import train_super_resolution as run
        case DecoderRecipe():
            from cogview.runs.decoder import train_decoder as run
        case _:
            from cogview.runs.image_tokenizer import train_image_tokenizer as run
    result: TrainingResult | DryRunResult | None = run(recipe, options)
    return result
