"""What is asked for of the runs that make and look through data, and that convert. torch is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """Which pictures and captions become tokens, and how.

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
    """

    data: tyro.conf.Positional[Path]
    out: Path
    image_tokenizer: Path | None = None
    text_tokenizer: Path | None = None
    size_pixels: int | None = None
    split: str = "train"
    max_text_pieces: int = 40
    batch_size: int = 64
    num_workers: int = 0
    pairs_per_shard: int = 10_000
    device: str | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions:
    """Which pictures and captions are looked through, and what is counted.

    Args:
        data: a folder of pictures (with metadata.jsonl, or a .txt or .json beside each) or of WebDataset tars or both,
            or one tar.
        split: look only at the pictures that name this split or none.
        size_pixels: count the pictures that are smaller.
        text_tokenizer: a SentencePiece model to measure captions with; the bundled one by default.
        max_text_pieces: count the captions that have more pieces.
        num_workers: processes that decode; 0 does it in this one.
    """

    data: tyro.conf.Positional[Path]
    split: str | None = None
    size_pixels: int | None = None
    text_tokenizer: Path | None = None
    max_text_pieces: int = 40
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What is converted, and into what.

    Args:
        source: the checkpoint or token set; with --to released, a model folder or tokens of ours; with --to int8, a
            model folder.
        out: the folder to make, or the file of a token set.
        to: cogview for folders of ours; released for the layout of the authors' release, in float16; int8 for a model
            folder of ours at a quarter of float32's bytes, whose matrices are rounded to 8 bits by rows.
        task: what a released transformer has learnt, which its weights do not tell: text-to-image by default. Of the
            others a folder is made that --captioner and --upscaler take beside the model.
        text_tokenizer: to put beside a released transformer or its tokens: the authors' SentencePiece file of 50,000
            pieces.
        image_tokenizer: to put beside them: the converted image tokenizer of 8,192 codes.
        num_heads: of a released transformer, whose weights do not tell; heads of 64 channels by default.
        num_ranks: with --to released, files of model parallelism to cut a transformer into; 1 by default.
    """

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    to: Literal["cogview", "released", "int8"] = "cogview"
    task: Literal["text-to-image", "captioning", "super-resolution"] | None = None
    text_tokenizer: Path | None = None
    image_tokenizer: Path | None = None
    num_heads: int | None = None
    num_ranks: int | None = None
