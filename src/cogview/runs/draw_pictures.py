"""Run that draws many texts into a folder, and resumes there."""

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
from cogview.errors import UsageError
from cogview.files import sha256_of
from cogview.generation.loading import load
from cogview.generation.options import PictureOptions
from cogview.generation.picture_task import PictureTask
from cogview.generation.pipeline import Pipeline
from cogview.generation.previews import PreviewOptions
from cogview.runs.chosen_adapters import TASKS, take_adapter, weights_of
from cogview.runs.drawing_display import PreviewSheet, check_preview, progress_display
from cogview.runs.drawing_options import DrawPicturesOptions, shared_fields
from cogview.runs.drawing_run import DrawingRun
from cogview.runs.picture_codes import tell_decoded
from cogview.runs.picture_folder import picture_folder
from cogview.runs.prompts import Prompts


@contextmanager
def draw_pictures(options: DrawPicturesOptions) -> Iterator[DrawingRun]:
    """Draw texts into a numbered folder, writing each picture as soon as it is done.

    There may be more pictures than fit in memory: read their facts from disk within the `with` block.

    Args:
        options: texts, sampling and output folder.

    Yields:
        The run, once all pictures are there.

    Raises:
        UsageError: there is no text, or an option is impossible or refused.
        CogViewError: a file cannot be read or written.
        KeyboardInterrupt: the run was stopped; finished pictures are kept, and the same call resumes.
    """
    if not 1 <= options.sheet_scale <= 8:
        raise UsageError(f"--sheet-scale must be 1 to 8, got {options.sheet_scale}")
    if options.preview is not None:
        check_preview(options.preview)
    with Prompts(options.texts, options.prompts) as prompts:
        seed = secrets.randbelow(2**31) if options.seed == "random" else options.seed
        # Impossible requests fail before a folder is made.
        pipeline, task = _loaded(options, seed)
        if not options.balance_words:  # else the texts that are drawn are others
            prompts.check(pipeline.text_tokenizer, task.max_text_pieces)
            prompts.tell_unknown(
                lambda texts: pipeline.model.known_spellings(texts, task.options.adapter, options.strict)
            )
        settings = _settings(options, pipeline, task)
        request = {
            "verb": "generate",
            "texts": prompts.fingerprint,
            "num_candidates": options.num_candidates,
            "keep": options.keep,
            "seed": options.seed,
            **settings,
            "weights": _weights(pipeline, task),
            "captioner": options.captioner,
            "rank_by": options.rank_by,
            "files": [
                sha256_of(Path(path))
                for path in (options.image, options.mask)
                if path and Path(path).is_file()
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
            folder.tell_kept(len(prompts) * run.num_kept)
            if options.seed == "random":
                print(f"cogview: seed {run.seed}", file=sys.stderr)
            _draw(run, pipeline.image_tokenizer.downsampling_factor)
            folder.finish()
            run.warn()
            yield run


def _loaded(options: DrawPicturesOptions, seed: int) -> tuple[Pipeline, PictureTask]:
    """Return the model and its drawing task."""
    asked = PictureOptions(**shared_fields(options, PictureOptions))
    pipeline = load(
        options.model,
        options.device,
        options.dtype,
        max_batch=options.max_batch,
        memory=options.memory,
        cache=options.cache,
        kernels=options.kernels,
    )
    chosen: dict[str, Any] = {each: take_adapter(pipeline, each, getattr(asked, each)) for each in TASKS}
    asked = replace(asked, **chosen)
    task = PictureTask.of(pipeline.model, asked, options.num_candidates, options.keep, seed)
    if asked.upscale > 1 and task.super_resolution is None:
        tell_decoded(pipeline, task.size_pixels if task.size_pixels == pipeline.size_pixels else None)
    return pipeline, task


def _settings(options: DrawPicturesOptions, pipeline: Pipeline, task: PictureTask) -> dict[str, Any]:
    """Return the metadata of a picture's file beside its text and seed."""
    sampling = task.codes.sampling
    adapted = {"adapter": options.adapter, "adapter_strength": options.adapter_strength}
    drawn_anew = {"image": str(options.image), "mask": options.mask, "keeps_pixels": options.keeps_pixels}
    return {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": sampling.top_p,
        "guidance": sampling.guidance,
        "sampler": options.sampler,
        "balance_words": options.balance_words,
        "model": options.model or "bundled",
        **({} if options.adapter is None else adapted),
        **({} if options.upscale == 1 else {"upscale": options.upscale}),
        **({} if options.upscaler is None else {"upscaler": options.upscaler}),
        **({} if options.image is None else drawn_anew),
        "size_pixels": task.size_pixels,
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        **({} if options.cache == "auto" else {"cache": options.cache}),
        **({} if options.kernels == "auto" else {"kernels": options.kernels}),
    }


def _weights(pipeline: Pipeline, task: PictureTask) -> dict[str, str]:
    """Return the fingerprints of the models that draw, rank and upscale."""
    asked, ranker, enlarger = task.options, None, None
    if task.ranking is not None and asked.rank_by == "caption":
        ranker = asked.captioner or pipeline.captioner_names[0]
    if task.super_resolution is not None:
        enlarger = asked.upscaler or pipeline.upscaler_names[0]
    return weights_of(pipeline, asked.adapter, ranker, enlarger)


def _draw(run: DrawingRun, downsampling_factor: int) -> None:
    """Draw the missing pictures, with progress bars and preview."""
    template, preview = run.task.codes.template, run.options.preview
    with ExitStack() as stack:
        bars = progress_display(run.num_left, run.num_codes_left, template.num_codes_per_image)
        displays = [stack.enter_context(bars)]
        if preview is not None:
            size = template.grid_columns * downsampling_factor, template.grid_rows * downsampling_factor
            sheet = PreviewSheet(preview, size)
            stack.callback(sheet.write)
            displays.append(sheet.update)
        stack.enter_context(warnings.catch_warnings())
        if not run.options.balance_words:  # else printed before
            warnings.filterwarnings("ignore", r"\d+ of \d+ texts have more than")
            warnings.filterwarnings("ignore", "the model has (hardly ever, or )?never")
        run.draw(displays, None if preview is None else PreviewOptions())
