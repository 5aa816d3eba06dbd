"""`cogview data build`, `data check`, `tokenize` and `convert`: what trainings and models are made of."""

import os
from pathlib import Path
from typing import Annotated

from cogview.cli.report import print_result
from cogview.errors import CogViewError
from cogview.recipes.config import DataRecipe
from cogview.runs.data_options import CheckDataOptions, ConvertOptions, TokenizeOptions
from cogview.runs.flags import FLAT

RECIPES = {"build": "cogview.recipes.default_data"}


def build(recipe: Annotated[DataRecipe, FLAT], *, out: Path, json: bool = False) -> None:
    """Make a data set: icons and composed scenes with captions in Chinese and English, or what else the recipe says.

    Args:
        recipe: what to make; the same options give the same bytes. Icons come from npm packages that are fetched once
            and kept, or, with --data.packages-folder, from a folder.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.runs.data_sets import build_data

    sizes = build_data(recipe, out)
    lines = [f"{number} pictures of {split}" for split, number in sizes.items()]
    print_result({"folder": out, "num_pictures": sizes}, [*lines, str(out)], json)


def check(options: Annotated[CheckDataOptions, FLAT], *, strict: bool = False, json: bool = False) -> None:
    """Look through a folder of pictures and captions: counts, sizes, lengths of captions, and what is broken.

    Every picture is decoded, nothing is written.

    Args:
        options: which, and what is counted.
        strict: end with exit code 1, after the report, if there is any problem or a picture without captions.
        json: print the result as JSON.
    """
    from cogview.runs.data_sets import check_data

    report = check_data(options)
    print_result(report.to_json(), [report.to_text()], json)
    if strict and (report.num_problems or report.num_without_caption):
        raise CogViewError(
            f"{options.data} has {report.num_problems:,} problems and {report.num_without_caption:,} pictures whose "
            "captions are empty: mend or remove what the report lists, or leave --strict out"
        )


def tokenize(options: Annotated[TokenizeOptions, FLAT], *, json: bool = False) -> None:
    """Turn pictures and captions into codes and pieces for training.

    The tokenizers are kept beside the tokens, so that training needs nothing else. A picture that cannot be used is
    left out, counted and listed in problems.jsonl. A command that was stopped or killed goes on when it is given again.
    Started by torchrun, each process does its share, on a GPU of its own if there are GPUs.

    Args:
        options: which, and how.
        json: print the result as JSON.
    """
    from cogview.data.ranks import Ranks
    from cogview.runs import tokenize as run

    report = run.tokenize(options)
    if report is not None:
        print_result({"folder": options.out, **report.to_json()}, [report.to_text(), str(options.out)], json)
        return
    ranks = Ranks.from_environment(os.environ)
    line = f"rank {ranks.rank} of {ranks.num_ranks} is done; the last to finish writes {options.out}"
    print_result({"folder": None, "rank": ranks.rank}, [line], json)


def convert(options: Annotated[ConvertOptions, FLAT], *, json: bool = False) -> None:
    """Make a folder of ours of another project's checkpoint, which is recognised by what it holds.

    Recognised are the transformers that the authors released in 2021 (a folder with latest, or with
    mp_rank_00_model_states.pt); image tokenizers: the released one (a .pt file with enc_b, quantize_t and dec), and
    VQGANs of the layout in which they were first published (encoder.down, decoder.up, quantize.embedding); and the
    release's token sets. What trainers and wrappers put around weights is taken away. Nothing in a checkpoint is run,
    whatever it names.

    Args:
        options: what, and into what.
        json: print the result as JSON.
    """
    from cogview.runs import convert as run

    facts, lines = run.convert(options)
    print_result(facts, [*lines, str(options.out)], json)
