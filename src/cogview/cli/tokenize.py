"""`cogview tokenize`: turns pictures and captions into codes and pieces for training."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cogview.cli.report import print_result
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    from cogview.data.ranks import Ranks


def run(
    data: Path,
    /,
    *,
    out: Path,
    image_tokenizer: Path | None = None,
    text_tokenizer: Path | None = None,
    size_pixels: int | None = None,
    split: str = "train",
    max_text_pieces: int = 40,
    batch_size: int = 64,
    num_workers: int = 0,
    pairs_per_shard: int = 10_000,
    device: str | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
    json: bool = False,
) -> None:
    """Turn pictures and captions into codes and pieces for training.

    The tokenizers are kept beside the tokens, so that training needs nothing else. A picture that cannot be used is
    left out, counted and listed in problems.jsonl. A command that was stopped or killed goes on when it is given again.
    Started by torchrun, each process does its share, on a GPU of its own if there are GPUs.

    Args:
        data: a folder of pictures (with metadata.jsonl, or a .txt or .json beside each) or of WebDataset tars or both,
            or one tar.
        out: the folder of tokens to make.
        image_tokenizer: its folder, the run that trained it, or a model folder; the bundled one by default.
        text_tokenizer: a SentencePiece file, a model folder, or the run of a model; the bundled one by default.
        size_pixels: side of the square that pictures are resized and cropped to; that of the image tokenizer's run by
            default, otherwise 128.
        split: take the pictures that name this split or none.
        max_text_pieces: count captions that have more pieces; they are kept whole.
        batch_size: pictures encoded at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        pairs_per_shard: pictures of the data set in one file of tokens; a kill costs the work on one at most.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        precision: of the encoder; auto is bfloat16 where the device has instructions for it, which is twice as fast and
            turns some codes into near neighbours, one in 700 or one in 15 as the codebook is.
        json: print the result as JSON.
    """
    import torch

    from cogview.data.ranks import Ranks
    from cogview.data.tokenization import tokenize_folder
    from cogview.data.unfinished import unfinished_folder
    from cogview.generation.placement import resolve_device
    from cogview.runs.tokenizers import (
        IMAGE_TOKENIZER,
        TEXT_TOKENIZER,
        fitting_size,
        open_image_tokenizer,
        open_text_tokenizer,
    )
    from cogview.training.precision import resolve_precision
    from cogview.world.packages import CREDITS_FILE

    ranks = Ranks.from_environment(os.environ)
    words = open_text_tokenizer(text_tokenizer)
    place = resolve_device(_device_of(device, ranks))
    dtype = torch.bfloat16 if resolve_precision(precision, place) == "bfloat16" else torch.float32
    pictures = open_image_tokenizer(image_tokenizer, place, dtype)
    torch.backends.cudnn.deterministic = (
        True  # a run that was killed and one that was not give the same codes
    )
    size_pixels = fitting_size(size_pixels, pictures, image_tokenizer)

    def add_tokenizers(folder: Path) -> None:
        words.save(folder / TEXT_TOKENIZER)
        pictures.save_pretrained(folder / IMAGE_TOKENIZER)
        if (data / CREDITS_FILE).is_file():
            shutil.copyfile(data / CREDITS_FILE, folder / CREDITS_FILE)

    try:
        with progress_bar("tokenizing", "pictures") as move:
            report = tokenize_folder(
                data,
                out,
                pictures,
                words,
                size_pixels=size_pixels,
                split=split,
                max_text_pieces=max_text_pieces,
                batch_size=batch_size,
                num_workers=num_workers,
                pairs_per_shard=pairs_per_shard,
                ranks=ranks,
                progress=move if ranks.rank == 0 else None,
                complete=add_tokenizers,
            )
    except KeyboardInterrupt as stop:
        if not unfinished_folder(out).exists():
            raise
        raise KeyboardInterrupt(
            f"Stopped. What is done lies in {unfinished_folder(out)}; the same command goes on."
        ) from stop
    if report is None:
        line = f"rank {ranks.rank} of {ranks.num_ranks} is done; the last to finish writes {out}"
        print_result({"folder": None, "rank": ranks.rank}, [line], json)
        return
    print_result({"folder": out, **report.to_json()}, [report.to_text(), str(out)], json)


def _device_of(device: str | None, ranks: "Ranks") -> str | None:
    """Return the device that was asked for; of several processes on a machine each takes a GPU of its own."""
    import torch

    if ranks.num_ranks > 1 and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{ranks.local_rank}"
    return device
