"""`cogview caption`: writes captions of pictures."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from cogview.cli.report import print_above_bars, print_result
from cogview.decoding.config import DtypeName
from cogview.runs.progress_bar import progress_bar

_PICTURES_AT_ONCE = 16


def run(
    pictures: tuple[Path, ...],
    /,
    *,
    model: str | None = None,
    captioner: str | None = None,
    num_captions: int = 1,
    num_beams: int = 4,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    max_pieces: int | None = None,
    length_penalty: float = 1.0,
    language: Literal["zh", "en"] | None = None,
    strict: bool = False,
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Write captions of pictures.

    Captions are printed as they are written. A picture that cannot be read is warned of and left out; the command then
    ends with exit code 1. Contact sheets are passed over.

    Args:
        pictures: their files; other sizes are scaled and the middle square is cut out.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        captioner: the name of one that the model has, or a folder, or the run that trained it; the model's own by
            default.
        num_captions: of each picture.
        num_beams: width of the beam search; 1 takes the most probable piece each time.
        temperature: over 0, draw the captions instead.
        top_k: draw from so many most probable pieces only.
        top_p: draw from the fewest pieces that hold this share of the probability.
        seed: of the first caption drawn of each picture.
        max_pieces: of a caption; as many as the model has room for by default.
        length_penalty: 0 prefers short captions, 1 ranks by the mean log-probability of a piece.
        language: zh or en: pieces with letters of other scripts are not written; as the model likes by default.
        strict: end with an error, rather than a warning, if the image tokenizer hardly keeps a picture.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    import cogview
    from cogview.cli.told_pictures import ToldPictures
    from cogview.generation.options import CaptionOptions
    from cogview.generation.pictures import codes_of
    from cogview.runs.chosen_adapters import take_adapter

    pipeline = cogview.load(model, device, dtype)
    name = take_adapter(pipeline, "captioner", captioner)
    template = pipeline.model.caption_model(name).template
    told = ToldPictures(pictures, lambda path: codes_of(pipeline.model, path, template, strict))
    codes = list(told.codes.items())
    options = CaptionOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        max_pieces=max_pieces,
        length_penalty=length_penalty,
        captioner=name,
        language=language,
    )
    entries: list[dict[str, Any]] = []
    num_done = 0
    with progress_bar("captioning", "pictures") as move:
        for start in range(0, len(codes), _PICTURES_AT_ONCE):
            part = codes[start : start + _PICTURES_AT_ONCE]
            captions = pipeline.captioner.caption(
                [each for _, each in part], num_captions, num_beams, seed, options
            )
            written = [
                {"path": path, "captions": [dataclasses.asdict(caption) for caption in captions_of_one]}
                for (path, _), captions_of_one in zip(part, captions, strict=True)
            ]
            if json:
                entries += written
            else:
                print_above_bars(_lines(written))
            num_done += len(written)
            move(num_done, len(codes))
    if json:
        print_result(
            {"pictures": entries, "contact_sheets": told.sheets, "problems": told.problems}, [], json
        )
    told.refuse_problems()


def _lines(entries: list[dict[str, Any]]) -> list[str]:
    """Return the result for people: each picture, and its captions with their losses."""
    lines: list[str] = []
    for entry in entries:
        lines.append(str(entry["path"]))
        lines += [f"   {caption['caption_loss']:.3f}  {caption['text']}" for caption in entry["captions"]]
    return lines
