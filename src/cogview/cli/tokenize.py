"""`cogview tokenize`: turns pictures and captions into codes and pieces for training."""

import os
from typing import Annotated

from cogview.cli.report import print_result
from cogview.runs.data_options import TokenizeOptions
from cogview.runs.flags import FLAT


def run(options: Annotated[TokenizeOptions, FLAT], *, json: bool = False) -> None:
    """Turn pictures and captions into codes and pieces for training.

    The tokenizers are kept beside the tokens, so that training needs nothing else. A picture that cannot be used is
    left out, counted and listed in problems.jsonl. A command that was stopped or killed goes on when it is given again.
    Started by torchrun, each process does its share, on a GPU of its own if there are GPUs.

    Args:
        options: which, and how.
        json: print the result as JSON.
    """
    from cogview.data.ranks import Ranks
    from cogview.runs.tokenize import tokenize

    result = tokenize(options)
    if result is None:
        ranks = Ranks.from_environment(os.environ)
        line = f"rank {ranks.rank} of {ranks.num_ranks} is done; the last to finish writes {options.out}"
        print_result({"folder": None, "rank": ranks.rank}, [line], json)
        return
    facts, lines = result.report.to_json(), [result.report.to_text(), str(result.folder)]
    print_result({"folder": result.folder, **facts}, lines, json)
