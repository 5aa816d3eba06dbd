"""`cogview rank`: orders pictures by how well a text fits them."""

from dataclasses import asdict
from typing import Annotated

from cogview.cli.report import print_result
from cogview.runs.drawing_options import RankPicturesOptions
from cogview.runs.flags import FLAT


def run(options: Annotated[RankPicturesOptions, FLAT], *, json: bool = False) -> None:
    """Order pictures by how well a text fits them, the best first.

    The number beside a picture is CapLoss: what the text costs after the picture, in nats per piece. A picture that
    cannot be read is warned of and left out; the command then ends with exit code 1.

    Args:
        options: which pictures, and the text.
        json: print the result as JSON.
    """
    from cogview.runs.rank_pictures import rank_pictures

    result = rank_pictures(options)
    pictures = [asdict(each) for each in result.pictures]
    lines = [f"{each.caption_loss:.3f}  {each.path}" for each in result.pictures]
    print_result({"text": result.text, "pictures": pictures, **result.told.facts()}, lines, json)
    result.told.refuse_problems()
