"""Runs that make and check data sets of captioned pictures."""

from pathlib import Path

from cogview.data.check import DataReport, check_folder
from cogview.recipes.config import DataRecipe
from cogview.runs.data_options import CheckDataOptions
from cogview.runs.progress_bar import progress_bar
from cogview.runs.tokenizers import open_text_tokenizer
from cogview.world.builder import build_default_data
from cogview.world.clothing import build_clothing_data
from cogview.world.config import ClothingDataConfig, PeopleDataConfig, StyleDataConfig
from cogview.world.people import build_people_data
from cogview.world.style_pictures import build_style_data


def build_data(recipe: DataRecipe, out: Path) -> dict[str, int]:
    """Make the data set of a recipe, and return the number of pictures by split.

    Args:
        recipe: contents of the data set.
        out: the folder to make.
    """
    with progress_bar("drawing", "pictures") as move:
        match recipe.data:
            case StyleDataConfig():
                return build_style_data(recipe.data, out, move)
            case PeopleDataConfig():
                return build_people_data(recipe.data, out, move)
            case ClothingDataConfig():
                return build_clothing_data(recipe.data, out, move)
            case _:
                sizes = build_default_data(recipe.data, out, move)
                return {str(split): number for split, number in sizes.items()}


def check_data(options: CheckDataOptions) -> DataReport:
    """Report counts, sizes, caption lengths and broken entries of a data set.

    Args:
        options: the data set and the limits to count by.
    """
    with progress_bar("looking", "pictures") as move:
        return check_folder(
            options.data,
            split=options.split,
            size_pixels=options.size_pixels,
            text_tokenizer=open_text_tokenizer(options.text_tokenizer),
            max_text_pieces=options.max_text_pieces,
            num_workers=options.num_workers,
            progress=move,
        )
