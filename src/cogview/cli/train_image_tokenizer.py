"""`cogview train image-tokenizer`: learns the codes that pictures are made of."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.recipes.config import ImageTokenizerRecipe

RECIPES = "cogview.recipes.image_tokenizer"


def run(
    recipe: Annotated[ImageTokenizerRecipe, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    json: bool = False,
) -> None:
    """Learn the codes that pictures are made of.

    Args:
        recipe: shape and training of the image tokenizer.
        data: a folder of pictures or of WebDataset tars or both, or one tar; captions are not needed. Learnt
            from are the pictures that name the split "train" or none; held-out splits are for measuring.
        out: the run folder to make; its model/ will be the image tokenizer.
        resume: go on with the run that lies in the run folder.
        json: print the result as JSON.
    """
    from cogview.cli.image_tokenizer_run import train_image_tokenizer

    train_image_tokenizer(recipe, data, out, resume=resume, as_json=json)
