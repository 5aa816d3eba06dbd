"""`cogview data check`: looks through a folder of pictures and captions."""

from pathlib import Path

from cogview.cli.report import print_result
from cogview.errors import CogViewError
from cogview.runs.progress_bar import progress_bar


def run(
    data: Path,
    /,
    *,
    split: str | None = None,
    size_pixels: int | None = None,
    text_tokenizer: Path | None = None,
    max_text_pieces: int = 40,
    num_workers: int = 0,
    strict: bool = False,
    json: bool = False,
) -> None:
    """Look through a folder of pictures and captions: counts, sizes, lengths of captions, and what is broken.

    Every picture is decoded, nothing is written.

    Args:
        data: a folder of pictures (with metadata.jsonl, or a .txt or .json beside each) or of WebDataset tars or both,
            or one tar.
        split: look only at the pictures that name this split or none.
        size_pixels: count the pictures that are smaller.
        text_tokenizer: a SentencePiece model to measure captions with; the bundled one by default.
        max_text_pieces: count the captions that have more pieces.
        num_workers: processes that decode; 0 does it in this one.
        strict: end with exit code 1, after the report, if there is any problem or a picture without captions.
        json: print the result as JSON.
    """
    from cogview.data.check import check_folder
    from cogview.runs.tokenizers import open_text_tokenizer

    with progress_bar("looking", "pictures") as move:
        report = check_folder(
            data,
            split=split,
            size_pixels=size_pixels,
            text_tokenizer=open_text_tokenizer(text_tokenizer),
            max_text_pieces=max_text_pieces,
            num_workers=num_workers,
            progress=move,
        )
    print_result(report.to_json(), [report.to_text()], json)
    if strict and (report.num_problems or report.num_without_caption):
        raise CogViewError(
            f"{data} has {report.num_problems:,} problems and {report.num_without_caption:,} pictures whose captions "
            "are empty: mend or remove what the report lists, or leave --strict out"
        )
