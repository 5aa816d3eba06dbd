"""Run that upscales pictures to twice or four times the encoded size."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cogview
from cogview.errors import UsageError
from cogview.generation.loading import load
from cogview.generation.options import UpscaleOptions
from cogview.generation.upscaler import TOP_P
from cogview.runs.chosen_adapters import take_adapter, weights_of
from cogview.runs.drawing_options import UpscalePicturesOptions, shared_fields
from cogview.runs.picture_codes import PictureCodes, tell_decoded
from cogview.runs.picture_folder import picture_folder, save_picture
from cogview.runs.progress_bar import progress_bar
from cogview.runs.prompts import as_text

_PICTURES_AT_ONCE = 16  # per batch of the engine


def upscale_pictures(options: UpscalePicturesOptions) -> tuple[list[dict[str, Any]], PictureCodes]:
    """Upscale pictures into a numbered folder.

    Args:
        options: pictures, text and sampling.

    Returns:
        Path, source and seed of each picture, and the problems of those that cannot be read.

    Raises:
        UsageError: an option is impossible or refused.
        CogViewError: no picture can be read, or a file cannot be written.
        KeyboardInterrupt: the run was stopped; finished pictures are kept, and the same call resumes.
    """
    if not options.text.strip():
        raise UsageError("the text is empty: give what the pictures show")
    text, factor = as_text(options.text), options.factor
    pipeline = load(options.model, options.device, options.dtype)
    name = take_adapter(pipeline, "upscaler", options.upscaler)
    upscaler = pipeline.upscaler
    asked = replace(UpscaleOptions(**shared_fields(options, UpscaleOptions)), upscaler=name)
    is_decoded = upscaler.is_decoded(factor, name)
    if is_decoded:
        upscaler.refuse_sampling(asked)
    picture_codes = PictureCodes(
        options.pictures, lambda path: upscaler.codes_to_upscale(path, factor, name, options.force)
    )
    if is_decoded:
        tell_decoded(pipeline)
    given = list(picture_codes.codes.items())
    settings: dict[str, Any] = {"text": text, "factor": factor, "model": options.model or "bundled"}
    if not is_decoded:
        settings |= {
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": TOP_P if options.top_p is None else options.top_p,
            "upscaler": options.upscaler,
        }
    names = [] if is_decoded else [name] if name else pipeline.upscaler_names
    request = {
        "verb": "upscale",
        **settings,
        "seed": options.seed,
        "pictures": _fingerprint(picture_codes.codes),
        "weights": weights_of(pipeline, *names),
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype),
        "versions": [cogview.__version__, torch.__version__],
    }
    with picture_folder(options.out, request) as folder:
        folder.tell_kept(len(given))
        num_left, num_done = len(given) - folder.num_kept, 0
        with progress_bar("upscaling", "codes") as move:
            for share, start in enumerate(range(0, len(given), _PICTURES_AT_ONCE)):
                if folder.pictures(share) is not None:
                    continue
                part = given[start : start + _PICTURES_AT_ONCE]

                def progress(done: int, here: int, before: int = num_done, pictures: int = len(part)) -> None:
                    each = here // pictures
                    move(before * each + done, max(num_left, before + pictures) * each)

                larger = upscaler.upscale(
                    [codes for _, codes in part], text, factor, options.seed + start, asked, progress
                )
                drawn: list[dict[str, Any]] = []
                for number, ((source, _), picture) in enumerate(
                    zip(part, larger, strict=True), start=start + 1
                ):
                    path = folder.path / f"{number:02d}-{source.stem[:40]}-x{factor}.png"
                    read = {} if picture.drawn_text is None else {"drawn_text": picture.drawn_text}
                    save_picture(picture.image, path, text, settings | {"seed": picture.seed} | read)
                    drawn.append({"path": path, "source": str(source), "seed": picture.seed})
                folder.keep(share, drawn)
                num_done += len(part)
        folder.finish()
        return list(folder.all_pictures()), picture_codes


def _fingerprint(codes: Mapping[Path, Tensor]) -> str:
    """Return a fingerprint of pictures by names and codes, in order."""
    digest = hashlib.sha256()
    for path, each in codes.items():
        digest.update(repr(path.stem).encode())
        digest.update(each.numpy().tobytes())
    return digest.hexdigest()[:16]
