"""`cogview data build`: draws the default data set."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.cli.report import print_result, progress_bar
from cogview.data.config import DefaultDataConfig


def run(
    out: Path, /, config: Annotated[DefaultDataConfig, tyro.conf.arg(name="")], *, json: bool = False
) -> None:
    """Draw the default data set: icons and composed scenes, with captions in Chinese and English.

    The same options give the same bytes. The icons come from npm packages, which are fetched once and kept; with
    --packages-folder nothing is fetched.

    Args:
        out: the folder to make.
        config: the data set.
        json: print the result as JSON.
    """
    from cogview.data.builder import build_default_data

    with progress_bar("drawing", "pictures") as move:
        sizes = build_default_data(config, out, move)
    lines = [f"{number} pictures of {split}" for split, number in sizes.items()]
    print_result({"folder": out, "num_pictures": sizes}, [*lines, str(out)], json)
