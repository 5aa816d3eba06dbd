"""Capitals in captions for a model that reads lower case."""

from cogview.data.shards import TokenShards
from cogview.errors import UsageError
from cogview.text.config import TextCase
from cogview.text.tokenizer import TextTokenizer


def refuse_capitals(shards: TokenShards, text_case: TextCase, tokenizer: TextTokenizer | None) -> None:
    """Refuse tokens of captions with capitals if the model reads lower case: it would never draw by them.

    Args:
        shards: of the captions.
        text_case: how the model reads capitals.
        tokenizer: of both; None if unknown.

    Raises:
        UsageError: a caption has a capital.
    """
    if text_case != "lower" or shards.text_case == "lower":
        return
    written: list[str] = []
    if shards.words is not None:
        written = [*shards.words.counts]
    elif tokenizer is not None:
        pieces = (piece for piece in shards.used_pieces().tolist() if piece != tokenizer.unknown_piece)
        written = [tokenizer.decode([piece]) for piece in pieces]
    if capital := next((each for each in written if each != each.lower()), None):
        raise UsageError(
            f"the captions of {shards.folder} have capitals, such as {capital!r}, and the model reads all texts in "
            "lower case: make the tokens again with cogview tokenize --text-case lower"
        )
