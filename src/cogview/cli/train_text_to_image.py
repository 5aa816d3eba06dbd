"""`cogview train text-to-image`: learns to write codes after pieces."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.recipes.config import TextToImageRecipe

RECIPES = "cogview.recipes.text_to_image"


def run(
    recipe: Annotated[TextToImageRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    held_out: Path | None = None,
    start_from: Path | None = None,
    sample_texts: tuple[str, ...] = (),
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn to write codes after pieces.

    Args:
        recipe: shape and training of the transformer.
        data: tokens, as `cogview tokenize` makes them.
        out: the run folder to make; its model/ will be the whole model, which `cogview generate --model` takes.
        held_out: tokens, made by the same tokenizers, on which the loss is measured at the end.
        start_from: a model or a run to finetune, or the word bundled: its transformer goes on from there, on tokens of
            its own tokenizers.
        sample_texts: what the sample sheets show; captions of the tokens by default.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.text_to_image_run import train_text_to_image

    train_text_to_image(recipe, data, out, held_out, start_from, sample_texts, resume=resume, as_json=json)
