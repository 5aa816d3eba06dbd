"""`cogview evaluate attention`: draws what each layer and head looks at while a picture is drawn."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import UsageError
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    from jaxtyping import Int64
    from PIL import Image
    from torch import Tensor

    from cogview.generation.pipeline import Pipeline


def run(
    text: str,
    /,
    *,
    picture: Path | None = None,
    row: int | None = None,
    column: int | None = None,
    layers: tuple[int, ...] = (),
    model: str | None = None,
    adapter: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    out: Path = Path("out/attention"),
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Draw what each layer and head of a model looks at while it draws a picture for a text.

    Writes token.png, where one code of the picture looks in the picture drawn so far, by layer and head; text.png,
    which piece of the text each place of the picture looks at; scores.json and scores.txt, how large the scores of each
    head are and where its weights lie; and picture.png. Files of these names are replaced.

    Args:
        text: what is drawn, or what the picture shows, in quotation marks.
        picture: look into this picture instead of drawing one; other sizes are scaled and the middle square is cut out.
        row: of the code whose map over the picture is drawn, from 0; the middle by default.
        column: of the same code, from 0; the middle by default.
        layers: the layers to draw, from 0; all by default.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        seed: the picture is the one that `cogview generate` draws with it and with the settings that follow.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt; the model's own by default. The maps are
            those of the sequence with the text.
        out: the folder for the files.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    text = text.encode(errors="replace").decode()
    if not text.strip():
        raise UsageError("the text is empty; say what to draw, or what the picture shows")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name the folder that --out shall be")
    import cogview
    from cogview.evaluation.attention import attention_maps, check_places, comparison_of_heads, score_table
    from cogview.evaluation.attention_figures import text_figure, token_figure
    from cogview.generation.options import CodeOptions
    from cogview.runs.chosen_adapters import take_adapter
    from cogview.runs.drawn_pictures import save_picture

    pipeline = cogview.load(model, device, dtype)
    name = take_adapter(pipeline, "adapter", adapter)
    _, template = pipeline.model.drawing(name)
    place = (
        template.grid_rows // 2 if row is None else row,
        template.grid_columns // 2 if column is None else column,
    )
    check_places(template, [place])
    transformer = pipeline.transformer if name is None else pipeline.adapters[name].transformer
    _check_layers(layers, transformer.config.num_layers)
    facts: dict[str, Any] = {
        "text": text,
        "model": model or "bundled",
        **({} if adapter is None else {"adapter": adapter}),
    }
    options = CodeOptions(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance, adapter=name)
    if picture is None:
        with progress_bar("drawing", "codes") as move:
            (drawn,) = pipeline.generate(
                text,
                1,
                seed=seed,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                guidance=guidance,
                progress=move,
                adapter=name,
            )
        codes, image, read = drawn.codes, drawn.image, drawn.drawn_text or text
        facts |= {"seed": seed, **asdict(pipeline.drawer.sampling(options))}
    else:
        read = pipeline.model.reading([text], name)[text]
        codes = _codes_of(pipeline, read, picture, name)
        image = pipeline.model.decoder.decode(codes)
        facts["picture"] = str(picture)
    pieces = template.clip(pipeline.text_tokenizer.encode(read))
    maps = attention_maps(transformer, template, pieces, codes, [place])
    words = pipeline.text_tokenizer.words(read)[: len(pieces)]
    facts |= {"row": place[0], "column": place[1]}
    files = {each: out / f"{each}.png" for each in ("picture", "token", "text")}
    save_picture(image, files["picture"], text, facts)
    shown = layers or None
    for which, figure in (
        ("token", token_figure(maps, image, text, layers=shown)),
        ("text", text_figure(maps, image, text, words, shown)),
    ):
        save_picture(_with_palette(figure, image), files[which], text, facts)
    table = score_table(maps)
    result = {**facts, "pieces": words, "scores": table}
    files |= _write_scores(result, out)
    lines = [
        "pieces: " + "  ".join(f"{number} {word}" for number, word in enumerate(words)),
        comparison_of_heads(table),
        *(str(path) for path in files.values()),
    ]
    print_result({**result, "files": files}, lines, json)


def _with_palette(figure: "Image.Image", picture: "Image.Image") -> "Image.Image":
    """Return a figure in 256 colours, half the bytes of all colours, which counts with dozens of layers and heads."""
    from PIL import Image

    # The picture is a small part of the figure, and would lose its own colours to the many shades of the cells.
    both = Image.new("RGB", (figure.width, 2 * figure.height))
    both.paste(figure)
    both.paste(picture.resize(figure.size), (0, figure.height))
    return figure.quantize(palette=both.quantize(256), dither=Image.Dither.NONE)


def _check_layers(layers: tuple[int, ...], num_layers: int) -> None:
    """Refuse layers that the model does not have.

    Raises:
        UsageError: one of them.
    """
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise UsageError(f"this model has no layer {layer}: give some from 0 to {num_layers - 1}")


def _codes_of(pipeline: "Pipeline", text: str, picture: Path, adapter: str | None) -> "Int64[Tensor, 'r s']":
    """Return the codes of a picture, once it is known that the model can read the text.

    Raises:
        UsageError: it cannot.
        UnusableImage: the file is no picture that can be read.
    """
    import torch

    from cogview.generation.pictures import codes_of

    _, template = pipeline.model.drawing(adapter)
    pipeline.drawer.pieces_of([text], template.max_text_pieces)
    return torch.from_numpy(codes_of(pipeline.model, picture, template)[0])


def _write_scores(result: dict[str, Any], out: Path) -> dict[str, Path]:
    """Write the scores for programs and for people, and return where."""
    from cogview.evaluation.attention import score_lines
    from cogview.files import atomic_write_json, atomic_write_text

    files = {"scores": out / "scores.json", "scores_text": out / "scores.txt"}
    atomic_write_json(files["scores"], result)
    pieces = [f"piece {number}: {word}" for number, word in enumerate(result["pieces"])]
    lines = [result["text"], *pieces, "", *score_lines(result["scores"])]
    atomic_write_text(files["scores_text"], "\n".join(lines) + "\n")
    return files
