"""Verbs `cogview train ...`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cogview.cli.report import gigabytes, print_result
from cogview.recipes.config import (
    CaptioningRecipe,
    DecoderRecipe,
    ImageTokenizerRecipe,
    StyleRecipe,
    SuperResolutionRecipe,
    TextToImageRecipe,
    TextTokenizerRecipe,
    VQGANRecipe,
)
from cogview.runs.flags import FLAT
from cogview.runs.training_options import (
    CaptioningOptions,
    DecoderOptions,
    ImageTokenizerOptions,
    StyleOptions,
    SuperResolutionOptions,
    TextToImageOptions,
    TextTokenizerOptions,
    TrainingOptions,
    VQGANOptions,
)

if TYPE_CHECKING:
    from cogview.runs.train import TrainingRecipe
    from cogview.runs.training import DryRunResult

RECIPES = {
    name: f"cogview.recipes.{name}"
    for name in (
        "image_tokenizer",
        "vqgan",
        "decoder",
        "text_to_image",
        "style",
        "captioning",
        "super_resolution",
    )
}


def text_tokenizer(
    options: Annotated[TextTokenizerOptions, FLAT],
    recipe: Annotated[TextTokenizerRecipe, FLAT],
    *,
    json: bool = False,
) -> None:
    """Train a text tokenizer.

    Without --data, the captions of the default data set are used, which gives the bundled text tokenizer.

    Args:
        options: files.
        recipe: captions and number of pieces.
        json: print the result as JSON.
    """
    from cogview.runs.text_tokenizer import train_text_tokenizer

    tokenizer = train_text_tokenizer(recipe, options)
    facts = {"path": options.out, "num_pieces": tokenizer.num_pieces, "fingerprint": tokenizer.fingerprint}
    print_result(
        facts,
        [f"{tokenizer.num_pieces} pieces, fingerprint {tokenizer.fingerprint}", str(options.out)],
        json,
    )


def _verb(recipe_type: type, options_type: type[TrainingOptions]) -> Callable[..., None]:
    """Create a verb whose flags are the fields of both classes; its help is that of the chosen recipe."""

    def run(
        options: Annotated[options_type, FLAT],
        recipe: Annotated[recipe_type, FLAT],
        *,
        json: bool = False,
    ) -> None:
        """Train by a recipe.

        Args:
            options: files and names.
            recipe: model and training.
            json: print the result as JSON.
        """
        _train(recipe, options, json)

    return run


image_tokenizer = _verb(ImageTokenizerRecipe, ImageTokenizerOptions)
vqgan = _verb(VQGANRecipe, VQGANOptions)
decoder = _verb(DecoderRecipe, DecoderOptions)
text_to_image = _verb(TextToImageRecipe, TextToImageOptions)
style = _verb(StyleRecipe, StyleOptions)
captioning = _verb(CaptioningRecipe, CaptioningOptions)
super_resolution = _verb(SuperResolutionRecipe, SuperResolutionOptions)


def _train(recipe: "TrainingRecipe", options: TrainingOptions, as_json: bool) -> None:
    """Train, and print the result."""
    from cogview.runs.train import train
    from cogview.runs.training import DryRunResult

    result = train(recipe, options)
    if result is None:
        return  # only the first of several processes prints
    if isinstance(result, DryRunResult):
        _print_dry_run(result, as_json)
        return
    summary = result.summary
    facts: dict[str, Any] = {
        "run": result.run,
        "model": result.model,
        "num_steps": summary.num_steps,
        "seconds": round(summary.seconds, 1),
        f"{summary.unit}_per_second": round(summary.items_per_second, 1),
        "metrics": dict(summary.metrics),
        "evaluation": result.evaluation,
    }
    main_metrics = {
        name: value for name, value in summary.metrics.items() if name.endswith(("loss", "nats", "psnr"))
    }
    lines = [
        f"{summary.num_steps} steps in {summary.seconds:,.0f} s",
        *(f"{name}: {value:.4f}" for name, value in main_metrics.items()),
        *(f"{split}: {_in_one_line(figures)}" for split, figures in result.evaluation.items()),
        f"samples: {result.run / 'samples'}",
        f"model: {result.model}",
    ]
    print_result(facts, lines, as_json)


def _print_dry_run(result: "DryRunResult", as_json: bool) -> None:
    """Print what two steps took beside the plan."""
    taken, planned = result.taken, result.planned
    where = "allocated on the GPU" if taken.device.type == "cuda" else "resident of the process"
    lines = [
        "two steps were taken and nothing was written",
        f"memory: {gigabytes(taken.peak_bytes)} {where}, {gigabytes(taken.peak_bytes - taken.bytes_before)} of it by "
        "training",
        f"a step: {taken.step_seconds:.3g} s; the first one {taken.first_step_seconds:.3g} s",
        f"the run: {taken.num_steps:,} steps, {taken.hours:,.2g} hours, and what samples and checkpoints take",
    ]
    if planned is None:
        lines.append("foretold: nothing, for only text-to-image recipes are planned")
    else:
        share = f"{planned['mfu']:.0%} of {planned['peak_tflops'] or 0:.3g} TFLOP/s"
        hours = "" if planned["hours"] is None else f"; {planned['hours']:,.2g} hours, if {share} are reached"
        lines.append(f"foretold: {gigabytes(planned['bytes'])} by training{hours}")
        planned = {name: planned[name] for name in ("bytes", "hours", "mfu", "peak_tflops")}
    measured = asdict(taken) | {"device": taken.device.type, "hours": taken.hours}
    print_result({"dry_run": measured, "planned": planned}, lines, as_json)


def _in_one_line(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
