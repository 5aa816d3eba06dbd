"""`cogview evaluate composition`: how often pictures of held-out scenes show what their captions ask for."""

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import UsageError
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cogview.cli.evaluation_draws import Draws
    from cogview.evaluation.composition import AskedScene
    from cogview.evaluation.scene_reader import SceneReader, Shown
    from cogview.generation.pipeline import Pipeline

FORMAT, VERSION = "cogview-composition-evaluation", 1
MIN_CAPTIONS = 8
_NUM_FAILURES = 16
_LANGUAGES = {"zh": "Chinese", "en": "English"}
_CHOICES = {"first": "first candidate", "random": "a random candidate", "CapLoss": "best by CapLoss"}


def run(
    pictures: Path,
    /,
    *,
    split: str = "held-out-composition",
    num_captions: int = 500,
    model: str | None = None,
    adapter: str | None = None,
    captioner: str | None = None,
    candidates: int = 1,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    out: Path = Path("out/composition"),
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Count how often drawn pictures of scenes show what is asked for: objects, colours, sizes, places, ground, style.

    A picture is read by comparing every place with every object of the data set, in each style, size and colour. The
    reader is measured in each run, on the real pictures of the same captions: as they are and as the image tokenizer
    redraws them, under their own captions and under others'. What is drawn is kept in the folder, so that a command
    that was stopped or killed goes on when it is given again. Started by torchrun, each process draws its share.

    Args:
        pictures: an image folder of scenes that `cogview data build` made, with the icons that it wrote there.
        split: of the data set, whose captions are drawn; `held-out-colour` has things in colours never seen in them.
        num_captions: the first so many pictures of the split, with one caption of each, Chinese and English by turns,
            that names the ground. Those that show what the data set's icons do not are passed over and counted.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        captioner: tell of the best candidates by its CapLoss as well: the name of one that the model has, or a folder,
            or the run that trained it; the model's own by default.
        candidates: pictures of each caption.
        seed: of the first picture.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
        out: the folder of the run.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    if candidates < 1:
        raise UsageError(f"--candidates must be 1 or more, got {candidates}")
    if seed < 0:
        raise UsageError(f"--seed must not be negative, got {seed}")
    import cogview
    from cogview.cli.evaluation_draws import Draws, device_of, say_duration
    from cogview.data.check import MAX_LISTED
    from cogview.data.pairs import CaptionedImage
    from cogview.data.ranks import Ranks
    from cogview.evaluation.caption_set import AskedPicture, fingerprint_of
    from cogview.evaluation.composition import asked_scenes, shares_of, validated, verdicts_on
    from cogview.evaluation.scene_reader import SceneReader
    from cogview.generation.options import CodeOptions
    from cogview.runs.chosen_adapters import take_adapter

    ranks = Ranks.from_environment(os.environ)
    possible = asked_scenes(pictures, split=split)
    pipeline = cogview.load(model, device_of(device, ranks), dtype)
    chosen = take_adapter(pipeline, "adapter", adapter)
    ranker = take_adapter(pipeline, "captioner", captioner)
    if ranker is None and candidates > 1 and len(pipeline.captioner_names) == 1:
        (ranker,) = pipeline.captioner_names
    template = pipeline.model.drawing(chosen)[1]
    if template.grid_rows != template.grid_columns:
        raise UsageError("scenes are squares, and this model draws none: their composition cannot be read")
    size_pixels = template.grid_rows * pipeline.image_tokenizer.downsampling_factor
    reader = SceneReader(pictures, size_pixels)
    asked, left_out = _readable(possible, reader, num_captions, split)
    lengths = [len(pipeline.text_tokenizer.encode(each.text)) for each in asked]
    draws = Draws(
        pipeline=pipeline,
        adapter=chosen,
        asked=[
            AskedPicture(
                picture=CaptionedImage(
                    name=each.file_name, source=pictures / each.file_name, texts=(each.text,)
                ),
                text=each.text,
                original=each.text,
            )
            for each in asked
        ],
        candidates=candidates,
        seed=seed,
        sampling=pipeline.drawer.sampling(
            CodeOptions(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
        ),
        folder=out,
        ranks=ranks,
    )
    request = {
        "format": FORMAT,
        "version": VERSION,
        "captions": fingerprint_of(draws.asked),
        **draws.request(),
    }
    draws.begin_or_go_on(request)
    try:
        # The real pictures first: if they cannot be read, that is known before hours of drawing.
        checker = validated(asked, *_read_real(pictures, asked, reader, pipeline)) if ranks.rank == 0 else {}
        draws.draw(lambda seconds: say_duration("drawing", seconds) if ranks.rank == 0 else None)
        losses = None if ranker is None else draws.caption_losses(ranker, draws.fingerprint(ranker))
        if ranks.rank:
            print_result({"folder": out, "rank": ranks.rank}, [f"rank {ranks.rank} has done its share"], json)
            return
        for parts in (None, losses):
            draws.await_all(parts)
        shown = _read_drawn(draws, reader)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"Stopped. What is drawn lies in {out}; the same command goes on.") from stop
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
    result = {
        "pictures": pictures,
        "split": split,
        "model": model or "bundled",
        "adapter": adapter,
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
    sheet = _failures(pictures, draws, asked, verdicts[:, 0])
    _write(out, result, sheet, json)


def _readable(
    possible: "Sequence[AskedScene]", reader: "SceneReader", num_captions: int, split: str
) -> "tuple[list[AskedScene], list[dict[str, str]]]":
    """Return the first captions whose pictures the reader can read, and what was passed over.

    Raises:
        UsageError: there are fewer than were asked for, or too few were asked for.
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
    if len(asked) < MIN_CAPTIONS:
        raise UsageError(
            f"the split {split} has {len(asked)} pictures whose caption names the ground and which can be read{why}: "
            f"build a larger data set, {MIN_CAPTIONS} captions or more are needed"
        )
    if len(asked) < num_captions:
        raise UsageError(
            f"the split {split} has {len(asked)} pictures whose caption names the ground and which can be read{why}: "
            f"ask for --num-captions {len(asked)} or fewer, or build a larger data set"
        )
    return asked, left_out


def _read_real(
    folder: Path, asked: "Sequence[AskedScene]", reader: "SceneReader", pipeline: "Pipeline"
) -> "tuple[list[Shown], list[Shown]]":
    """Return what is read in the real pictures, as they are and redrawn by the image tokenizer."""
    from cogview.evaluation.composition import redrawn

    pictures = [reader.picture(folder, each.file_name) for each in asked]
    again: list[np.ndarray] = []
    with progress_bar("redrawing real", "pictures") as move:
        for picture in pictures:
            again.append(redrawn(pipeline.image_tokenizer, picture))
            move(len(again), len(pictures))
    with progress_bar("reading real", "pictures") as move:
        shown = reader.read_all([*pictures, *again], lambda number: move(number, 2 * len(pictures)))
    return shown[: len(pictures)], shown[len(pictures) :]


def _read_drawn(draws: "Draws", reader: "SceneReader") -> "list[Shown]":
    """Return what is read in all candidates, caption by caption."""
    import numpy as np

    captions, candidates = np.indices((len(draws.asked), draws.candidates)).reshape(2, -1)
    with progress_bar("reading drawn", "pictures") as move:
        return reader.read_all(
            (np.asarray(image) for image in draws.pictures(captions, candidates)),
            lambda number: move(number, len(captions)),
        )


def _failures(
    folder: Path, draws: "Draws", asked: "Sequence[AskedScene]", verdicts: "np.ndarray"
) -> "Image.Image | None":
    """Return a sheet of the first candidates that are not all right, each beside the real picture; None without any."""
    import numpy as np

    from cogview.evaluation.composition import PARTS, QUALITIES
    from cogview.generation.contact_sheet import contact_sheet
    from cogview.image.picture_reading import read_image

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


def _environment(pipeline: "Pipeline") -> dict[str, Any]:
    import torch

    from cogview.cli.evaluation_draws import versions
    from cogview.training.run_folder import command_line

    device = pipeline.device
    return {
        "command": command_line(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "num_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": versions(),
    }


def _write(out: Path, result: dict[str, Any], sheet: "Image.Image | None", as_json: bool) -> None:
    """Write JSON, table and failures, and print what is in them."""
    from cogview.files import atomic_write_json, atomic_write_text
    from cogview.generation.contact_sheet import save_sheet

    written = {"json": out / "composition.json", "table": out / "composition.md"}
    lines = [*_verdict_on_the_checker(result["checker"]), "", *_table(result)]
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in result.items()}
    atomic_write_json(written["json"], plain)
    atomic_write_text(written["table"], "\n".join(lines) + "\n")
    failures = out / "failures.png"
    if sheet is None:
        failures.unlink(missing_ok=True)
    else:
        written["failures"] = failures
        save_sheet(sheet, failures)
    if not result["checker"]["is_valid"]:
        warnings.warn("the checker errs too often, so that its figures say little", stacklevel=1)
    not_listed = result["num_left_out"] - len(result["left_out"])
    more = [
        f"{result['num_left_out']:,} pictures were passed over" + (":" if result["left_out"] else ""),
        *(f"  {each['where']}: {each['reason']}" for each in result["left_out"]),
        *([f"  and {not_listed:,} more"] if not_listed else []),
        *map(str, written.values()),
    ]
    print_result(result | written, [*lines, "", *more], as_json)


def _verdict_on_the_checker(checker: Mapping[str, Any]) -> list[str]:
    pictures, redrawn = (checker[name]["all"]["value"] for name in ("pictures", "redrawn"))
    found = (
        f"all right on {pictures:.1%} of the real pictures and on {redrawn:.1%} of them as the image tokenizer redraws "
        f"them ({checker['least_right']:.0%} wanted); under others' captions on "
        f"{checker['redrawn_shuffled']['all']:.1%}, where chance is {checker['chance']['all']:.1%}"
    )
    if checker["is_valid"]:
        return [f"The checker is valid: {found}."]
    return [f"**THE CHECKER IS NOT VALID, so the figures say little**: {found}."]


def _table(result: Mapping[str, Any]) -> list[str]:
    """Return the figures as Markdown."""
    request, checker, figures = result["request"], result["checker"], result["figures"]
    names = list(figures["first"])
    lines = [
        f"{request['num_captions']:,} captions of {result['split']} x {request['candidates']} candidates, "
        f"{result['model']}, seed {request['seed']}, temperature {request['temperature']:g}, top-p "
        f"{request['top_p']:g}, guidance {request['guidance']:g}; shares that are right, and where they lie with 95 %",
        "",
        f"| | {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|---|" + "---|" * len(names),
        f"| captions that ask for it | {' | '.join(str(figures['first'][name]['num']) for name in names)} |",
    ]
    rows = {_CHOICES[choice]: shares for choice, shares in figures.items()}
    rows |= {
        f"{_CHOICES[choice]}, {_LANGUAGES[language]} captions": shares
        for language, of_language in result["languages"].items()
        for choice, shares in of_language.items()
    }
    rows |= {"real pictures": checker["pictures"], "real pictures, redrawn": checker["redrawn"]}
    for what, shares in rows.items():
        lines.append(f"| {what} | {' | '.join(_spoken(shares[name]) for name in names)} |")
    for what, key in (
        ("real pictures, others' captions", "pictures_shuffled"),
        ("real pictures, redrawn, others' captions", "redrawn_shuffled"),
        ("chance under others' captions", "chance"),
    ):
        values = ("" if checker[key][name] is None else f"{checker[key][name]:.1%}" for name in names)
        lines.append(f"| {what} | {' | '.join(values)} |")
    return lines


def _spoken(share: Mapping[str, float | None]) -> str:
    if share["value"] is None:
        return ""
    around = "" if share["low"] is None else f" ({share['low']:.1%} to {share['high']:.1%})"
    return f"{share['value']:.1%}{around}"
