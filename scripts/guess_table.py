"""Puts a table of guesses into a model folder that was exported without one.

    python scripts/guess_table.py TOKENS MODEL

TOKENS are those that the model was trained on: for the bundled one, of `cogview data build bundled` and
`cogview tokenize PICTURES --size-pixels 128`. Models that are trained now bring theirs. The table decides how long
drawing takes, never what is drawn.
"""

import sys
from pathlib import Path

from cogview.data.shards import TokenShards
from cogview.runs.text_to_image import guess_table


def main(tokens: Path, model: Path) -> None:
    """Count what follows what in the tokens' pictures."""
    guess_table(TokenShards(tokens)).save(model)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
