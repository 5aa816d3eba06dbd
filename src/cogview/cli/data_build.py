"""`cogview data build`: draws the default data set."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.cli.report import print_result, progress_bar
from cogview.recipes.config import DataRecipe

RECIPES = "cogview.recipes.default_data"


def run(
    recipe: Annotated[DataRecipe, tyro.conf.arg(name="")],
    *,
    out: Path,
    json: bool = False,
) -> None:
    """Draw the default data set: icons and composed scenes, with captions in Chinese and English.

    Args:
        recipe: what to draw; the same options give the same bytes. The icons come from npm packages that are fetched
            once and kept, or, with --data.packages-folder, from a folder.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.data.builder import build_default_data

    with progress_bar("drawing", "pictures") as move:
        sizes = build_default_data(recipe.data, out, move)
    lines = [f"{number} pictures of {split}" for split, number in sizes.items()]
    print_result({"folder": out, "num_pictures": sizes}, [*lines, str(out)], json)
