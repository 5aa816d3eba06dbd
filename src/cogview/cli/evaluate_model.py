"""`cogview evaluate model`: the report of a checkpoint, one page of HTML."""

import contextlib
import importlib.util
import io
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import CogViewError, UsageError

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
"""What is drawn of every model unless told otherwise: the world of the bundled one, in both languages by turns."""


def run(
    *,
    model: str | None = None,
    out: Path = Path("out/report"),
    prompts: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
    scenes: Path | None = None,
    images: Path | None = None,
    captions: Path | None = None,
    split: str | None = None,
    num_captions: int | None = None,
    candidates: int = 1,
    captioner: str | None = None,
    feature: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0",
    weights: Path | None = None,
    attention: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Make the report of a checkpoint: what it is, what it draws, its figures, what it was made by.

    Writes report.html, one page that needs no other file and no network, and report.json, all figures. The folder also
    keeps what is drawn, so that a command that was stopped or killed goes on when it is given again. What `cogview
    evaluate text-to-image --out FOLDER/text-to-image` and `cogview evaluate composition --out FOLDER/composition` left
    there is taken in.

    Args:
        model: a model folder, the folder of a training run, whose loss curves are shown, or OWNER/NAME on the Hugging
            Face hub; the bundled model by default.
        out: the folder of the report.
        prompts: a file with a text a line, to draw samples for; texts of the bundled model's world by default.
        seeds: of the samples, for each text alike.
        scenes: a default data set: adds the composition score on its held-out compositions, as `cogview evaluate
            composition` has it.
        images: a folder of real pictures with captions that the model has not learnt from: adds the figures of drawn
            pictures beside them, as `cogview evaluate text-to-image` has them, and those of the image tokenizer.
        captions: of the pictures: an annotation file of MS COCO (.json), or lines as in metadata.jsonl; the folder's
            own by default.
        split: take the pictures that name this split or none; all by default.
        num_captions: take so many pictures, with a caption of each, at random; all by default. Of scenes, the first so
            many; 500 by default.
        candidates: pictures of each caption, of which the best by CapLoss counts; more than 1 need a captioner.
        captioner: chooses: the name of one that the model has, or a folder, or the run that trained it; the model's own
            by default.
        feature: what sees the pictures. Only Inception's figures are FID and IS.
        weights: its file, as `cogview evaluate text-to-image` takes it.
        attention: add the scales of attention scores by layer and head, while the first sample is drawn.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
        batch_size: pictures seen at once.
        num_workers: processes that decode real pictures; 0 does it in this one.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    _check_out(out)
    texts = PROMPTS if prompts is None else _texts_of(prompts)
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds must be different numbers from 0, got {' '.join(map(str, seeds)) or 'none'}"
        )
    of_images = {"captions": captions, "split": split, "weights": weights}
    several = None if candidates == 1 else candidates
    of_both = {"num_captions": num_captions, "captioner": captioner, "candidates": several}
    for option, of, is_given in (
        ("--images", of_images, images is not None),
        ("--images or --scenes", of_both, images is not None or scenes is not None),
    ):
        for name in (name for name, value in of.items() if value is not None and not is_given):
            raise UsageError(
                f"--{name.replace('_', '-')} is about real pictures: give their folder with {option}"
            )
    from cogview.cli import evaluate_composition, evaluate_text_to_image
    from cogview.cli.checkpoint_figures import Checkpoint, measure_tokenizer
    from cogview.cli.doctor import environment
    from cogview.data.ranks import Ranks
    from cogview.evaluation.caption_set import CaptionSet
    from cogview.evaluation.report.sections import Shown, report_page
    from cogview.files import atomic_write_json, atomic_write_text
    from cogview.training.run_folder import command_line, git_commit

    if Ranks.from_environment(os.environ).num_ranks > 1:
        raise UsageError(
            f"a report is made by one process: let torchrun draw with cogview evaluate text-to-image --out "
            f"{out / TEXT_TO_IMAGE}, then give this command without it"
        )
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance}
    drawing = {
        "model": model,
        "captioner": captioner,
        "candidates": candidates,
        "device": device,
        "dtype": dtype,
        **sampling,
    }
    real = None
    # These have commands of their own, with a model of their own that is gone before ours comes.
    if images is not None:
        real = CaptionSet(images, captions, split=split, num_captions=num_captions)
        _quietly(
            evaluate_text_to_image.run,
            out=out / TEXT_TO_IMAGE,
            images=images,
            num_captions=num_captions,
            feature=feature,
            batch_size=batch_size,
            num_workers=num_workers,
            **of_images,
            **drawing,
        )
    if scenes is not None:
        number = {} if num_captions is None else {"num_captions": num_captions}
        _quietly(evaluate_composition.run, scenes, out=out / COMPOSITION, **number, **drawing)
    try:
        checkpoint = Checkpoint(model, device, dtype)
        samples, codes = checkpoint.draw(texts, seeds, sampling, out / SAMPLES)
        tokenizer, grid = measure_tokenizer(checkpoint, real, out / TOKENIZER, batch_size, num_workers)
    except OSError as error:
        raise CogViewError(f"{out} cannot be written ({error.strerror}): give another with --out") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"Stopped. What is drawn lies in {out}; the same command goes on.") from stop
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
        "attention": checkpoint.attention(texts[0], seeds[0], codes[0, 0]) if attention else None,
        "run": trained,
        "environment": environment(),
        "commit": git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command_line(),
    }
    report["lacking"] = _lacking(report)
    shown = Shown(samples=checkpoint.pictures(codes), reconstructions=grid, losses=losses)
    files = {"html": out / HTML, "json": out / JSON}
    atomic_write_text(files["html"], report_page(report, shown))
    atomic_write_json(files["json"], report)
    lines = [f"{files['html']}, {files['html'].stat().st_size / 1e6:.1f} MB", str(files["json"])]
    print_result({**report, "files": files}, [*lines, *report["lacking"]], json)


def _check_out(out: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        UsageError: it does.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder with --out")
    known = {HTML, JSON, SAMPLES, TEXT_TO_IMAGE, COMPOSITION, TOKENIZER}
    others = sorted(each.name for each in out.iterdir()) if out.exists() else []
    others = [name for name in others if name not in known and not name.startswith(".")]
    if others:
        raise UsageError(f"{out} holds something else than a report ({others[0]}): choose another with --out")


def _texts_of(path: Path) -> tuple[str, ...]:
    """Return the lines of a file that are not empty.

    Raises:
        UsageError: there are none.
        CogViewError: it cannot be read.
    """
    from cogview.data.records import lines_of

    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CogViewError(f"{path} cannot be read ({reason}): give a file with a text a line") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise UsageError(f"{path} has no texts: give a file with a text a line")
    return texts


def _quietly(command: Callable[..., None], *values: Any, **named: Any) -> None:
    """Run another command, whose report is not printed."""
    with contextlib.redirect_stdout(io.StringIO()):
        command(*values, **named)


def _drawn(folder: Path, transformer: str) -> dict[str, Any]:
    """Return the figures in a folder of `cogview evaluate text-to-image`, if there is one, by what saw the pictures."""
    paths = sorted(folder.glob("figures-*.json"))
    return {path.stem.removeprefix("figures-"): _figures_in(path, transformer) for path in paths}


def _composition(folder: Path, transformer: str) -> dict[str, Any] | None:
    """Return the figures in a folder of `cogview evaluate composition`, and their table in Markdown."""
    path, table = folder / "composition.json", folder / "composition.md"
    if not (path.is_file() and table.is_file()):
        return None
    return {"figures": _figures_in(path, transformer), "table": table.read_text(encoding="utf-8")}


def _figures_in(path: Path, transformer: str) -> dict[str, Any]:
    """Return the figures of drawn pictures in a file.

    Args:
        path: the file.
        transformer: fingerprint of the weights that must have drawn them.

    Raises:
        CogViewError: it is damaged.
        UsageError: another model drew them.
    """
    from cogview.files import read_json

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
    """Return in a line each what the report does not have, and how to have it."""
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
