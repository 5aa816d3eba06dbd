"""Run that turns pictures and captions into tokens for training."""

import os
import shutil
from pathlib import Path

import torch

from cogview.data.ranks import Ranks
from cogview.data.token_report import TokenizeReport
from cogview.data.token_work import unfinished_folder
from cogview.data.tokenization import tokenize_folder
from cogview.generation.devices import device_of_rank, resolve_device
from cogview.runs.data_options import TokenizeOptions
from cogview.runs.progress_bar import progress_bar
from cogview.runs.tokenizers import (
    IMAGE_TOKENIZER,
    TEXT_TOKENIZER,
    fitting_size,
    open_image_tokenizer,
    open_text_tokenizer,
    text_case_beside,
)
from cogview.training.precision import resolve_precision
from cogview.world.packages import CREDITS_FILE


def tokenize(options: TokenizeOptions) -> TokenizeReport | None:
    """Turn pictures and captions into tokens for training, as `cogview tokenize` does.

        cogview.tokenize(TokenizeOptions(data=pictures, out=tokens))

    Args:
        options: data set, tokenizers and output folder.

    Returns:
        The report; with `torchrun`, None in all processes but the last to finish.

    Raises:
        UsageError: the options cannot be carried out, or `out` holds something else.
        CogViewError: there is no usable data.
        KeyboardInterrupt: the run was stopped; finished work is kept, and the same call resumes.
    """
    ranks = Ranks.from_environment(os.environ)
    words = open_text_tokenizer(options.text_tokenizer)
    place = resolve_device(device_of_rank(options.device, ranks))
    dtype = torch.bfloat16 if resolve_precision(options.precision, place) == "bfloat16" else torch.float32
    pictures = open_image_tokenizer(options.image_tokenizer, place, dtype)
    # Resumed and uninterrupted runs must give the same codes.
    torch.backends.cudnn.deterministic = True

    def add_tokenizers(folder: Path) -> None:
        words.save(folder / TEXT_TOKENIZER)
        pictures.save_pretrained(folder / IMAGE_TOKENIZER)
        if (options.data / CREDITS_FILE).is_file():
            shutil.copyfile(options.data / CREDITS_FILE, folder / CREDITS_FILE)

    try:
        with progress_bar("tokenizing", "pictures") as move:
            report = tokenize_folder(
                options.data,
                options.out,
                pictures,
                words,
                size_pixels=fitting_size(options.size_pixels, pictures, options.image_tokenizer),
                text_case=options.text_case or text_case_beside(options.text_tokenizer),
                split=options.split,
                max_text_pieces=options.max_text_pieces,
                batch_size=options.batch_size,
                num_workers=options.num_workers,
                pairs_per_shard=options.pairs_per_shard,
                ranks=ranks,
                progress=move if ranks.rank == 0 else None,
                complete=add_tokenizers,
            )
    except KeyboardInterrupt as stop:
        if not unfinished_folder(options.out).exists():
            raise
        raise KeyboardInterrupt(
            f"Stopped. What is done lies in {unfinished_folder(options.out)}; the same command goes on."
        ) from stop
    return report
