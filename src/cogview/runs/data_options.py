"""Options of tokenizing, checking and converting data; torch is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from cogview.text.config import CaptionCase


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """Options of tokenizing a data set.

    Args:
        data: a folder of pictures (with metadata.jsonl, or a .txt or .json beside each) or WebDataset tars, or one tar.
        out: the folder of tokens to make.
        image_tokenizer: its folder, the run that trained it, or a model folder; by default the bundled one.
        text_tokenizer: a SentencePiece or YouTokenToMe file, a model folder or a run; by default the bundled one.
        size_pixels: resize and crop pictures to this side; by default that of the model or run that --image-tokenizer
            names, else 128.
        text_case: read captions as_written or in lower case; by default as the model that --text-tokenizer names does.
        split: take pictures of this split and those without a split.
        max_text_pieces: count captions with more pieces; they are kept whole.
        batch_size: pictures per encoder batch.
        num_workers: processes that decode pictures; 0 decodes in the main process.
        pairs_per_shard: pictures per file of tokens; a killed run loses the work on one file at most.
        device: cpu, cuda, cuda:1, ...; by default a GPU if there is one.
        precision: of the encoder; auto is bfloat16 where supported: twice as fast, but 1 in 15 to 1 in 700 codes
            change.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    image_tokenizer: Path | None = None
    text_tokenizer: Path | None = None
    size_pixels: int | None = None
    text_case: CaptionCase | None = None
    split: str = "train"
    max_text_pieces: int = 40
    batch_size: int = 64
    num_workers: int = 0
    pairs_per_shard: int = 10_000
    device: str | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions:
    """Options of checking a data set.

    Args:
        data: a folder of pictures (with metadata.jsonl, or a .txt or .json beside each) or WebDataset tars, or one tar.
            pieces; by default none.
        image_tokenizer: tokenizer for a released transformer or token set: the converted one of 8,192 codes; by default
            none.
        num_heads: attention heads of a transformer; by default heads of 64 channels, or those of the published models.
        sequence: token order of ruDALL-E, if its file has no masks, where there is no default: v3 for Malevich v3,
            Surrealist and Kandinsky, v2 for Malevich v2 and Emojich.
        kernel_sizes: squares of RuDOLPH's masks in every fourth and in the last layer, if its file has no masks; by
            default those of the published widths.
        max_text_pieces: count captions with more pieces.
        num_workers: processes that decode pictures; 0 decodes in the main process.
    """

    data: tyro.conf.Positional[Path]
    split: str | None = None
    size_pixels: int | None = None
    text_tokenizer: Path | None = None
    max_text_pieces: int = 40
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of converting a checkpoint or token set.

    Args:
        source: a checkpoint or token set; with --download OWNER/NAME or OWNER/NAME:FILE on the Hugging Face hub; with
            --to released a model folder or tokens of this program; with --to int8 a model folder.
        out: the folder to make, or the file of a token set.
        download: download the source from the Hugging Face hub; its size is told first, and its checksum kept.
        to: cogview: this program's layout; released: the authors' layout in float16; int8: a model with 8-bit weights.
        task: task of a released transformer, by default text-to-image; others give an adapter's folder.
        text_tokenizer: tokenizer of a transformer or token set: its SentencePiece or YouTokenToMe file; with --download
            also OWNER/NAME:FILE. By default none.
        image_tokenizer: tokenizer of a transformer or token set: a converted one, or the checkpoint of one; with
            --download also OWNER/NAME:FILE. By default none.
        num_heads: attention heads of a transformer; by default heads of 64 channels, or those of the published models.
        sequence: token order of ruDALL-E, by default by its masks: v3 for Malevich v3, Surrealist and Kandinsky, v2 for
            Malevich v2 and Emojich.
        kernel_sizes: squares of RuDOLPH's masks in every fourth and in the last layer, by default those of its masks or
            of the published width.
        pixel_range: of a VQModel of diffusers, by default by its config.json: unit for [0, 1], as aMUSEd's; symmetric
            for [-1, 1], as latent diffusion's.
        num_ranks: with --to released, number of model-parallel files to split a transformer into; by default 1.
    """

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    download: bool = False
    to: Literal["cogview", "released", "int8"] = "cogview"
    task: Literal["text-to-image", "captioning", "super-resolution"] | None = None
    text_tokenizer: Path | None = None
    image_tokenizer: Path | None = None
    num_heads: int | None = None
    sequence: Literal["v2", "v3"] | None = None
    kernel_sizes: tuple[int, int] | None = None
    pixel_range: Literal["unit", "symmetric"] | None = None
    num_ranks: int | None = None
