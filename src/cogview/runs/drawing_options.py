"""What is asked for of the runs that draw pictures, look at them or draw them larger. torch is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cogview.decoding.config import CacheName, Sampler
from cogview.errors import UsageError
from cogview.runs.flags import FLAT
from cogview.runs.model_options import ModelOptions, SamplingOptions


@dataclass(frozen=True, kw_only=True)
class PictureSettings(SamplingOptions):
    """How pictures are drawn: the fields of `PictureOptions`, with adapters by name or path.

    Args:
        sampler: how random numbers become codes. A picture's file names it; those that name none are drawn again by
            inversion.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        adapter_strength: let the adapter add so many times what it learnt to add: below 1 a style is weaker, and things
            are more as the model draws them without.
        strict: end with an error, rather than a warning, for words that the model has never seen.
        image: draw a part of this picture anew, and leave the rest of its codes as they are.
        mask: which part of it: upper, lower, left or right, a share of the codes such as 0.3, elsewhere for each seed,
            or a picture of the same shape that is white there.
        captioner: rank with it: the name of one that the model has, or a folder, or the run that trained it; the
            model's own by default. If it is given, all candidates are ranked by default.
        upscale: draw those that are kept at 2 or 4 times the size that is encoded, by the image tokenizer's decoder, or
            by a magnifier if there is no decoder for that size.
        magnifier: upscale with it: the name of one that the model has, or a folder, or the run that trained it.
        size_pixels: of the pictures in pixels a side: 128, 256 or 512 for the bundled model, 256 by default; other
            models have the sizes that their image tokenizer's decoders draw. The codes are the same.
        balance_words: give each word for people ("a doctor", 医生) a gender and a skin tone, in turn from seed to seed.
        keeps_pixels: give back exactly the pixels of the image outside of the mask.
        rank_by: keep the best by CapLoss, or by how well the given codes behind what was drawn fit it.
    """

    sampler: Sampler = "gumbel"
    adapter: str | None = None
    adapter_strength: float = 1.0
    strict: bool = False
    image: Path | None = None
    mask: str | None = None
    captioner: str | None = None
    upscale: Literal[1, 2, 4] = 1
    magnifier: str | None = None
    size_pixels: Annotated[int | None, tyro.conf.arg(name="size")] = None
    balance_words: bool = False
    keeps_pixels: Annotated[bool, tyro.conf.arg(name="keep-pixels")] = False
    rank_by: Literal["caption", "fit"] = "caption"


@dataclass(frozen=True, kw_only=True)
class DrawPicturesOptions(ModelOptions):
    """Which texts are drawn, how, and where the pictures go.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        prompts: a file with a text on each line, in UTF-8, or - for the standard input; in the place of texts.
        num_candidates: pictures of each text.
        keep: how many of them to keep, the best by CapLoss, in this order; all, unranked, by default. Fewer need a
            captioner.
        seed: of the first candidate of each text, the next has the next seed. A seed always draws the same picture;
            random takes one that is told.
        pictures: how they are drawn.
        out: the folder in which the numbered folder is made.
        sheet_scale: enlarge the pictures on contact sheets so many times, by plain resampling; the files stay as drawn.
        preview: a PNG that shows all candidates while they grow, a few times a second; in few per cent of the time.
        dtype: of the weights; float32 on CPU, or int8 if they are stored so, and bfloat16 on a GPU by default. int8 is
            for CPUs, takes a quarter of float32's memory and is the fastest.
        max_batch: pictures that are worked on at once, at most.
        memory: of the whole process, such as 6GiB or 800MB: fewer pictures are worked on at once where more would need
            more; as much as there is by default.
        cache: what keys and values are held in; float16 halves them.

    Raises:
        UsageError: an impossible number.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    prompts: str | None = None
    num_candidates: int = 4
    keep: int | None = None
    seed: int | Literal["random"] = 0
    pictures: Annotated[PictureSettings, FLAT] = PictureSettings()
    out: Path = Path("out")
    sheet_scale: int = 1
    preview: Path | None = None
    max_batch: int = 16
    memory: str | None = None
    cache: CacheName = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.sheet_scale <= 8:
            raise UsageError(f"--sheet-scale must be 1 to 8, got {self.sheet_scale}")


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """How captions are written: the fields of `CaptionOptions`, with the captioner by name or path.

    Args:
        temperature: over 0, draw the captions instead.
        top_k: draw from so many most probable pieces only.
        top_p: draw from the fewest pieces that hold this share of the probability.
        max_pieces: of a caption; as many as the model has room for by default.
        length_penalty: 0 prefers short captions, 1 ranks by the mean log-probability of a piece.
        captioner: the name of one that the model has, or a folder, or the run that trained it; the model's own by
            default.
        language: zh or en: pieces with letters of other scripts are not written; as the model likes by default.
        strict: end with an error, rather than a warning, if the image tokenizer hardly keeps a picture.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    max_pieces: int | None = None
    length_penalty: float = 1.0
    captioner: str | None = None
    language: Literal["zh", "en"] | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class CaptionPicturesOptions(ModelOptions):
    """Which pictures are captioned, and how.

    Args:
        pictures: their files; other sizes are scaled and the middle square is cut out.
        num_captions: of each picture.
        num_beams: width of the beam search; 1 takes the most probable piece each time.
        seed: of the first caption drawn of each picture.
        captions: how they are written.
    """

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    num_captions: int = 1
    num_beams: int = 4
    seed: int = 0
    captions: Annotated[CaptionSettings, FLAT] = CaptionSettings()


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
class UpscaleSettings:
    """How pictures are upscaled: the fields of `UpscaleOptions`, with the magnifier by name or path.

    Args:
        temperature: of a magnifier: below 1 prefers probable codes, above 1 levels them, 0 takes the most probable; its
            own by default.
        top_k: of a magnifier: draw from so many most probable codes only.
        top_p: of a magnifier: draw from the fewest codes that hold this share of the probability; 0.8 by default, 1
            draws from all.
        magnifier: the name of one that the model has, or a folder, or the run that trained it.
        strict: end with an error, rather than a warning, for words that the model has never seen, if a magnifier reads
            them.
        force: take pictures that the image tokenizer hardly keeps, with a warning, and those that have as many pixels
            already.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    magnifier: str | None = None
    strict: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class UpscalePicturesOptions(ModelOptions):
    """Which pictures are upscaled, how, and where they go.

    Args:
        text: what the pictures show, in quotation marks; a magnifier reads it.
        pictures: their files; other sizes than the model's are scaled to it and the middle square is cut out.
        factor: so many times the size that the model encodes.
        seed: of the first picture, the next has the next seed.
        upscaling: how.
        out: the folder in which the numbered folder is made.
    """

    text: tyro.conf.Positional[str]
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    factor: Literal[2, 4] = 2
    seed: int = 0
    upscaling: Annotated[UpscaleSettings, FLAT] = UpscaleSettings()
    out: Path = Path("out")
