"""`cogview tokenize`: turns pictures and captions into codes and pieces for training."""

from pathlib import Path

from cogview.cli.report import print_result, progress_bar
from cogview.errors import UsageError


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
    device: str | None = None,
    json: bool = False,
) -> None:
    """Turn pictures and captions into codes and pieces for training.

    The tokenizers are kept beside the tokens, so that training needs nothing else. A picture that cannot be used is
    left out and counted.

    Args:
        data: an image folder (metadata.jsonl, or a .txt file beside each picture), a folder of WebDataset tars, or one
            tar.
        out: the folder of tokens to make.
        image_tokenizer: its folder, the run that trained it, or a model folder; the bundled one by default.
        text_tokenizer: a SentencePiece file, or a model folder; the bundled one by default.
        size_pixels: side of the square that pictures are resized and cropped to; that of the image tokenizer's run by
            default, otherwise 128.
        split: take the pictures that name this split or none.
        max_text_pieces: count captions that have more pieces; they are kept whole.
        batch_size: pictures encoded at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        json: print the result as JSON.
    """
    from cogview.cli.tokenizers import (
        IMAGE_TOKENIZER,
        TEXT_TOKENIZER,
        fitting_size,
        open_image_tokenizer,
        open_text_tokenizer,
    )
    from cogview.data.tokenization import tokenize_folder
    from cogview.files import atomic_folder
    from cogview.generation.pipeline import resolve_device

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and isn't an empty folder; delete it or choose another")
    words = open_text_tokenizer(text_tokenizer)
    pictures = open_image_tokenizer(image_tokenizer, resolve_device(device))
    size_pixels = fitting_size(size_pixels, pictures, image_tokenizer)
    with atomic_folder(out) as unfinished, progress_bar("tokenizing", "pictures") as move:
        report = tokenize_folder(
            data,
            unfinished,
            pictures,
            words,
            size_pixels=size_pixels,
            split=split,
            max_text_pieces=max_text_pieces,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=move,
        )
        words.save(unfinished / TEXT_TOKENIZER)
        pictures.save_pretrained(unfinished / IMAGE_TOKENIZER)
    print_result({"folder": out, **report.to_json()}, [report.to_text(), str(out)], json)
