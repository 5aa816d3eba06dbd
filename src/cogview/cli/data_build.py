"""Verb `cogview data build`, apart from others whose help needs no recipes."""

from pathlib import Path
from typing import Annotated

from cogview.cli.report import print_result
from cogview.recipes.config import DataRecipe
from cogview.runs.flags import FLAT

RECIPES = "cogview.recipes.default_data"


def run(recipe: Annotated[DataRecipe, FLAT], *, out: Path, json: bool = False) -> None:
    """Make a recipe's data set: icons and composed scenes with captions in Chinese and English.

    Args:
        recipe: contents of the data set; the same options give the same bytes. Icons come from npm packages, which are
            downloaded once and cached, or from the folder --data.packages-folder.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.runs.data_sets import build_data

    sizes = build_data(recipe, out)
    lines = [f"{number} pictures of {split}" for split, number in sizes.items()]
    print_result({"folder": out, "num_pictures": sizes}, [*lines, str(out)], json)
