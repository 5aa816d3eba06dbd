"""`cogview data build`: draws the default data set, and makes the others of the recipes."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.cli.report import print_result
from cogview.recipes.config import DataRecipe
from cogview.runs.progress_bar import progress_bar

RECIPES = "cogview.recipes.default_data"


def run(
    recipe: Annotated[DataRecipe, tyro.conf.arg(name="")],
    *,
    out: Path,
    json: bool = False,
) -> None:
    """Make a data set: icons and composed scenes with captions in Chinese and English, or what else the recipe says.

    Args:
        recipe: what to make; the same options give the same bytes. Icons come from npm packages that are fetched once
            and kept, or, with --data.packages-folder, from a folder.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.world.builder import build_default_data
    from cogview.world.clothing import build_clothing_data
    from cogview.world.config import ClothingDataConfig, PeopleDataConfig, StyleDataConfig
    from cogview.world.people import build_people_data
    from cogview.world.style_pictures import build_style_data

    with progress_bar("drawing", "pictures") as move:
        if isinstance(recipe.data, StyleDataConfig):
            sizes = build_style_data(recipe.data, out, move)
        elif isinstance(recipe.data, PeopleDataConfig):
            sizes = build_people_data(recipe.data, out, move)
        elif isinstance(recipe.data, ClothingDataConfig):
            sizes = build_clothing_data(recipe.data, out, move)
        else:
            sizes = {
                str(split): number for split, number in build_default_data(recipe.data, out, move).items()
            }
    lines = [f"{number} pictures of {split}" for split, number in sizes.items()]
    print_result({"folder": out, "num_pictures": sizes}, [*lines, str(out)], json)
