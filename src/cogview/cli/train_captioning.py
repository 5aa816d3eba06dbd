"""`cogview train captioning`: learns to write captions of pictures."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.recipes.config import CaptioningRecipe

RECIPES = "cogview.recipes.captioning"


def run(
    recipe: Annotated[CaptioningRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    base: str | None = None,
    held_out: Path | None = None,
    licence: str = "",
    start_from: Path | None = None,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn to write captions of pictures, beside a model that draws already.

    Args:
        recipe: adapter and training.
        data: tokens of captioned pictures, made by `cogview tokenize` with the model's own tokenizers.
        out: the run folder to make; its model/ will be the adapter, which `cogview caption --captioner` takes.
        base: the model: a folder, a run, or OWNER/NAME on the Hugging Face hub; the bundled one by default.
        held_out: tokens, made by the same tokenizers, on which CapLoss is measured at the end, and how often a
            picture's own caption has the lowest among many.
        licence: of the pictures and captions, and so of the adapter, for its card: CC-BY-4.0, for instance.
        start_from: an adapter of the same shape, its folder or its run, whose weights the run starts with.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.captioning_run import train_captioning

    train_captioning(
        recipe, data, out, base, held_out, licence, start_from=start_from, resume=resume, as_json=json
    )
