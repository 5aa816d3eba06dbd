"""`cogview train style`: learns a style from some pictures of it."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.recipes.config import StyleRecipe

RECIPES = "cogview.recipes.style"


def run(
    recipe: Annotated[StyleRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    base: str | None = None,
    style: str | None = None,
    licence: str = "",
    sample_texts: tuple[str, ...] = (),
    start_from: Path | None = None,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn a style from some pictures of it, beside a model that draws already.

    Args:
        recipe: adapter and training.
        data: tokens of the pictures, made by `cogview tokenize` with the model's own tokenizers.
        out: the run folder to make; its model/ will be the adapter, which `cogview generate --adapter` takes.
        base: the model: a folder, a run, or OWNER/NAME on the Hugging Face hub; the bundled one by default.
        style: its name; every picture then has the text "An image of NAME style", in English or Chinese, whatever its
            captions are. They are learnt as they are by default.
        licence: of the pictures, and so of the adapter, for its card: CC-BY-SA-4.0, for instance.
        sample_texts: what the sample sheets show; things "of NAME style", or captions of the tokens, by default.
        start_from: an adapter of the same shape, its folder or its run, whose weights the run starts with.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.style_run import train_style

    train_style(
        recipe,
        data,
        out,
        base,
        style,
        licence,
        sample_texts,
        start_from=start_from,
        resume=resume,
        as_json=json,
    )
