"""A run that orders pictures by how well a text fits them."""

from dataclasses import dataclass
from pathlib import Path

from cogview.errors import UsageError
from cogview.generation.loading import load
from cogview.generation.pictures import codes_of
from cogview.runs.chosen_adapters import take_adapter
from cogview.runs.drawing_options import RankPicturesOptions
from cogview.runs.told_pictures import ToldPictures


@dataclass(frozen=True, kw_only=True)
class RankedPicture:
    """A picture and how badly the text fits it.

    Args:
        path: of its file.
        caption_loss: CapLoss, what the text costs after the picture, in nats per piece.
    """

    path: Path
    caption_loss: float


@dataclass(frozen=True, kw_only=True)
class RankedPictures:
    """Pictures in the order in which a text fits them.

    Args:
        text: it.
        pictures: those that can be read, the best first.
        told: what is told of the others.
    """

    text: str
    pictures: list[RankedPicture]
    told: ToldPictures


def rank_pictures(options: RankPicturesOptions) -> RankedPictures:
    """Order pictures by how well a text fits them.

    Args:
        options: which pictures, and the text.

    Raises:
        UsageError: something that is asked for is impossible or refused.
        CogViewError: no picture can be read.
    """
    if not options.text.strip():
        raise UsageError("the text is empty; say what the pictures are to show")
    text = options.text.encode(errors="replace").decode()
    pipeline = load(options.model, options.device, options.dtype)
    name = take_adapter(pipeline, "captioner", options.captioner)
    template = pipeline.model.caption_model(name).template
    told = ToldPictures(
        options.pictures, lambda path: codes_of(pipeline.model, path, template, options.strict)
    )
    paths = list(told.codes)
    ranked = [
        RankedPicture(path=paths[each.index], caption_loss=each.caption_loss)
        for each in pipeline.rank(text, list(told.codes.values()), name, options.strict)
    ]
    return RankedPictures(text=text, pictures=ranked, told=told)
