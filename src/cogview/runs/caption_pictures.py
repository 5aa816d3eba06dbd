"""A run that writes captions of pictures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cogview.generation.captioner import Caption
from cogview.generation.loading import load
from cogview.generation.options import CaptionOptions
from cogview.generation.pictures import codes_of
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.drawing_options import CaptionPicturesOptions
from cogview.runs.progress_bar import progress_bar
from cogview.runs.told_pictures import ToldPictures

_PICTURES_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class CaptionedPicture:
    """A picture and what was written of it.

    Args:
        path: of its file.
        captions: of it.
    """

    path: Path
    captions: list[Caption]


@dataclass(frozen=True, kw_only=True)
class CaptionedPictures:
    """What was written of pictures.

    Args:
        pictures: those that can be read, with their captions.
        told: what is told of the others.
    """

    pictures: list[CaptionedPicture]
    told: ToldPictures


def caption_pictures(
    options: CaptionPicturesOptions, written: Callable[[CaptionedPicture], None] | None = None
) -> CaptionedPictures:
    """Write captions of pictures.

    Args:
        options: which pictures, and how.
        written: called with each picture as soon as its captions are written.

    Raises:
        UsageError: something that is asked for is impossible or refused.
        CogViewError: no picture can be read.
    """
    pipeline, how = load(options.model, options.device, options.dtype), options.captions
    name = take_adapter(pipeline, "captioner", how.captioner)
    template = pipeline.model.caption_model(name).template
    told = ToldPictures(options.pictures, lambda path: codes_of(pipeline.model, path, template, how.strict))
    codes = list(told.codes.items())
    asked = replace(CaptionOptions(**vars(how)), captioner=name)
    captioned: list[CaptionedPicture] = []
    with progress_bar("captioning", "pictures") as move:
        for start in range(0, len(codes), _PICTURES_AT_ONCE):
            part = codes[start : start + _PICTURES_AT_ONCE]
            captions = pipeline.captioner.caption(
                [each for _, each in part], options.num_captions, options.num_beams, options.seed, asked
            )
            for (path, _), of_one in zip(part, captions, strict=True):
                captioned.append(CaptionedPicture(path=path, captions=of_one))
                if written is not None:
                    written(captioned[-1])
            move(len(captioned), len(codes))
    return CaptionedPictures(pictures=captioned, told=told)
