"""Evaluation of text-to-image: the paper's figures for held-out captions."""

import os

from cogview.data.check import MAX_LISTED
from cogview.data.pairs import Problem
from cogview.data.ranks import Ranks
from cogview.errors import UsageError
from cogview.evaluation.caption_set import CaptionSet
from cogview.evaluation.clip import load_clip
from cogview.evaluation.plots import plot_figures
from cogview.evaluation.scores import MIN_PICTURES
from cogview.evaluation.text_to_image import figures_table
from cogview.files import atomic_write_json, atomic_write_text, sha256_of
from cogview.generation.pipeline import Pipeline
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_draws import Draws, open_model, resume_hint, say_duration
from cogview.runs.evaluation_figures import Protocol, figures_of, open_backbone
from cogview.runs.evaluation_options import TextToImageEvaluationOptions
from cogview.training.run_folder import versions

KIND = {"format": "cogview-text-to-image-evaluation", "version": 1}


def evaluate_text_to_image(options: TextToImageEvaluationOptions) -> EvaluationResult | None:
    """Compare pictures drawn for captions with the real ones, as the paper does.

    Args:
        options: captions, model and feature network.

    Returns:
        The figures and their paths; None in all processes but the first.
    """
    out = options.out
    ranks = Ranks.from_environment(os.environ)
    captions = CaptionSet(
        options.images,
        options.captions,
        split=options.split,
        translations=options.translations,
        translation_ids=options.translation_ids,
        num_captions=options.num_captions,
        seed=options.seed,
    )
    pipeline, adapter, ranker = open_model(options, ranks)
    if ranker is None and len(pipeline.captioner_names) == 1:
        (ranker,) = pipeline.captioner_names
    if options.candidates > 1 and ranker is None and options.clip is None:
        raise UsageError(
            f"--candidates {options.candidates} needs something to choose the best by, and this model has no "
            "captioner: give one with --captioner (cogview train captioning makes it), or CLIP with --clip and "
            "--clip-weights"
        )
    num_clipped = _leave_out_unreadable(captions, pipeline, adapter)
    asked = captions.asked
    if len(asked) < MIN_PICTURES:
        raise UsageError(
            f"{len(asked)} captions are too few to measure anything: give {MIN_PICTURES} or more"
        )
    # Open everything first, so that what is missing fails before pictures are drawn.
    backbone, backbone_facts = open_backbone(options.feature, options.weights, pipeline.device)
    scorer = judge = None
    if options.clip and options.clip_weights:
        scorer = load_clip(options.clip, options.clip_weights, pipeline.device)
        # Architectures may share a file, for instance with another activation.
        judge = f"{options.clip}-{sha256_of(options.clip_weights)[:16]}"
    draws = Draws(kind=KIND, options=options, pipeline=pipeline, adapter=adapter, asked=asked, ranks=ranks)
    request = draws.work.settings
    protocol = Protocol(
        options=options,
        backbone=backbone,
        size_pixels=pipeline.model.drawing(adapter)[1].grid_rows
        * pipeline.image_tokenizer.downsampling_factor,
        device=pipeline.device,
    )
    with resume_hint(out):
        # The real pictures come first, so that unreadable ones fail before hours of drawing.
        real = protocol.see_real([each.picture for each in asked]) if ranks.rank == 0 else None

        def estimated(seconds: float) -> None:
            if real is not None:
                say_duration("drawing", seconds)
                say_duration("then seeing the drawn pictures", real.seconds)

        draws.draw(estimated)
        losses = None if ranker is None else draws.caption_losses(ranker)
        fits = None if scorer is None or judge is None else draws.fits(scorer, judge)
        if real is None:
            return None
        for array in (None, losses, fits):
            draws.await_all(array)
        found = figures_of(
            draws,
            protocol,
            real,
            caption_losses=None if losses is None else losses.read_all(),
            fits=None if fits is None or scorer is None else {scorer.name: fits.read_all()},
        )
    problems = [*captions.problems, *real.problems]
    facts = {
        "images": str(options.images),
        "split": options.split,
        "num_clipped_captions": num_clipped,
        "num_problems": len(problems),
        "problems": [{"where": each.where, "reason": each.reason} for each in problems[:MAX_LISTED]],
        "num_real_pictures": len(real.seen[0].pooled),
        "num_resized": real.num_resized,
        "size_pixels": protocol.size_pixels,
        "contrast": options.contrast,
        "feature": backbone_facts,
        "captioner": None if ranker is None else draws.fingerprint(ranker),
        "model": options.model or "bundled",
        "request": request,
        "versions": versions(),
        **found,
    }
    name = backbone.name
    plots = plot_figures(found["figures"], found["curve"], name, out)
    files = {"json": out / f"figures-{name}.json", "table": out / f"figures-{name}.md"}
    atomic_write_json(files["json"], facts)
    atomic_write_text(files["table"], "\n".join(figures_table(facts)) + "\n")
    return EvaluationResult(facts=facts, files=files | {path.stem: path for path in plots})


def _leave_out_unreadable(captions: CaptionSet, pipeline: Pipeline, adapter: str | None) -> int:
    """Remove captions that the model cannot read; return how many are longer than it reads."""
    room = pipeline.model.drawing(adapter)[1].max_text_pieces
    lengths = [len(pipeline.text_tokenizer.encode(each.text)) for each in captions.asked]
    captions.problems += [
        Problem(
            where=each.picture.name,
            kind="bad caption",
            reason=f"the model reads nothing of {each.text[:40]!r}",
        )
        for each, length in zip(captions.asked, lengths, strict=True)
        if not length
    ]
    captions.asked = [each for each, length in zip(captions.asked, lengths, strict=True) if length]
    return sum(length > room for length in lengths)
