"""Measure a trained model on what it has never seen, and write its card.

    python bench/model_card.py --model RUN/model --pictures PICTURES \
        --image-tokenizer-run RUN --transformer-run RUN [RUN ...]

PICTURES is a built default data set with its held-out splits. Where the transformer went on from earlier runs, these
are named first. A run whose folder is gone is a card's JSON with `#` and the name of the part, for instance
`bench/results/model_card.json#image_tokenizer_run`. Writes README.md and samples.png into the model's folder and the
figures to bench/results/model_card.json.

    python bench/model_card.py --model RUN/model --rewrite [--decoder-run RUN] [--pictures PICTURES]

measures nothing and writes README.md again, of the figures that lie there; with --decoder-run, what that run says of
itself is kept too, and with --pictures the samples are drawn again. Either way the model's adapters and decoder are
told of, by what `captioning.py`, `super_resolution.py`, `styles.py` and `decoders.py` have found.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cogview
from adapters_card import adapters_section
from cogview.evaluation.reconstruction import evaluate_reconstruction, in_batches
from cogview.files import atomic_write_json, atomic_write_text
from cogview.generation.contact_sheet import contact_sheet
from cogview.generation.pipeline import Pipeline
from cogview.image.picture_reading import read_image
from cogview.image.pixels import image_to_array, tensor_to_images
from cogview.recipes import default_data
from cogview.tensors import stored_shapes
from cogview.training.transformer import evaluate_losses
from cogview.world.icons import PACKAGE_OF_STYLE
from cogview.world.objects import GROUNDS
from environment import RESULTS, describe

SPLITS = ("held-out-composition", "held-out-object")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument(
        "--rewrite", action="store_true", help="only the text, of figures that were measured"
    )
    arguments.add_argument("--pictures", type=Path)
    arguments.add_argument("--image-tokenizer-run")
    arguments.add_argument("--transformer-run", nargs="+")
    arguments.add_argument("--decoder-run")
    arguments.add_argument("--recipe", default="bundled", help="name of the recipes that made it")
    arguments.add_argument("--num-pictures", type=int, default=500, help="measured, of each split")
    arguments.add_argument("--num-samples", type=int, default=8, help="held-out captions drawn for the sheet")
    arguments.add_argument("--between-runs", default="", help="what was done to the weights between two runs")
    given = arguments.parse_args()
    if given.rewrite:
        kept = json.loads((RESULTS / "model_card.json").read_text(encoding="utf-8"))
        if given.decoder_run is not None:
            (kept["decoder_run"],) = run_facts(given.decoder_run)
            atomic_write_json(RESULTS / "model_card.json", kept)
        if given.pictures is not None:
            pipe = cogview.load(given.model, device="cpu", dtype=torch.float32)
            write_samples(pipe, given.pictures, given.num_samples, given.model)
        atomic_write_text(given.model / "README.md", card(kept, given.model))
        return
    for name in ("pictures", "image_tokenizer_run", "transformer_run"):
        if getattr(given, name) is None:
            arguments.error(f"--{name.replace('_', '-')} is missing")
    pipe = cogview.load(given.model, device="cpu", dtype=torch.float32)
    figures: dict[str, Any] = {"environment": describe(torch.device("cpu")), "model": facts(pipe)}
    for split in SPLITS:
        pictures, texts = read_split(given.pictures, split, given.num_pictures)
        figures[split] = {
            "num_pictures": len(pictures),
            "reconstruction": evaluate_reconstruction(pipe.image_tokenizer, in_batches(pictures)),
            "loss": losses(pipe, pictures, texts),
            "loss_under_another_caption": losses(pipe, pictures, texts[1:] + texts[:1]),
        }
    figures["recipe"], figures["between_runs"] = given.recipe, given.between_runs
    (figures["image_tokenizer_run"],) = run_facts(given.image_tokenizer_run)
    figures["transformer_runs"] = [facts for run in given.transformer_run for facts in run_facts(run)]
    if given.decoder_run is not None:
        (figures["decoder_run"],) = run_facts(given.decoder_run)
    write_samples(pipe, given.pictures, given.num_samples, given.model)
    atomic_write_json(RESULTS / "model_card.json", figures)
    atomic_write_text(given.model / "README.md", card(figures, given.model))
    print(json.dumps({split: figures[split] for split in SPLITS}, indent=2))


def facts(pipe: Pipeline) -> dict[str, Any]:
    config = pipe.transformer.config
    return {
        "transformer_parameters": config.num_parameters,
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_codes": pipe.image_tokenizer.num_codes,
        "num_pieces": pipe.text_tokenizer.num_pieces,
        "grid": [pipe.template.grid_rows, pipe.template.grid_columns],
        "downsampling_factor": pipe.image_tokenizer.downsampling_factor,
        "image_tokenizer_parameters": sum(
            p.numel() for p in pipe.image_tokenizer.autoencoder.state_dict().values()
        ),
    }


def read_split(folder: Path, split: str, num_pictures: int) -> tuple[np.ndarray, list[str]]:
    """Return the first pictures of a split, uint8 [n y x c], and a caption of each, in Chinese and English by turns.

    Of scenes with unseen objects only those that show nothing else.
    """
    pictures, texts = [], []
    with (folder / "metadata.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if split == "held-out-object" and entry["scene"]["kind"] not in ("single", "count"):
                continue
            if entry["split"] == split and len(pictures) < num_pictures:
                pictures.append(np.asarray(read_image(folder / entry["file_name"])))
                # Captions are Chinese first, then English: take one of each in turn.
                texts.append(entry["texts"][0 if len(texts) % 2 else -1])
    return np.stack(pictures), texts


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([image_to_array(Image.fromarray(picture)) for picture in pictures]))


def losses(pipe: Pipeline, pictures: np.ndarray, texts: list[str]) -> dict[str, float]:
    """Return nats a token of text and of image, each over its legal ids, and bits a code."""
    codes = [
        pipe.image_tokenizer.encode(as_tensor(pictures[start : start + 16])).numpy()
        for start in range(0, len(pictures), 16)
    ]
    pieces = [pipe.text_tokenizer.encode(text) for text in texts]
    pairs = list(zip(pieces, np.concatenate(codes), strict=True))
    nats = evaluate_losses(pipe.transformer, pipe.template, pairs, batch_size=16)
    return {**nats, "image_bits_per_code": nats["image_loss_nats"] / np.log(2)}


def run_facts(source: str) -> list[dict[str, Any]]:
    """Return what a run folder says of itself, or what a card's JSON said of one run or of several."""
    path, _, part = source.partition("#")
    if part:
        kept_facts = json.loads(Path(path).read_text(encoding="utf-8"))[part]
        return kept_facts if isinstance(kept_facts, list) else [kept_facts]
    run = Path(path)
    text = (run / "config.json").read_text(encoding="utf-8")
    config = json.loads(text.replace(str(run.resolve().parent), "WORK"))
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    kept = ("seed", "device", "device_name", "num_threads", "versions", "git_commit", "training", "recipe")
    kept_values = {name: config[name] for name in kept}
    kept_values |= {
        "command": config["command"],
        "precision": config.get("precision", config["training"]["precision"]),
    }
    return [kept_values | {"resumes": config.get("resumes", []), "last_metrics": last}]


def write_samples(pipe: Pipeline, folder: Path, num_samples: int, out: Path) -> None:
    """Write rows of: the tokenizer's view of a held-out scene, and three pictures drawn for its caption."""
    pictures, texts = read_split(folder, "held-out-composition", num_samples)
    codes = pipe.image_tokenizer.encode(as_tensor(pictures))
    views = tensor_to_images(pipe.image_tokenizer.decode(codes, pipe.size_pixels))
    drawn = pipe.generate(texts, num_candidates=3)
    rows = [[view, *(candidate.image for candidate in row)] for view, row in zip(views, drawn, strict=True)]
    contact_sheet(rows, texts).save(out / "samples.png", optimize=True)


def art(styles: Sequence[str]) -> str:
    """Return the names of styles with the licences of their art."""
    return ", ".join(f"{style} ({PACKAGE_OF_STYLE[style].licence})" for style in styles)


def commits_of(run: dict[str, Any]) -> str:
    """Return the commits that a run was started and resumed with."""
    commits = [run["git_commit"], *(resume["git_commit"] for resume in run["resumes"])]
    return " then ".join(dict.fromkeys(commit or "unknown" for commit in commits))


def command_of(run: dict[str, Any], recipe_name: str) -> str:
    """Return the command that started a run of the transformer; of early runs, the flags by which they differed."""
    if "command" in run:
        return run["command"]
    recipe, training = run["recipe"], run["training"]
    return (
        f"cogview train text-to-image {recipe_name} --mixed-codes {recipe.get('mixed_codes', 0.0):g}"
        f" --token-loss.text-weight {recipe['token_loss']['text_weight']:g}"
        f" --training.num-steps {training['num_steps']} --training.learning-rate {training['learning_rate']:g}"
        f" --training.muon-learning-rate {training['muon_learning_rate']:g}"
    )


def device_of(run: dict[str, Any]) -> str:
    """Return what a run was trained on."""
    return run["device_name"] if run["device"] == "cuda" else f"{run['num_threads']} CPU threads"


def share_alike(folder: Path) -> str:
    """Return what the card says of share-alike art."""
    if not (folder / "adapters" / "style-openmoji").is_dir():
        return "No art under share-alike terms."
    return "No share-alike art but for the adapter `style-openmoji`, which is under CC-BY-SA-4.0."


def parameters_of(folder: Path) -> str:
    """Return how many weights lie in a folder's file."""
    num = sum(math.prod(shape) for shape in stored_shapes(folder / "model.safetensors").values())
    return f"{num / 1e6:.1f} M"


def decoder_section(folder: Path) -> str:
    """Return what the card says of the decoder beside the image tokenizer's own one."""
    if not (folder / "image_tokenizer" / "decoders").is_dir():
        return ""
    found = json.loads((RESULTS / "decoders.json").read_text(encoding="utf-8"))
    judges = [
        name.split()[1]
        for name in found["splits"][SPLITS[0]]["x1"]
        if name.startswith("perceptual") and "bic" in name
    ]
    rows = "\n".join(
        f"| {split} | {128 * int(scale[1:])} | {of['psnr_db gained'][0]:.1f} +- {of['psnr_db gained'][1]:.1f} | "
        + " | ".join(
            f"{of[f'{kind} decoder'][0]:.2f}, {of[f'{kind} bicubic'][0]:.2f}"
            for kind in (*(f"perceptual {judge}" for judge in judges), "haze")
        )
        + " |"
        for split in SPLITS
        for scale, of in found["splits"][split].items()
    )
    environment = found["environment"]
    return f"""
## Sizes

The decoder against the image tokenizer's own one, enlarged by bicubic interpolation: PSNR gained, and of both the
perceptual distance from the true picture (lower is nearer) and the haze on even ground, in levels of 255.

| split | pixels | dB gained | {" | ".join(judges)} | haze |
|---|---|---|{"---|" * len(judges)}---|
{rows}

Lite0 also trained it, Lite1 did not. Measured by `python bench/decoders.py --num-pictures {found["num_pictures"]}` on
{environment["device"]}, commit {environment["commit"]}.
"""


def card(figures: dict[str, Any], folder: Path) -> str:
    """Return the model card in Markdown."""
    model, environment = figures["model"], figures["environment"]
    height, width = (side * model["downsampling_factor"] for side in model["grid"])
    tokenizer_run, transformer_runs = figures["image_tokenizer_run"], figures["transformer_runs"]
    rows = "\n".join(
        f"| {split} | {figures[split]['num_pictures']} | {figures[split]['reconstruction']['psnr_db']:.1f} "
        f"| {figures[split]['reconstruction']['codes_used']:.0f} "
        f"| {figures[split]['reconstruction']['perplexity']:.0f} "
        f"| {figures[split]['loss']['text_loss_nats']:.2f} | {figures[split]['loss']['image_loss_nats']:.2f} "
        f"| {figures[split]['loss_under_another_caption']['image_loss_nats']:.2f} |"
        for split in SPLITS
    )

    def run_row(name: str, run: dict[str, Any], command: str) -> str:
        training, last = run["training"], run["last_metrics"]
        return (
            f"| {name} | `{command}` | {last['step']:,} x {training['batch_size']} | {last['seconds'] / 60:.0f} "
            f"| {run['seed']} | {commits_of(run)} | {run['versions']['torch']} | {device_of(run)} |"
        )

    transformer_rows = "\n".join(
        run_row("transformer", run, command_of(run, figures["recipe"])) for run in transformer_runs
    )
    name = figures["recipe"].replace("-", "_")
    world, icons = (getattr(default_data, each)().data for each in (name, f"{name}_image_tokenizer"))
    between = f"; {figures['between_runs']}" if figures["between_runs"] else ""
    precisions = dict.fromkeys(run.get("precision", run["training"]["precision"]) for run in transformer_runs)
    others = [style for style in icons.styles if style not in world.styles]
    sizes, decoder_row, decoder_run_row = f"{height} x {width} pixels", "", ""
    decoders = sorted((folder / "image_tokenizer" / "decoders").glob("*/config.json"))
    if decoders:
        scales = json.loads(decoders[0].read_text(encoding="utf-8"))["config"]["scales"]
        *others_sizes, largest = (str(scale * height) for scale in sorted(scales))
        sizes = f"{', '.join(others_sizes)} or {largest} pixels a side"
        decoder_row = (
            f"\n| decoder | draws those sizes of the same codes | {parameters_of(decoders[0].parent)} |"
        )
        decoder = figures["decoder_run"]
        decoder_run_row = "\n" + run_row("decoder", decoder, decoder["command"])
    also = f", the image tokenizer also on {art(others)}" if others else ""
    return f"""---
license: apache-2.0
language: [zh, en]
pipeline_tag: text-to-image
library_name: cogview
---
# The bundled model

Draws scenes of one to four known objects, {sizes}, from Chinese or
English text. A small world on purpose: {world.num_objects} objects in {len(world.styles)} icon styles
({", ".join(world.styles)}) on {len(GROUNDS)} grounds. What is not in that world (the first {world.num_objects}
training objects of `src/cogview/world/objects.tsv`) it cannot draw.

![For eight held-out captions: the scene as the tokenizer sees it, then three pictures drawn](samples.png)

First column: the true scene of a caption never trained on, as the image tokenizer sees it. The others: drawn for the
caption, seeds 0, 1 and 2, none picked.

| part | shape | parameters |
|---|---|---|
| text tokenizer | SentencePiece, {model["num_pieces"]:,} pieces, byte fallback | |
| image tokenizer | VQ-VAE, {model["num_codes"]:,} codes | \
{model["image_tokenizer_parameters"] / 1e6:.1f} M |{decoder_row}
| transformer | {model["num_layers"]} layers x {model["hidden_size"]} x {model["num_heads"]} heads, Sandwich-LN | \
{model["transformer_parameters"] / 1e6:.1f} M |

## Figures

On pictures never trained on: known objects in compositions never seen, and objects never seen. Losses are nats a token
over the ids that are legal there; "under another caption" is the image loss after the caption of another picture, so
the difference is what the model takes from the text.

| split | pictures | PSNR dB | codes used | perplexity | text nats | image nats | under another caption |
|---|---|---|---|---|---|---|---|
{rows}

Measured by `python bench/model_card.py --num-pictures {figures[SPLITS[0]]["num_pictures"]}`
on {environment["device"]}, {environment["num_threads"]} threads, torch
{environment["versions"]["torch"]}, commit {environment["commit"]}; all figures are in `bench/results/model_card.json`.

## Training

| part | recipe | steps x batch | minutes | seed | commit | torch | device |
|---|---|---|---|---|---|---|---|
{run_row("image tokenizer", tokenizer_run, f"cogview train image-tokenizer {figures['recipe']}")}
{transformer_rows}{decoder_run_row}

Precision {", then ".join(precisions)}. Each run of the transformer starts from
the one before it{between}.
A commit that ends in "-dirty" had changes beside it, so that
run cannot be repeated from the commit alone.
{decoder_section(folder)}{adapters_section(folder)}
## Data and licences

Trained on scenes of icons from {art(world.styles)}{also}, with words from emojibase (MIT)
and this project's templates. {share_alike(folder)} Credits: `NOTICE`. The weights are under Apache-2.0.

## Limits

Its data has no people, no other styles than its own, no positions off the lattice, no captions in capitals and no more
than four objects. What it draws for anything else means nothing.
"""


if __name__ == "__main__":
    main()
