"""`cogview train text-tokenizer`: learns the pieces that texts are cut into."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.cli.report import print_result
from cogview.recipes.text_tokenizer import TextTokenizerRun


def run(
    recipe: Annotated[TextTokenizerRun, tyro.conf.arg(name="")], *, out: Path, json: bool = False
) -> None:
    """Learn the pieces that texts are cut into, from the captions of the default data set.

    Without further options this makes the bundled text tokenizer.

    Args:
        recipe: what is learnt from, and how many pieces.
        out: the model file to write.
        json: print the result as JSON.
    """
    from cogview.errors import UsageError
    from cogview.recipes.text_tokenizer import train_bundled_text_tokenizer

    if out.exists():
        raise UsageError(f"{out} already exists; delete it or choose another path")
    tokenizer = train_bundled_text_tokenizer(recipe, out)
    result = {"path": out, "num_pieces": tokenizer.num_pieces, "fingerprint": tokenizer.fingerprint}
    print_result(
        result, [f"{tokenizer.num_pieces} pieces, fingerprint {tokenizer.fingerprint}", str(out)], json
    )
