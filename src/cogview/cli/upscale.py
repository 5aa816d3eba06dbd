"""`cogview upscale`: draws pictures again at twice or four times the size that the model encodes."""

from typing import Annotated

from cogview.cli.report import print_result
from cogview.runs.drawing_options import UpscalePicturesOptions
from cogview.runs.flags import FLAT


def run(options: Annotated[UpscalePicturesOptions, FLAT], *, json: bool = False) -> None:
    """Draw pictures again at twice or four times the size that the model encodes.

    The image tokenizer's decoder for that size draws them, if it has one; a magnifier, if one is named or there is no
    such decoder. Pictures of another world than the model's, photographs for instance, are refused: either draws only
    what the image tokenizer keeps of them.

    Each call writes its pictures into a new numbered folder and prints their paths; if it is stopped or killed, the
    same command goes on there. A picture that cannot be read is warned of and left out; the command then ends with exit
    code 1.

    Args:
        options: which pictures, how, and where to.
        json: print the result as JSON.
    """
    from cogview.runs.upscale_pictures import upscale_pictures

    result = upscale_pictures(options)
    facts = {"folder": result.folder, "pictures": result.pictures, **result.told.facts()}
    print_result(facts, [str(each["path"]) for each in result.pictures], json)
    result.told.refuse_problems()
