"""`cogview rank`: orders pictures by how well a text fits them."""

from pathlib import Path

from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import UsageError


def run(
    text: str,
    pictures: tuple[Path, ...],
    /,
    *,
    model: str | None = None,
    captioner: str | None = None,
    strict: bool = False,
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Order pictures by how well a text fits them, the best first.

    The number beside a picture is CapLoss: what the text costs after the picture, in nats per piece. A picture that
    cannot be read is warned of and left out; the command then ends with exit code 1.

    Args:
        text: what is looked for, in quotation marks.
        pictures: their files; other sizes are scaled and the middle square is cut out.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        captioner: the name of one that the model has, or a folder, or the run that trained it; the model's own by
            default.
        strict: end with an error, rather than a warning, for words that the model has never seen and pictures that the
            image tokenizer hardly keeps.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    if not text.strip():
        raise UsageError("the text is empty; say what the pictures are to show")
    text = text.encode(errors="replace").decode()
    import cogview
    from cogview.cli.told_pictures import ToldPictures
    from cogview.generation.pictures import codes_of
    from cogview.runs.chosen_adapters import take_adapter

    pipeline = cogview.load(model, device, dtype)
    name = take_adapter(pipeline, "captioner", captioner)
    template = pipeline.model.caption_model(name).template
    told = ToldPictures(pictures, lambda path: codes_of(pipeline.model, path, template, strict))
    paths = list(told.codes)
    ranked = [
        {"path": paths[each.index], "caption_loss": each.caption_loss}
        for each in pipeline.rank(text, list(told.codes.values()), name, strict)
    ]
    lines = [f"{each['caption_loss']:.3f}  {each['path']}" for each in ranked]
    print_result(
        {"text": text, "pictures": ranked, "contact_sheets": told.sheets, "problems": told.problems},
        lines,
        json,
    )
    told.refuse_problems()
