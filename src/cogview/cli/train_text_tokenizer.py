"""`cogview train text-tokenizer`: learns the pieces that texts are cut into."""

from pathlib import Path
from typing import Annotated

import tyro

from cogview.cli.report import print_result
from cogview.recipes.text_tokenizer import TextTokenizerRun


def run(
    recipe: Annotated[TextTokenizerRun, tyro.conf.arg(name="")],
    *,
    out: Path,
    data: Path | None = None,
    json: bool = False,
) -> None:
    """Learn the pieces that texts are cut into.

    Without --data it learns from the captions of the default data set, which makes the bundled text tokenizer.

    Args:
        recipe: what is learnt from, and how many pieces.
        out: the model file to write.
        data: learn from the captions of these pictures: an image folder, WebDataset tars, or one tar.
        json: print the result as JSON.
    """
    from cogview.errors import UsageError
    from cogview.recipes.text_tokenizer import train_bundled_text_tokenizer, train_text_tokenizer_on

    if out.exists():
        raise UsageError(f"{out} already exists; delete it or choose another path")
    if data is None:
        tokenizer = train_bundled_text_tokenizer(recipe, out)
    else:
        tokenizer = train_text_tokenizer_on(data, out, recipe.tokenizer)
    result = {"path": out, "num_pieces": tokenizer.num_pieces, "fingerprint": tokenizer.fingerprint}
    print_result(
        result, [f"{tokenizer.num_pieces} pieces, fingerprint {tokenizer.fingerprint}", str(out)], json
    )
