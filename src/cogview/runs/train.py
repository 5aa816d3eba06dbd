"""One way to train from Python: what is trained follows from the recipe."""

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
"""What goes with which recipe."""


def train(recipe: TrainingRecipe, options: TrainingOptions) -> TrainingResult | DryRunResult | None:
    """Train what a recipe is for: `cogview train` does it.

        cogview.train(text_to_image.small(), TextToImageOptions(data=tokens, out=run, start_from=Path("bundled")))

    Sample sheets, metrics and checkpoints come to lie in the run folder on the way, the model at the end.

    Args:
        recipe: one of `cogview.recipes`, or one of your own: shape and training.
        options: files and names, of the class that goes with the recipe.

    Returns:
        What came of it, or what two steps took; None in all processes but the first that `torchrun` started.

    Raises:
        UsageError: the options are for another recipe, or cannot be carried out.
        CogViewError: the data cannot be read, or the training came to nothing.
        TrainingInterrupted: it was stopped; what is done is kept, and `resume` goes on.
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
