"""`cogview caption`: writes captions of pictures."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cogview.cli.report import print_above_bars, print_result
from cogview.runs.drawing_options import CaptionPicturesOptions
from cogview.runs.flags import FLAT

if TYPE_CHECKING:
    from cogview.runs.caption_pictures import CaptionedPicture


def run(options: Annotated[CaptionPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Write captions of pictures.

    Captions are printed as they are written. A picture that cannot be read is warned of and left out; the command then
    ends with exit code 1. Contact sheets are passed over.

    Args:
        options: which pictures, and how.
        json: print the result as JSON.
    """
    from cogview.runs.caption_pictures import caption_pictures

    result = caption_pictures(options, None if json else _print)
    if json:
        print_result(
            {"pictures": [asdict(each) for each in result.pictures], **result.told.facts()}, [], json
        )
    result.told.refuse_problems()


def _print(picture: "CaptionedPicture") -> None:
    """Print a picture for people, and its captions with their losses."""
    captions = [f"   {caption.caption_loss:.3f}  {caption.text}" for caption in picture.captions]
    print_above_bars([str(picture.path), *captions])
