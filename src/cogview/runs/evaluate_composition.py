"""Evaluation of composition: how often pictures of held-out scenes match their captions."""

import os
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cogview.data.check import MAX_LISTED
from cogview.data.pairs import CaptionedImage
from cogview.data.ranks import Ranks
from cogview.errors import UsageError
from cogview.evaluation.caption_set import AskedPicture
from cogview.evaluation.composition import (
    PARTS,
    QUALITIES,
    AskedScene,
    asked_scenes,
    reconstruct,
    shares_of,
    validate_reader,
    verdicts_on,
)
from cogview.evaluation.composition_table import composition_table
from cogview.evaluation.scene_reader import SceneReader, SceneReading
from cogview.files import atomic_write_json, atomic_write_text
from cogview.generation.contact_sheet import contact_sheet, save_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_draws import Draws, open_model, resume_hint, say_duration
from cogview.runs.evaluation_options import CompositionEvaluationOptions
from cogview.runs.progress_bar import progress_bar
from cogview.training.run_folder import command_line, versions

KIND = {"format": "cogview-composition-evaluation", "version": 1}
MIN_CAPTIONS = 8
_NUM_FAILURES = 16


def evaluate_composition(options: CompositionEvaluationOptions) -> EvaluationResult | None:
    """Count how often drawn scenes match captions in objects, colours, sizes, places, ground and style.

    Args:
        options: scenes, model and sampling.

    Returns:
        The figures of the model and of the scene reader in `composition.json`, a table, and a sheet of failures, if
        any; None in all processes but the first.
    """
    pictures, candidates, out = options.pictures, options.candidates, options.out
    ranks = Ranks.from_environment(os.environ)
    possible = asked_scenes(pictures, split=options.split)
    pipeline, adapter, ranker = open_model(options, ranks)
    if ranker is None and candidates > 1 and len(pipeline.captioner_names) == 1:
        (ranker,) = pipeline.captioner_names
    template = pipeline.model.drawing(adapter)[1]
    if template.grid_rows != template.grid_columns:
        raise UsageError(
            "scenes are square, and this model's pictures are not: use a model of square pictures"
        )
    size_pixels = template.grid_rows * pipeline.image_tokenizer.downsampling_factor
    reader = SceneReader(pictures, size_pixels)
    asked, left_out = _readable(possible, reader, options.num_captions, options.split)
    lengths = [len(pipeline.text_tokenizer.encode(each.text)) for each in asked]
    drawn_for = [_asked_picture(pictures, each) for each in asked]
    draws = Draws(
        kind=KIND, options=options, pipeline=pipeline, adapter=adapter, asked=drawn_for, ranks=ranks
    )
    request = draws.work.settings
    with resume_hint(out):
        # The real pictures come first, so that unreadable ones fail before hours of drawing.
        checker = (
            validate_reader(asked, *_read_real(pictures, asked, reader, pipeline)) if ranks.rank == 0 else {}
        )
        draws.draw(lambda seconds: say_duration("drawing", seconds) if ranks.rank == 0 else None)
        losses = None if ranker is None else draws.caption_losses(ranker)
        if ranks.rank:
            return None
        for array in (None, losses):
            draws.await_all(array)
        shown = _read_drawn(draws, reader)
    verdicts = verdicts_on([each for each in asked for _ in range(candidates)], shown)
    verdicts = verdicts.reshape(len(asked), candidates, -1)
    chosen_ones = {"first": verdicts[:, 0]}
    if candidates > 1:
        chosen_ones["random"] = verdicts.mean(1)  # what a random one has on average
        if losses is not None:
            best = losses.read_all().argmin(1)
            chosen_ones["CapLoss"] = verdicts[range(len(asked)), best]
    figures = {choice: shares_of(each) for choice, each in chosen_ones.items()}
    languages = {
        language: {
            choice: shares_of(each[[one.language == language for one in asked]])
            for choice, each in chosen_ones.items()
        }
        for language in sorted({each.language for each in asked})
    }
    facts = {
        "pictures": str(pictures),
        "split": options.split,
        "model": options.model or "bundled",
        "adapter": options.adapter,
        "captioner": None if ranker is None else draws.fingerprint(ranker),
        "size_pixels": size_pixels,
        "num_clipped_captions": sum(length > template.max_text_pieces for length in lengths),
        "num_left_out": len(left_out),
        "left_out": left_out[:MAX_LISTED],
        "request": request,
        "environment": _environment(pipeline),
        "checker": checker,
        "figures": figures,
        "languages": languages,
    }
    return _written(facts, _failures(pictures, draws, asked, verdicts[:, 0]), out)


def _asked_picture(folder: Path, asked: AskedScene) -> AskedPicture:
    """Return a scene's caption with its picture."""
    name = asked.file_name
    picture = CaptionedImage(name=name, source=folder / name, texts=(asked.text,))
    return AskedPicture(picture=picture, text=asked.text, original=asked.text)


def _readable(
    possible: Sequence[AskedScene], reader: SceneReader, num_captions: int, split: str
) -> tuple[list[AskedScene], list[dict[str, str]]]:
    """Return the first captions whose pictures the reader can read, and the counts of those skipped.

    Raises:
        UsageError: there are fewer than requested, or too few were requested.
    """
    asked: list[AskedScene] = []
    left_out: list[dict[str, str]] = []
    for each in possible:
        unknown = reader.unknown_in(each.scene)
        if unknown is not None:
            left_out.append(
                {"where": each.file_name, "reason": f"the data set's icons do not show {unknown}"}
            )
        elif len(asked) < num_captions:
            asked.append(each)
        if len(asked) == num_captions:
            break
    why = f" ({len(left_out)} were passed over: {left_out[0]['reason']})" if left_out else ""
    if num_captions < MIN_CAPTIONS:
        raise UsageError(f"--num-captions must be {MIN_CAPTIONS} or more to say anything, got {num_captions}")
    if len(asked) < num_captions:
        advice = f"ask for --num-captions {len(asked)} or fewer, or build a larger data set"
        if len(asked) < MIN_CAPTIONS:
            advice = f"build a larger data set, {MIN_CAPTIONS} captions or more are needed"
        raise UsageError(
            f"the split {split} has {len(asked)} pictures whose caption names the ground and which can be read{why}: "
            f"{advice}"
        )
    return asked, left_out


def _read_real(
    folder: Path, asked: Sequence[AskedScene], reader: SceneReader, pipeline: Pipeline
) -> tuple[list[SceneReading], list[SceneReading]]:
    """Read the real pictures, as they are and as reconstructed by the image tokenizer."""
    pictures = [reader.picture(folder, each.file_name) for each in asked]
    again: list[np.ndarray] = []
    with progress_bar("redrawing real", "pictures") as move:
        for picture in pictures:
            again.append(reconstruct(pipeline.image_tokenizer, picture))
            move(len(again), len(pictures))
    with progress_bar("reading real", "pictures") as move:
        shown = reader.read_all([*pictures, *again], lambda number: move(number, 2 * len(pictures)))
    return shown[: len(pictures)], shown[len(pictures) :]


def _read_drawn(draws: Draws, reader: SceneReader) -> list[SceneReading]:
    """Read all candidates, caption by caption."""
    captions, candidates = np.indices((len(draws.asked), draws.options.candidates)).reshape(2, -1)
    with progress_bar("reading drawn", "pictures") as move:
        return reader.read_all(
            (np.asarray(image) for image in draws.pictures(captions, candidates)),
            lambda number: move(number, len(captions)),
        )


def _failures(
    folder: Path, draws: Draws, asked: Sequence[AskedScene], verdicts: np.ndarray
) -> Image.Image | None:
    """Return a sheet of the first failed candidates beside their real pictures; None without failures."""
    wrong = np.flatnonzero(verdicts[:, PARTS.index("all")] == 0)[:_NUM_FAILURES]
    if not len(wrong):
        return None
    drawn = draws.pictures(wrong, np.zeros_like(wrong))
    rows, notes = [], []
    for caption, image in zip(wrong, drawn, strict=True):
        rows.append([image, read_image(folder / asked[caption].file_name)])
        missed = [name for name in QUALITIES if verdicts[caption, PARTS.index(name)] == 0]
        notes.append([f"not {missed[0]}" + (" ..." if missed[1:] else ""), "real"])
    return contact_sheet(rows, [asked[caption].text for caption in wrong], notes=notes)


def _environment(pipeline: Pipeline) -> dict[str, Any]:
    device = pipeline.device
    return {
        "command": command_line(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "num_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": versions(),
    }


def _written(facts: dict[str, Any], failures: Image.Image | None, out: Path) -> EvaluationResult:
    """Write JSON, table and failures, and return their paths."""
    files = {"json": out / "composition.json", "table": out / "composition.md"}
    atomic_write_json(files["json"], facts)
    atomic_write_text(files["table"], "\n".join(composition_table(facts)) + "\n")
    sheet = out / "failures.png"
    if failures is None:
        sheet.unlink(missing_ok=True)
    else:
        files["failures"] = sheet
        save_sheet(failures, sheet)
    if not facts["checker"]["is_valid"]:
        warnings.warn("the checker errs too often, so that its figures say little", stacklevel=1)
    return EvaluationResult(facts=facts, files=files)
