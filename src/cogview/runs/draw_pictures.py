"""A run that draws many texts into a folder, and goes on where the same run was stopped."""

import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import cogview
from cogview.files import sha256_of
from cogview.generation.loading import load
from cogview.generation.options import PictureOptions
from cogview.generation.picture_task import PictureTask
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import PreviewOptions
from cogview.runs.chosen_adapters import take_adapter, weights_of
from cogview.runs.drawing_display import PreviewSheet, check_preview, progress_display
from cogview.runs.drawing_options import DrawPicturesOptions
from cogview.runs.drawing_run import DrawingRun
from cogview.runs.drawn_pictures import picture_folder, tell_kept
from cogview.runs.prompts import Prompts
from cogview.runs.told_pictures import tell_decoded


@contextmanager
def draw_pictures(options: DrawPicturesOptions) -> Iterator[DrawingRun]:
    """Draw texts into a numbered folder, each picture as soon as it is done.

    The pictures may be more than memory holds, so what is known of them is read from disk, within the `with` block.

    Args:
        options: which texts, how, and where to.

    Yields:
        The run, once all pictures are there.

    Raises:
        UsageError: there is no text, or something that is asked for is impossible or refused.
        CogViewError: a file cannot be read or written.
        KeyboardInterrupt: it was stopped; what is done is kept, and the same call goes on.
    """
    if options.preview is not None:
        check_preview(options.preview)
    with Prompts(options.texts, options.prompts) as prompts:
        how = options.pictures
        seed = random_seed() if options.seed == "random" else options.seed
        # What cannot be drawn is found out before a folder is made.
        pipeline, task = _loaded(options, seed)
        if not how.balance_words:  # else the texts that are drawn are others
            prompts.check(pipeline.text_tokenizer, task.max_text_pieces)
            prompts.tell_unknown(
                lambda texts: pipeline.model.reading(texts, task.options.adapter, how.strict)
            )
        settings = _settings(options, pipeline, task)
        request = {
            "verb": "generate",
            "texts": prompts.fingerprint,
            "num_candidates": options.num_candidates,
            "keep": options.keep,
            "seed": options.seed,
            **settings,
            "weights": weights_of(pipeline, *_adapters(pipeline, task)),
            "captioner": how.captioner,
            "rank_by": how.rank_by,
            "files": [
                sha256_of(Path(path)) for path in (how.image, how.mask) if path and Path(path).is_file()
            ],
            "sheet_scale": options.sheet_scale,  # which says what is on which sheet
            "versions": [cogview.__version__, torch.__version__],
        }
        with picture_folder(options.out, request, {"seed": seed}) as folder:
            run = DrawingRun(
                options=options,
                task=task,
                prompts=prompts,
                seed=folder.chosen["seed"],
                settings=settings,
                folder=folder,
            )
            tell_kept(folder, len(prompts) * run.num_kept)
            if options.seed == "random":
                print(f"cogview: seed {run.seed}", file=sys.stderr)
            _draw(run, pipeline.image_tokenizer.downsampling_factor)
            folder.finish()
            run.warn()
            yield run


def _loaded(options: DrawPicturesOptions, seed: int) -> tuple[Pipeline, PictureTask]:
    """Return the model, and what draws with it as asked."""
    asked = PictureOptions(**vars(options.pictures))
    pipeline = load(
        options.model,
        options.device,
        options.dtype,
        max_batch=options.max_batch,
        memory=options.memory,
        cache=options.cache,
    )
    asked = replace(
        asked,
        adapter=take_adapter(pipeline, "adapter", asked.adapter),
        captioner=take_adapter(pipeline, "captioner", asked.captioner),
        magnifier=take_adapter(pipeline, "magnifier", asked.magnifier),
    )
    task = PictureTask.of(pipeline.model, asked, options.num_candidates, options.keep, seed)
    if asked.upscale > 1 and task.magnifier is None:
        tell_decoded(pipeline)
    return pipeline, task


def _settings(options: DrawPicturesOptions, pipeline: Pipeline, task: PictureTask) -> dict[str, Any]:
    """Return what a picture's file says beside its text and seed."""
    how, sampling = options.pictures, task.codes.sampling
    drawn_anew = {"image": str(how.image), "mask": how.mask, "keeps_pixels": how.keeps_pixels}
    return {
        "temperature": how.temperature,
        "top_k": how.top_k,
        "top_p": sampling.top_p,
        "guidance": sampling.guidance,
        "sampler": how.sampler,
        "balance_words": how.balance_words,
        "model": options.model or "bundled",
        **({} if how.adapter is None else {"adapter": how.adapter, "adapter_strength": how.adapter_strength}),
        **({} if how.upscale == 1 else {"upscale": how.upscale}),
        **({} if how.magnifier is None else {"magnifier": how.magnifier}),
        **({} if how.image is None else drawn_anew),
        "size_pixels": task.size_pixels,
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        **({} if options.cache == "auto" else {"cache": options.cache}),
    }


def _adapters(pipeline: Pipeline, task: PictureTask) -> list[str | None]:
    """Return the names of the adapters that draw, rank and magnify."""
    asked = task.options
    by_captioner = task.ranking is not None and asked.rank_by == "caption"
    return [
        asked.adapter,
        *([asked.captioner or pipeline.captioner_names[0]] if by_captioner else []),
        *([asked.magnifier or pipeline.magnifier_names[0]] if task.magnifier else []),
    ]


def _draw(run: DrawingRun, downsampling_factor: int) -> None:
    """Draw what is not there yet, and show it."""
    template, preview = run.task.codes.template, run.options.preview
    with ExitStack() as stack:
        bars = progress_display(run.num_left, run.num_codes_left, template.num_codes_per_image)
        displays = [stack.enter_context(bars)]
        if preview is not None:
            size = template.grid_columns * downsampling_factor, template.grid_rows * downsampling_factor
            sheet = PreviewSheet(preview, size)
            stack.callback(sheet.write)
            displays.append(sheet)
        stack.enter_context(warnings.catch_warnings())
        if not run.options.pictures.balance_words:  # told before
            warnings.filterwarnings("ignore", r"\d+ of \d+ texts have more than")
            warnings.filterwarnings("ignore", "the model has (hardly ever, or )?never")
        run.draw(displays, None if preview is None else PreviewOptions())


def random_seed() -> int:
    """Return a seed that nobody can foretell, short enough to be typed."""
    return secrets.randbelow(2**31)
