"""Evaluation of attention: maps by layer and head while a picture is drawn."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from cogview.errors import UsageError
from cogview.evaluation.attention import attention_maps, check_places, score_lines, score_table
from cogview.evaluation.attention_figures import text_figure, token_figure
from cogview.files import atomic_write_json, atomic_write_text
from cogview.generation.loading import load
from cogview.generation.options import CodeOptions
from cogview.generation.pictures import codes_of
from cogview.generation.pipeline import Pipeline
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.evaluation import EvaluationResult
from cogview.runs.evaluation_options import AttentionEvaluationOptions
from cogview.runs.picture_folder import save_picture
from cogview.runs.progress_bar import progress_bar


def evaluate_attention(options: AttentionEvaluationOptions) -> EvaluationResult:
    """Draw the attention maps of a model's layers and heads while it draws a picture.

    Args:
        options: text, picture and place.

    Returns:
        The scores of each head, in `scores.json` and `scores.txt`, and the figures.
    """
    text, out, given = options.text.encode(errors="replace").decode(), options.out, options.picture
    if not text.strip():
        raise UsageError("the text is empty: give what to draw, or what the picture shows")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: give a folder with --out")
    pipeline = load(options.model, options.device, options.dtype)
    name = take_adapter(pipeline, "adapter", options.adapter)
    _, template = pipeline.model.drawing(name)
    place = (
        template.grid_rows // 2 if options.row is None else options.row,
        template.grid_columns // 2 if options.column is None else options.column,
    )
    check_places(template, [place])
    transformer = pipeline.transformer if name is None else pipeline.adapters[name].transformer
    _check_layers(options.layers, transformer.config.num_layers)
    metadata: dict[str, Any] = {
        "text": text,
        "model": options.model or "bundled",
        **({} if options.adapter is None else {"adapter": options.adapter}),
    }
    if given is None:
        with progress_bar("drawing", "codes") as move:
            (drawn,) = pipeline.generate(
                text, 1, seed=options.seed, progress=move, adapter=name, **options.sampling()
            )
        codes, image, read = drawn.codes, drawn.image, drawn.drawn_text or text
        sampling = pipeline.drawer.sampling(CodeOptions(adapter=name, **options.sampling()))
        metadata |= {"seed": options.seed, **asdict(sampling)}
    else:
        read = pipeline.model.known_spellings([text], name)[text]
        codes = _codes_of(pipeline, read, given, name)
        image = pipeline.model.decoder.decode(codes)
        metadata["picture"] = str(given)
    pieces = template.clip(pipeline.text_tokenizer.encode(read))
    maps = attention_maps(transformer, template, pieces, codes, [place])
    words = pipeline.text_tokenizer.words(read)[: len(pieces)]
    metadata |= {"row": place[0], "column": place[1]}
    files = {each: out / f"{each}.png" for each in ("picture", "token", "text")}
    save_picture(image, files["picture"], text, metadata)
    layers = options.layers or None
    for which, figure in (
        ("token", token_figure(maps, image, text, layers=layers)),
        ("text", text_figure(maps, image, text, words, layers)),
    ):
        save_picture(_with_palette(figure, image), files[which], text, metadata)
    facts = {**metadata, "pieces": words, "scores": score_table(maps)}
    files |= {"scores": out / "scores.json", "scores_text": out / "scores.txt"}
    atomic_write_json(files["scores"], facts)
    lines = [text, *(f"piece {number}: {word}" for number, word in enumerate(words))]
    atomic_write_text(files["scores_text"], "\n".join([*lines, "", *score_lines(facts["scores"])]) + "\n")
    return EvaluationResult(facts=facts, files=files)


def _with_palette(figure: Image.Image, picture: Image.Image) -> Image.Image:
    """Return a figure in 256 colours, half the bytes of full colour."""
    # Without this, the cells' many shades would take the palette from the small picture.
    both = Image.new("RGB", (figure.width, 2 * figure.height))
    both.paste(figure)
    both.paste(picture.resize(figure.size), (0, figure.height))
    return figure.quantize(palette=both.quantize(256), dither=Image.Dither.NONE)


def _check_layers(layers: tuple[int, ...], num_layers: int) -> None:
    """Refuse layers that the model does not have.

    Raises:
        UsageError: a layer is out of range.
    """
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise UsageError(f"this model has no layer {layer}: give some from 0 to {num_layers - 1}")


def _codes_of(pipeline: Pipeline, text: str, picture: Path, adapter: str | None) -> Int64[Tensor, "r s"]:
    """Return the codes of a picture, after checking that the model can read the text.

    Raises:
        UsageError: the model cannot read the text.
        UnusableImage: the file is no readable picture.
    """
    _, template = pipeline.model.drawing(adapter)
    pipeline.drawer.pieces_of([text], template.max_text_pieces)
    return torch.from_numpy(codes_of(pipeline.model, picture, template)[0])
