"""Options of drawing, captioning, ranking and upscaling pictures; torch is not imported here."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from cogview.decoding.config import Sampler
from cogview.runs.model_options import ModelOptions, ResourceOptions, SamplingOptions


def shared_fields(options: object, wanted: type) -> dict[str, Any]:
    """Return the values of those options that are fields of another class."""
    return {field.name: getattr(options, field.name) for field in fields(wanted)}


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Which candidates are kept.

    Args:
        keep: keep this many candidates, the best by CapLoss; by default all, unranked; fewer need a captioner.
        captioner: rank all candidates with this captioner: a name in the model, a folder, or its training run; by
            default the model's own.
        rank_by: rank by CapLoss (caption), or by how well the given codes fit the codes drawn after them (fit).
    """

    GROUP: ClassVar[str] = "ranking"

    keep: int | None = None
    captioner: str | None = None
    rank_by: Literal["caption", "fit"] = "caption"


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """The adapter to draw with.

    Args:
        adapter: draw with this adapter: a name in the model, a folder, or its training run; by default with none.
        adapter_strength: multiply the adapter's effect; below 1 weakens a style and keeps things closer to the model's
            own.
    """

    GROUP: ClassVar[str] = "adapter"

    adapter: str | None = None
    adapter_strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """Size of the pictures.

    Args:
        upscale: draw kept pictures at 2 or 4 times the encoded size, by the decoder, else by an upscaler.
        upscaler: upscale with this upscaler: a name in the model, a folder, or its training run; by default a decoder
            or the model's own.
        size_pixels: side of the decoded pictures: 128, 256 or 512 for the bundled model, by default 256; the codes are
            the same.
    """

    GROUP: ClassVar[str] = "size"

    upscale: Literal[1, 2, 4] = 1
    upscaler: str | None = None
    size_pixels: Annotated[int | None, tyro.conf.arg(name="size")] = None


@dataclass(frozen=True, kw_only=True)
class InpaintingOptions:
    """A picture to redraw in part.

    Args:
        image: redraw a part of this picture and keep its other codes; by default the whole picture is drawn.
        mask: part to redraw: upper, lower, left, right, a share of the codes such as 0.3, or a same-shaped picture that
            is white there; needed with an image, by default none.
        keeps_pixels: restore the exact pixels of the image outside the mask.
    """

    GROUP: ClassVar[str] = "inpainting"

    image: Path | None = None
    mask: str | None = None
    keeps_pixels: Annotated[bool, tyro.conf.arg(name="keep-pixels")] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The files to write.

    Args:
        out: the folder in which the numbered folder is made.
        sheet_scale: enlarge pictures on contact sheets by this factor; the files keep their size.
        preview: a PNG to update with all unfinished candidates, a few times a second, which takes a few per cent more
            time; by default none.
    """

    GROUP: ClassVar[str] = "output"

    out: Path = Path("out")
    sheet_scale: int = 1
    preview: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DrawPicturesOptions(
    ResourceOptions,
    ModelOptions,
    OutputOptions,
    InpaintingOptions,
    SizeOptions,
    AdapterOptions,
    RankingOptions,
    SamplingOptions,
):
    """Options of drawing pictures: those of `PictureOptions`, with adapters by name or path.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        prompts: a UTF-8 file with one text per line, or - for standard input; by default the texts of the command line.
        num_candidates: candidates per text.
        seed: seed of each text's first candidate, counting up from there; random picks one and prints it.
        sampler: how random numbers select codes; picture files record it, and older ones without it used inversion.
        balance_words: add a gender and a skin tone to each word for people ("a doctor", 医生), varied by seed.
        strict: make words that the model has never seen an error rather than a warning.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    prompts: str | None = None
    num_candidates: int = 4
    seed: int | Literal["random"] = 0
    sampler: Sampler = "gumbel"
    balance_words: bool = False
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class CaptionPicturesOptions(ModelOptions):
    """Options of captioning: those of `CaptionOptions`, with the captioner by name or path.

    Args:
        pictures: picture files; other sizes are scaled and cropped to the middle square.
        captioner: a name in the model, a folder, or its training run; by default the model's own.
        num_captions: captions per picture.
        num_beams: beam width; 1 is greedy decoding.
        temperature: above 0, sample captions instead of beam search.
        top_k: sample from this many most probable pieces; by default from all.
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
        upscaler: a name in the model, a folder, or its training run; by default a decoder or the model's own.
        factor: size of the result relative to the encoded size.
        seed: seed of the first picture, counting up from there.
        temperature: of an upscaler: below 1 prefers probable codes, 0 takes the most probable; by default its own.
        top_k: of an upscaler: sample from this many most probable codes; by default from all.
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
