"""Runs that caption pictures and rank them for a text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cogview.errors import UsageError
from cogview.generation.captioner import Caption
from cogview.generation.loading import load
from cogview.generation.options import CaptionOptions
from cogview.generation.pictures import codes_of
from cogview.generation.pipeline import Pipeline
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.drawing_options import CaptionPicturesOptions, RankPicturesOptions, shared_fields
from cogview.runs.picture_codes import PictureCodes
from cogview.runs.progress_bar import progress_bar
from cogview.runs.prompts import as_text

_PICTURES_AT_ONCE = 16


def caption_pictures(
    options: CaptionPicturesOptions, written: Callable[[Path, list[Caption]], None] | None = None
) -> tuple[dict[Path, list[Caption]], PictureCodes]:
    """Return captions by picture path, and the problems of pictures that cannot be read.

    Args:
        options: pictures and beam search or sampling.
        written: called with each picture and its captions as soon as they are ready.

    Raises:
        UsageError: an option is impossible or refused.
        CogViewError: no picture can be read.
    """
    pipeline, name, picture_codes = _opened(options)
    asked = replace(CaptionOptions(**shared_fields(options, CaptionOptions)), captioner=name)
    codes, captions = list(picture_codes.codes.items()), {}
    with progress_bar("captioning", "pictures") as move:
        for start in range(0, len(codes), _PICTURES_AT_ONCE):
            paths, pictures = zip(*codes[start : start + _PICTURES_AT_ONCE], strict=True)
            of_each = pipeline.captioner.caption(
                pictures, options.num_captions, options.num_beams, options.seed, asked
            )
            for path, found in zip(paths, of_each, strict=True):
                captions[path] = found
                if written is not None:
                    written(path, found)
            move(len(captions), len(codes))
    return captions, picture_codes


def rank_pictures(options: RankPicturesOptions) -> tuple[dict[Path, float], PictureCodes]:
    """Return CapLoss by picture path, best first, and the problems of pictures that cannot be read.

    Args:
        options: pictures and text.

    Raises:
        UsageError: an option is impossible or refused.
        CogViewError: no picture can be read.
    """
    if not options.text.strip():
        raise UsageError("the text is empty: describe what the pictures should show")
    pipeline, name, picture_codes = _opened(options)
    paths = list(picture_codes.codes)
    ranked = pipeline.rank(as_text(options.text), list(picture_codes.codes.values()), name, options.strict)
    return {paths[each.index]: each.caption_loss for each in ranked}, picture_codes


def _opened(
    options: CaptionPicturesOptions | RankPicturesOptions,
) -> tuple[Pipeline, str | None, PictureCodes]:
    """Return the model, the chosen captioner's name, and the pictures' codes."""
    pipeline = load(options.model, options.device, options.dtype)
    name = take_adapter(pipeline, "captioner", options.captioner)
    template = pipeline.model.caption_model(name).template
    picture_codes = PictureCodes(
        options.pictures, lambda path: codes_of(pipeline.model, path, template, options.strict)
    )
    return pipeline, name, picture_codes
