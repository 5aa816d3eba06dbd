"""Report on a checkpoint, as one HTML page."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogview.data.ranks import Ranks
from cogview.data.records import lines_of
from cogview.errors import CogViewError, UsageError
from cogview.evaluation.caption_set import CaptionSet
from cogview.evaluation.report.sections import ReportImages, report_page
from cogview.files import atomic_write_json, atomic_write_text, read_json
from cogview.runs.checkpoint_figures import Checkpoint, measure_tokenizer
from cogview.runs.environment import environment
from cogview.runs.evaluate_composition import evaluate_composition
from cogview.runs.evaluate_text_to_image import evaluate_text_to_image
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_draws import resume_hint
from cogview.runs.evaluation_options import (
    CandidateOptions,
    CompositionEvaluationOptions,
    ModelEvaluationOptions,
    RealPictureOptions,
    TextToImageEvaluationOptions,
)
from cogview.training.run_folder import command_line, git_commit

FORMAT, VERSION = "cogview-model-report", 1
HTML, JSON = "report.html", "report.json"
SAMPLES, TEXT_TO_IMAGE, COMPOSITION, TOKENIZER = "samples", "text-to-image", "composition", "tokenizer"

PROMPTS = (
    "蓝色背景上的一只猫和一个苹果",
    "a fish to the left of a flower on a white background",
    "绿色背景上的三只鸭子",
    "two rockets on a black background",
    "一棵树在一座房子的右边，黄色背景",
    "a panda above a bicycle on a pink background",
    "紫色背景上的一只企鹅，贴纸风格",
    "a flat design castle on an orange background",
    "灰色背景上的一辆汽车、一把雨伞和一颗星星",
    "a penguin, a cake and a balloon on a blue background",
    "红色背景上的四个柠檬",
    "a robot below a rainbow on a gray background",
)
"""Default prompts: the bundled model's world, in both languages in turn."""


def evaluate_model(options: ModelEvaluationOptions) -> EvaluationResult:
    """Write the report of a checkpoint: facts, samples, figures and environment.

    Args:
        options: the checkpoint, and the contents of the report.

    Returns:
        The report, in `report.html` and `report.json`.
    """
    out = options.out
    _check_out(out)
    texts = PROMPTS if options.prompts is None else _texts_of(options.prompts)
    if Ranks.from_environment(os.environ).num_ranks > 1:
        raise UsageError(
            f"a report is made by one process: let torchrun draw with cogview evaluate text-to-image --out "
            f"{out / TEXT_TO_IMAGE}, then give this command without it"
        )
    real = _compare_with_real(options)
    try:
        with resume_hint(out):
            checkpoint = Checkpoint(options)
            samples, codes = checkpoint.draw(texts, options.seeds, options, out / SAMPLES)
            tokenizer, grid = measure_tokenizer(
                checkpoint, real, out / TOKENIZER, options.batch_size, options.num_workers
            )
    except OSError as error:
        raise CogViewError(f"{out} cannot be written ({error.strerror}): give another with --out") from error
    attention = checkpoint.attention(texts[0], options.seeds[0], codes[0, 0]) if options.attention else None
    trained, losses = checkpoint.run()
    report: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": checkpoint.title,
        "model": checkpoint.facts(),
        "samples": samples,
        "text_to_image": _drawn(out / TEXT_TO_IMAGE, samples["transformer"]),
        "composition": _composition(out / COMPOSITION, samples["transformer"]),
        "tokenizer": tokenizer,
        "attention": attention,
        "run": trained,
        "environment": environment(),
        "commit": git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command_line(),
    }
    report["lacking"] = _lacking(report)
    shown = ReportImages(samples=checkpoint.pictures(codes), reconstructions=grid, losses=losses)
    files = {"html": out / HTML, "json": out / JSON}
    atomic_write_text(files["html"], report_page(report, shown))
    atomic_write_json(files["json"], report)
    return EvaluationResult(facts=report, files=files)


def _compare_with_real(options: ModelEvaluationOptions) -> CaptionSet | None:
    """Measure drawn pictures with a model of their own, freed before the report's loads; return real ones."""

    def shared(part: type[CandidateOptions] | type[RealPictureOptions]) -> dict[str, Any]:
        return {each.name: getattr(options, each.name) for each in fields(part)}

    real = None
    if options.images is not None:
        real = CaptionSet(
            options.images, options.captions, split=options.split, num_captions=options.num_captions
        )
        evaluate_text_to_image(
            TextToImageEvaluationOptions(
                images=options.images,
                out=options.out / TEXT_TO_IMAGE,
                **shared(CandidateOptions),
                **shared(RealPictureOptions),
            )
        )
    if options.scenes is not None:
        number: dict[str, Any] = (
            {} if options.num_captions is None else {"num_captions": options.num_captions}
        )
        evaluate_composition(
            CompositionEvaluationOptions(
                pictures=options.scenes,
                out=options.out / COMPOSITION,
                **number,
                **shared(CandidateOptions),
            )
        )
    return real


def _check_out(out: Path) -> None:
    """Refuse a folder with other content.

    Raises:
        UsageError: it has other content.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder with --out")
    known = {HTML, JSON, SAMPLES, TEXT_TO_IMAGE, COMPOSITION, TOKENIZER}
    others = sorted(each.name for each in out.iterdir()) if out.exists() else []
    others = [name for name in others if name not in known and not name.startswith(".")]
    if others:
        raise UsageError(f"{out} holds something else than a report ({others[0]}): choose another with --out")


def _texts_of(path: Path) -> tuple[str, ...]:
    """Return the non-empty lines of a file.

    Raises:
        UsageError: there are none.
        CogViewError: it cannot be read.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CogViewError(f"{path} cannot be read ({reason}): give a file with a text a line") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise UsageError(f"{path} has no texts: give a file with a text a line")
    return texts


def _drawn(folder: Path, transformer: str) -> dict[str, Any]:
    """Return the figures of `cogview evaluate text-to-image` in a folder, if any, by feature network."""
    paths = sorted(folder.glob("figures-*.json"))
    return {path.stem.removeprefix("figures-"): _figures_in(path, transformer) for path in paths}


def _composition(folder: Path, transformer: str) -> dict[str, Any] | None:
    """Return the figures of `cogview evaluate composition` in a folder, and their Markdown table."""
    path, table = folder / "composition.json", folder / "composition.md"
    if not (path.is_file() and table.is_file()):
        return None
    return {"figures": _figures_in(path, transformer), "table": table.read_text(encoding="utf-8")}


def _figures_in(path: Path, transformer: str) -> dict[str, Any]:
    """Return the figures of drawn pictures in a file.

    Args:
        path: the file.
        transformer: required fingerprint of the drawing model's weights.

    Raises:
        CogViewError: it is damaged.
        UsageError: another model drew them.
    """
    result = read_json(path, "evaluation")
    try:
        drew = result["request"]["transformer"]
    except (KeyError, TypeError) as error:
        raise CogViewError(f"{path} has no figures of drawn pictures: delete it") from error
    if drew != transformer:
        raise UsageError(
            f"{path} is about another model, or the same in another dtype: choose another folder with --out"
        )
    return dict(result)


def _lacking(report: Mapping[str, Any]) -> list[str]:
    """Return one line for each missing part of the report, with how to add it."""
    drawn = report["text_to_image"]
    lines = {
        "Drawn pictures beside real ones (the paper's table 1): --images PICTURES adds it.": not drawn,
        "Quality against the number of candidates (figure 9): --images PICTURES --candidates N adds it.": not any(
            each["curve"] for each in drawn.values()
        ),
        "Composition: --scenes PICTURES, a default data set, adds it.": not report["composition"],
        "The image tokenizer's figures: --images PICTURES adds them.": not report["tokenizer"],
        "Attention by layer and head: --attention adds it.": not report["attention"],
        "Loss curves: --model RUN, the folder of a training run, adds them.": not report["run"],
        "Plots, for want of matplotlib: pip install '.[plot]' in the checkout adds them.": bool(
            drawn or report["run"]
        )
        and importlib.util.find_spec("matplotlib") is None,
    }
    return [line for line, is_lacking in lines.items() if is_lacking]
