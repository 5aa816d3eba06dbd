"""What is asked for of the runs that draw pictures, look at them or draw them larger. torch is not imported here."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cogview.decoding.config import CacheName, Sampler
from cogview.runs.model_options import ModelOptions, SamplingOptions


def shared_fields(options: object, wanted: type) -> dict[str, Any]:
    """Return by name the fields of an options class that other options hold too."""
    return {field.name: getattr(options, field.name) for field in fields(wanted)}


@dataclass(frozen=True, kw_only=True)
class DrawPicturesOptions(ModelOptions, SamplingOptions):
    """Which texts are drawn, how, and where the pictures go: all of `PictureOptions`, with adapters by name or path.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        prompts: a file with a text on each line, in UTF-8, or - for the standard input; in the place of texts.
        num_candidates: pictures of each text.
        keep: how many of them to keep, the best by CapLoss, in this order; all, unranked, by default. Fewer need a
            captioner.
        seed: of the first candidate of each text, the next has the next seed. A seed always draws the same picture;
            random takes one that is told.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        adapter_strength: let the adapter add so many times what it learnt to add: below 1 a style is weaker, and things
            are more as the model draws them without.
        captioner: rank with it: the name of one that the model has, or a folder, or the run that trained it; the
            model's own by default. If it is given, all candidates are ranked by default.
        rank_by: keep the best by CapLoss, or by how well the given codes behind what was drawn fit it.
        upscale: draw those that are kept at 2 or 4 times the size that is encoded, by the image tokenizer's decoder, or
            by an upscaler if there is no decoder for that size.
        upscaler: upscale with it: the name of one that the model has, or a folder, or the run that trained it.
        size_pixels: of the pictures in pixels a side: 128, 256 or 512 for the bundled model, 256 by default; other
            models have the sizes that their image tokenizer's decoders draw. The codes are the same.
        sampler: how random numbers become codes. A picture's file names it; those that name none are drawn again by
            inversion.
        balance_words: give each word for people ("a doctor", 医生) a gender and a skin tone, in turn from seed to seed.
        image: draw a part of this picture anew, and leave the rest of its codes as they are.
        mask: which part of it: upper, lower, left or right, a share of the codes such as 0.3, elsewhere for each seed,
            or a picture of the same shape that is white there.
        keeps_pixels: give back exactly the pixels of the image outside of the mask.
        strict: end with an error, rather than a warning, for words that the model has never seen.
        out: the folder in which the numbered folder is made.
        sheet_scale: enlarge the pictures on contact sheets so many times, by plain resampling; the files stay as drawn.
        preview: a PNG that shows all candidates while they grow, a few times a second; in few per cent of the time.
        dtype: of the weights; float32 on CPU, or int8 if they are stored so, and bfloat16 on a GPU by default. int8 is
            for CPUs, takes a quarter of float32's memory and is the fastest.
        max_batch: pictures that are worked on at once, at most.
        memory: of the whole process, such as 6GiB or 800MB: fewer pictures are worked on at once where more would need
            more; as much as there is by default.
        cache: what keys and values are held in; float16 halves them.
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
    """Which pictures are captioned, and how: all of `CaptionOptions`, with the captioner by name or path.

    Args:
        pictures: their files; other sizes are scaled and the middle square is cut out.
        captioner: the name of one that the model has, or a folder, or the run that trained it; the model's own by
            default.
        num_captions: of each picture.
        num_beams: width of the beam search; 1 takes the most probable piece each time.
        temperature: over 0, draw the captions instead.
        top_k: draw from so many most probable pieces only.
        top_p: draw from the fewest pieces that hold this share of the probability.
        seed: of the first caption drawn of each picture.
        max_pieces: of a caption; as many as the model has room for by default.
        length_penalty: 0 prefers short captions, 1 ranks by the mean log-probability of a piece.
        language: zh or en: pieces with letters of other scripts are not written; as the model likes by default.
        strict: end with an error, rather than a warning, if the image tokenizer hardly keeps a picture.
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
    """Which pictures are ranked, and for which text.

    Args:
        text: what is looked for, in quotation marks.
        pictures: their files; other sizes are scaled and the middle square is cut out.
        captioner: the name of one that the model has, or a folder, or the run that trained it; the model's own by
            default.
        strict: end with an error, rather than a warning, for words that the model has never seen and pictures that the
            image tokenizer hardly keeps.
    """

    text: tyro.conf.Positional[str]
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    captioner: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class UpscalePicturesOptions(ModelOptions):
    """Which pictures are upscaled, how, and where they go: all of `UpscaleOptions`, with the upscaler by name or path.

    Args:
        text: what the pictures show, in quotation marks; an upscaler reads it.
        pictures: their files; other sizes than the model's are scaled to it and the middle square is cut out.
        upscaler: the name of one that the model has, or a folder, or the run that trained it.
        factor: so many times the size that the model encodes.
        seed: of the first picture, the next has the next seed.
        temperature: of an upscaler: below 1 prefers probable codes, above 1 levels them, 0 takes the most probable; its
            own by default.
        top_k: of an upscaler: draw from so many most probable codes only.
        top_p: of an upscaler: draw from the fewest codes that hold this share of the probability; 0.8 by default, 1
            draws from all.
        out: the folder in which the numbered folder is made.
        strict: end with an error, rather than a warning, for words that the model has never seen, if an upscaler reads
            them.
        force: take pictures that the image tokenizer hardly keeps, with a warning, and those that have as many pixels
            already.
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
