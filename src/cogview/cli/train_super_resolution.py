"""`cogview train super-resolution`: learns to draw pictures at twice their rows and columns of codes."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.recipes.config import SuperResolutionRecipe

RECIPES = "cogview.recipes.super_resolution"


def run(
    recipe: Annotated[SuperResolutionRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    low: Path,
    out: Path,
    windows: Path | None = None,
    base: str | None = None,
    licence: str = "",
    start_from: Path | None = None,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn to draw pictures at twice their rows and columns of codes, beside a model that draws already.

    Args:
        recipe: adapter and training.
        data: tokens of the pictures at the larger size, made by `cogview tokenize` with the model's own tokenizers.
        low: tokens of the same pictures at half that size, the model's own.
        out: the run folder to make; its model/ will be the adapter.
        windows: tokens of the same pictures at twice the larger size, of which windows are learnt, for a second
            doubling.
        base: the model: a folder, a run, or OWNER/NAME on the Hugging Face hub; the bundled one by default.
        licence: of the pictures, and so of the adapter, for its card.
        start_from: an adapter of the same shape, its folder or its run, whose weights the run starts with.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.super_resolution_run import train_super_resolution

    train_super_resolution(
        recipe, data, low, out, windows, base, licence, start_from=start_from, resume=resume, as_json=json
    )
