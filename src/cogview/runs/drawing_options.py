"""Options of drawing, captioning, ranking and upscaling pictures; torch is not imported here."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cogview.decoding.config import CacheName, Sampler
from cogview.runs.model_options import ModelOptions, SamplingOptions


def shared_fields(options: object, wanted: type) -> dict[str, Any]:
    """Return the values of those options that are fields of another class."""
    return {field.name: getattr(options, field.name) for field in fields(wanted)}


@dataclass(frozen=True, kw_only=True)
class DrawPicturesOptions(ModelOptions, SamplingOptions):
    """Options of drawing pictures: those of `PictureOptions`, with adapters by name or path.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        prompts: a UTF-8 file with one text per line, or - for standard input; replaces texts.
        num_candidates: candidates per text.
        keep: keep this many candidates, the best by CapLoss; by default all, unranked; fewer need a captioner.
        seed: seed of each text's first candidate, counting up from there; random picks one and prints it.
        adapter: draw with this adapter: a name in the model, a folder, or its training run.
        adapter_strength: multiply the adapter's effect; below 1 weakens a style and keeps things closer to the model's
            own.
        captioner: rank all candidates with this captioner: a name in the model, a folder, or its training run; by
            default the model's own.
        rank_by: rank by CapLoss (caption), or by how well the given codes fit the codes drawn after them (fit).
        upscale: draw kept pictures at 2 or 4 times the encoded size, by the decoder, else by an upscaler.
        upscaler: upscale with this upscaler: a name in the model, a folder, or its training run.
        size_pixels: side of the decoded pictures: 128, 256 or 512 for the bundled model, by default 256; the codes are
            the same.
        sampler: how random numbers select codes; picture files record it, and older ones without it used inversion.
        balance_words: add a gender and a skin tone to each word for people ("a doctor", 医生), varied by seed.
        image: redraw a part of this picture and keep its other codes.
        mask: part to redraw: upper, lower, left, right, a share of the codes such as 0.3, or a same-shaped picture that
            is white there.
        keeps_pixels: restore the exact pixels of the image outside the mask.
        strict: make words that the model has never seen an error rather than a warning.
        out: the folder in which the numbered folder is made.
        sheet_scale: enlarge pictures on contact sheets by this factor; the files keep their size.
        preview: a PNG to update with all unfinished candidates, a few times a second; takes a few per cent more time.
        dtype: of the weights; by default float32 (or stored int8) on CPU, bfloat16 on a GPU; int8 is fastest and
            smallest on CPU.
        max_batch: largest number of pictures drawn at once.
        memory: limit of the whole process, such as 6GiB or 800MB, to which the batch is fitted; by default all there
            is.
        cache: dtype of cached keys and values; float16 halves their memory.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    prompts: str | None = None
    num_candidates: int = 4
    keep: int | None = None
    seed: int | Literal["random"] = 0
    adapter: str | None = None
    adapter_strength: float = 1.0
    captioner: str | None = None
    rank_by: Literal["caption", "fit"] = "caption"
    upscale: Literal[1, 2, 4] = 1
    upscaler: str | None = None
    size_pixels: Annotated[int | None, tyro.conf.arg(name="size")] = None
    sampler: Sampler = "gumbel"
    balance_words: bool = False
    image: Path | None = None
    mask: str | None = None
    keeps_pixels: Annotated[bool, tyro.conf.arg(name="keep-pixels")] = False
    strict: bool = False
    out: Path = Path("out")
    sheet_scale: int = 1
    preview: Path | None = None
    max_batch: int = 16
    memory: str | None = None
    cache: CacheName = "auto"


@dataclass(frozen=True, kw_only=True)
class CaptionPicturesOptions(ModelOptions):
    """Options of captioning: those of `CaptionOptions`, with the captioner by name or path.

    Args:
        pictures: picture files; other sizes are scaled and cropped to the middle square.
        captioner: a name in the model, a folder, or its training run; by default the model's own.
        num_captions: captions per picture.
        num_beams: beam width; 1 is greedy decoding.
        temperature: above 0, sample captions instead of beam search.
        top_k: sample from this many most probable pieces.
        top_p: sample from the fewest pieces with this total probability.
        seed: seed of each picture's first sampled caption.
        max_pieces: longest caption in pieces; by default all the model has room for.
        length_penalty: 0 prefers short captions, 1 ranks by mean log-probability per piece.
        language: zh or en: exclude pieces in letters of other scripts; by default the model chooses.
        strict: make pictures that the image tokenizer reconstructs poorly an error rather than a warning.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    captioner: str | None = None
    num_captions: int = 1
    num_beams: int = 4
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    max_pieces: int | None = None
    length_penalty: float = 1.0
    language: Literal["zh", "en"] | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class RankPicturesOptions(ModelOptions):
    """Options of ranking pictures for a text.

    Args:
        text: the text to rank for, in quotation marks.
        pictures: picture files; other sizes are scaled and cropped to the middle square.
        captioner: a name in the model, a folder, or its training run; by default the model's own.
        strict: make unknown words and poorly reconstructed pictures an error rather than a warning.
    """

    text: tyro.conf.Positional[str]
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    captioner: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class UpscalePicturesOptions(ModelOptions):
    """Options of upscaling: those of `UpscaleOptions`, with the upscaler by name or path.

    Args:
        text: what the pictures show, in quotation marks; read by an upscaler.
        pictures: picture files; other sizes are scaled to the model's and cropped to the middle square.
        upscaler: a name in the model, a folder, or its training run.
        factor: size of the result relative to the encoded size.
        seed: seed of the first picture, counting up from there.
        temperature: of an upscaler: below 1 prefers probable codes, 0 takes the most probable; by default its own.
        top_k: of an upscaler: sample from this many most probable codes.
        top_p: of an upscaler: sample from the fewest codes with this total probability, 1 from all; by default 0.8.
        out: the folder in which the numbered folder is made.
        strict: make words that the model has never seen an error rather than a warning, if an upscaler reads them.
        force: accept poorly reconstructed pictures, with a warning, and pictures that already have as many pixels.
    """

    text: tyro.conf.Positional[str]
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    upscaler: str | None = None
    factor: Literal[2, 4] = 2
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    out: Path = Path("out")
    strict: bool = False
    force: bool = False
