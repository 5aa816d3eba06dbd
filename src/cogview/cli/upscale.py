"""`cogview upscale`: draws pictures again at twice or four times the size that the model encodes."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cogview.cli.drawn_pictures import picture_folder, save_picture, tell_kept
from cogview.cli.report import print_result
from cogview.decoding.config import DtypeName
from cogview.errors import UsageError
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_PICTURES_AT_ONCE = 16  # which the engine draws together


def run(
    text: str,
    pictures: tuple[Path, ...],
    /,
    *,
    model: str | None = None,
    magnifier: str | None = None,
    factor: Literal[2, 4] = 2,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    out: Path = Path("out"),
    strict: bool = False,
    force: bool = False,
    device: str | None = None,
    dtype: DtypeName | None = None,
    json: bool = False,
) -> None:
    """Draw pictures again at twice or four times the size that the model encodes.

    The image tokenizer's decoder for that size draws them, if it has one; a magnifier, if one is named or there is no
    such decoder. Pictures of another world than the model's, photographs for instance, are refused: either draws only
    what the image tokenizer keeps of them.

    Each call writes its pictures into a new numbered folder and prints their paths; if it is stopped or killed, the
    same command goes on there. A picture that cannot be read is warned of and left out; the command then ends with exit
    code 1.

    Args:
        text: what the pictures show, in quotation marks; a magnifier reads it.
        pictures: their files; other sizes than the model's are scaled to it and the middle square is cut out.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        magnifier: the name of one that the model has, or a folder, or the run that trained it.
        factor: so many times the size that the model encodes.
        seed: of the first picture, the next has the next seed.
        temperature: of a magnifier: below 1 prefers probable codes, above 1 levels them, 0 takes the most probable; its
            own by default.
        top_k: of a magnifier: draw from so many most probable codes only.
        top_p: of a magnifier: draw from the fewest codes that hold this share of the probability; 0.8 by default, 1
            draws from all.
        out: the folder in which the numbered folder is made.
        strict: end with an error, rather than a warning, for words that the model has never seen, if a magnifier reads
            them.
        force: take pictures that the image tokenizer hardly keeps, with a warning, and those that have as many pixels
            already.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU and bfloat16 on a GPU by default.
        json: print the result as JSON.
    """
    if not text.strip():
        raise UsageError("the text is empty; say what the pictures show")
    text = text.encode(errors="replace").decode()
    import torch

    import cogview
    from cogview.cli.told_pictures import ToldPictures, tell_decoded
    from cogview.generation.options import UpscaleOptions
    from cogview.generation.upscaler import TOP_P
    from cogview.runs.chosen_adapters import take_adapter, weights_of

    pipeline = cogview.load(model, device, dtype)
    name = take_adapter(pipeline, "magnifier", magnifier)
    upscaler = pipeline.upscaler
    options = UpscaleOptions(
        temperature=temperature, top_k=top_k, top_p=top_p, magnifier=name, strict=strict, force=force
    )
    is_decoded = upscaler.is_decoded(factor, name)
    if is_decoded:
        upscaler.refuse_sampling(options)
    told = ToldPictures(pictures, lambda path: upscaler.codes_to_upscale(path, factor, name, force))
    if is_decoded:
        tell_decoded(pipeline)
    given = list(told.codes.items())
    settings: dict[str, Any] = {"text": text, "factor": factor, "model": model or "bundled"}
    if not is_decoded:
        top_p = TOP_P if top_p is None else top_p
        settings |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "magnifier": magnifier}
    names = [] if is_decoded else [name] if name else pipeline.magnifier_names
    request = {
        "verb": "upscale",
        **settings,
        "seed": seed,
        "pictures": _fingerprint(told.codes),
        "weights": weights_of(pipeline, *names),
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype),
        "versions": [cogview.__version__, torch.__version__],
    }
    with picture_folder(out, request) as folder:
        tell_kept(folder, len(given))
        num_left, num_done = len(given) - folder.num_kept, 0
        with progress_bar("upscaling", "codes") as move:
            for share, start in enumerate(range(0, len(given), _PICTURES_AT_ONCE)):
                if folder.pictures(share) is not None:
                    continue
                part = given[start : start + _PICTURES_AT_ONCE]

                def progress(done: int, here: int, before: int = num_done, pictures: int = len(part)) -> None:
                    each = here // pictures
                    move(before * each + done, max(num_left, before + pictures) * each)

                magnified = upscaler.upscale(
                    [codes for _, codes in part], text, factor, seed + start, options, progress
                )
                drawn: list[dict[str, Any]] = []
                for number, ((source, _), picture) in enumerate(
                    zip(part, magnified, strict=True), start=start + 1
                ):
                    path = folder.path / f"{number:02d}-{source.stem[:40]}-x{factor}.png"
                    read = {} if picture.drawn_text is None else {"drawn_text": picture.drawn_text}
                    save_picture(picture.image, path, text, settings | {"seed": picture.seed} | read)
                    drawn.append({"path": path, "source": str(source), "seed": picture.seed})
                folder.keep(share, drawn)
                num_done += len(part)
        folder.finish()
        pictures_drawn = list(folder.all_pictures())
    result = {
        "folder": folder.path,
        "pictures": pictures_drawn,
        "contact_sheets": told.sheets,
        "problems": told.problems,
    }
    print_result(result, [str(each["path"]) for each in pictures_drawn], json)
    told.refuse_problems()


def _fingerprint(codes: "Mapping[Path, Tensor]") -> str:
    """Return what names pictures by their codes and names, in their order."""
    digest = hashlib.sha256()
    for path, each in codes.items():
        digest.update(repr(path.stem).encode())
        digest.update(each.numpy().tobytes())
    return digest.hexdigest()[:16]
