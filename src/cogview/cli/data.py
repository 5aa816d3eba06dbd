"""Verbs `cogview data check`, `tokenize` and `convert`."""

import os
from typing import Annotated

from cogview.cli.report import print_result
from cogview.errors import CogViewError
from cogview.runs.data_options import CheckDataOptions, ConvertOptions, TokenizeOptions
from cogview.runs.flags import FLAT


def check(options: Annotated[CheckDataOptions, FLAT], *, strict: bool = False, json: bool = False) -> None:
    """Check a folder of pictures and captions: counts, sizes, lengths of captions, and problems.

    Decodes every picture and writes nothing.

    Args:
        options: folder, and what to count.
        strict: after the report, fail with exit code 1 if there is a problem or a picture without captions.
        json: print the result as JSON.
    """
    from cogview.runs.data_sets import check_data

    report = check_data(options)
    print_result(report.to_json(), [report.to_text()], json)
    if strict and (report.num_problems or report.num_without_caption):
        raise CogViewError(
            f"{options.data} has {report.num_problems:,} problems and {report.num_without_caption:,} pictures whose "
            "captions are empty: fix or remove what the report lists, or leave --strict out"
        )


def tokenize(options: Annotated[TokenizeOptions, FLAT], *, json: bool = False) -> None:
    """Encode pictures and captions as codes and pieces for training.

    The tokenizers are copied beside the tokens, so that training needs nothing else. Unusable pictures are skipped,
    counted and listed in problems.jsonl. A stopped or killed command is resumed by the same command. Under torchrun,
    each process does its share, on its own GPU if there are GPUs.

    Args:
        options: data, tokenizers and settings.
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
    """Convert another project's checkpoint or tokens, whose format is detected.

    Supported are the transformers that the authors released in 2021 (a folder with latest, or with
    mp_rank_00_model_states.pt); the released image tokenizer (a .pt file with enc_b, quantize_t and dec); and the
    release's token sets. Of other projects: transformers of ruDALL-E and RuDOLPH; image tokenizers of
    taming-transformers (nearest or Gumbel codes), ruDALL-E (with or without wavelets), LlamaGen and Janus (alone or in
    the whole model), and folders of a VQModel of diffusers. Wrappers of trainers around weights are removed. No code of
    a checkpoint is run.

    Args:
        options: input and output.
        json: print the result as JSON.
    """
    from cogview.runs import convert as run

    facts, lines = run.convert(options)
    print_result(facts, [*lines, str(options.out)], json)
