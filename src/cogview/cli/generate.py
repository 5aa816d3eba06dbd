"""`cogview generate`: draws pictures for texts."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cogview.cli.drawn_pictures import numbered_folder, save_picture
from cogview.cli.report import print_result, progress_bar
from cogview.errors import UsageError

if TYPE_CHECKING:
    from cogview.generation.pipeline import GeneratedImage

_TEXTS_AT_ONCE = 16  # what is drawn is saved after so many texts, and a contact sheet shows so many


def run(
    texts: tuple[str, ...],
    /,
    *,
    model: str | None = None,
    adapter: str | None = None,
    adapter_strength: float = 1.0,
    num_candidates: int = 4,
    keep: int | None = None,
    captioner: str | None = None,
    upscale: Literal[1, 2, 4] = 1,
    magnifier: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    balance_words: bool = False,
    out: Path = Path("out"),
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    json: bool = False,
) -> None:
    """Draw pictures for texts.

    Each call writes its pictures, and a contact sheet of them all, into a new numbered folder and prints their paths.
    A picture's file holds its text, its seed and the other settings.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        adapter_strength: let the adapter add so many times what it learnt to add: below 1 a style is weaker, and things
            are more as the model draws them without.
        num_candidates: pictures of each text.
        keep: how many of them to keep, the best by CapLoss, in this order; all, unranked, by default. Fewer need a
            captioner.
        captioner: rank with it: the name of one that the model has, or a folder, or the run that trained it; the
            model's own by default. If it is given, all candidates are ranked by default.
        upscale: draw those that are kept again at 2 or 4 times their size. Needs an adapter for super-resolution.
        magnifier: magnify with it: the name of one that the model has, or a folder, or the run that trained it; the
            model's own by default.
        seed: of the first candidate of each text, the next has the next seed. A seed always draws the same picture.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
        balance_words: give each word for people ("a doctor", 医生) a gender and a skin tone, in turn from seed to seed.
        out: the folder in which the numbered folder is made.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    if not texts:
        raise UsageError('there is no text to draw; give one, for instance: cogview generate "a cat"')
    if adapter is None and adapter_strength != 1:
        raise UsageError("--adapter-strength has no adapter to weaken or strengthen: add --adapter")
    if magnifier is not None and upscale == 1:
        raise UsageError("--magnifier has nothing to magnify: add --upscale 2, or 4")
    # An argument that is not UTF-8 arrives with half surrogates, which no file of ours could hold.
    texts = tuple(text.encode(errors="replace").decode() for text in texts)
    import cogview
    from cogview.cli.told_pictures import take_adapter

    pipeline = cogview.load(model, device, dtype)
    chosen = take_adapter(pipeline, "adapter", adapter)
    ranker = take_adapter(pipeline, "captioner", captioner)
    enlarger = take_adapter(pipeline, "magnifier", magnifier)
    settings = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": pipeline.top_p if top_p is None else top_p,
        "guidance": pipeline.guidance if guidance is None else guidance,
        "balance_words": balance_words,
        "model": model or "bundled",
        **({} if adapter is None else {"adapter": adapter, "adapter_strength": adapter_strength}),
        **({} if upscale == 1 else {"upscale": upscale}),
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
    }
    pictures: list[dict[str, Any]] = []
    sheets: list[Path] = []
    with numbered_folder(out) as folder, progress_bar("drawing", "codes") as move:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]

            def progress(num_done: int, num_all: int, before: int = start, here: int = len(part)) -> None:
                per_text = num_all // here
                move(before * per_text + num_done, len(texts) * per_text)

            rows = pipeline.generate(
                part,
                num_candidates,
                keep,
                seed,
                temperature,
                top_k=top_k,
                top_p=top_p,
                guidance=guidance,
                progress=progress,
                adapter=chosen,
                adapter_strength=adapter_strength,
                captioner=ranker,
                upscale=upscale,
                magnifier=enlarger,
                balance_words=balance_words,
            )
            for number, row in enumerate(rows, start=start + 1):
                pictures += [_save_picture(picture, folder, number, settings) for picture in row]
            sheet_name = f"contact-sheet-{start // _TEXTS_AT_ONCE + 1}.png"
            sheets.append(folder / ("contact-sheet.png" if len(texts) <= _TEXTS_AT_ONCE else sheet_name))
            _save_sheet(rows, part, sheets[-1], first_number=start + 1)
    print_result(
        {"folder": folder, "contact_sheets": sheets, "pictures": pictures}, _lines(pictures, sheets), json
    )


def _save_picture(
    picture: "GeneratedImage", folder: Path, number: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Write one picture with the settings that draw it again from the same weights, and return what to report of it."""
    facts: dict[str, Any] = {"text": picture.text, "seed": picture.seed}
    if picture.caption_loss is not None:
        facts["caption_loss"] = picture.caption_loss
    if picture.drawn_text is not None:
        facts["drawn_text"] = picture.drawn_text
    path = folder / f"{number:02d}-{_slug(picture.text)}-seed{picture.seed}.png"
    save_picture(picture.image, path, picture.text, facts | settings)
    return {"path": path, "number": number, **facts}


def _slug(text: str) -> str:
    """Return the beginning of a text as a part of a file name: letters and digits of any script."""
    return re.sub(r"\W+", "-", text)[:40].strip("-_") or "text"


def _save_sheet(
    rows: "Sequence[Sequence[GeneratedImage]]", texts: Sequence[str], path: Path, first_number: int
) -> None:
    """Write the contact sheet of some texts."""
    from cogview.files import atomic_write_bytes
    from cogview.generation.contact_sheet import contact_sheet

    data = io.BytesIO()
    images = [[picture.image for picture in row] for row in rows]
    notes = None
    if rows[0][0].caption_loss is not None:
        notes = [[f"{picture.caption_loss:.3f}" for picture in row] for row in rows]
    contact_sheet(images, texts, first_number, notes).save(data, "PNG")
    atomic_write_bytes(path, data.getvalue())


def _lines(pictures: Sequence[dict[str, Any]], sheets: Sequence[Path]) -> list[str]:
    """Return the result for people: each text with the number it has on the contact sheet, and its pictures."""
    lines: list[str] = []
    for number, row in itertools.groupby(pictures, key=lambda picture: picture["number"]):
        same_text = list(row)
        lines.append(f"{number}. {same_text[0]['text']}")
        for picture in same_text:
            drawn = f" ({picture['drawn_text']})" if "drawn_text" in picture else ""
            loss = f"  CapLoss {picture['caption_loss']:.3f}" if "caption_loss" in picture else ""
            lines.append(f"   {picture['path']}{drawn}{loss}")
    return [*lines, *(f"contact sheet: {sheet}" for sheet in sheets)]
