"""Validation of the arguments of a drawing."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from cogview.errors import UsageError
from cogview.numbers import whole_number
from cogview.text.word_replacing import replace_words


def checked_texts(text: str | Sequence[str]) -> list[str]:
    """Return the texts to draw as a list.

    Raises:
        UsageError: there is none, an empty one, or something other than a text.
    """
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if not texts:
        raise UsageError("no text given; give at least one")
    for number, each in enumerate(texts, start=1):
        if not isinstance(each, str):
            raise UsageError(f"text {number} of {len(texts)} must be a string, got {each!r}")
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if empty:
        raise UsageError(f"text {empty[0]} of {len(texts)} is empty; say what to draw")
    return texts


def check_request(num_candidates: int, keep: int | None, seed: int, can_rank: bool = False) -> None:
    """Validate the numbers of pictures and the seed.

    Args:
        num_candidates: pictures of each text.
        keep: pictures to return; None for all.
        seed: of the first picture.
        can_rank: whether pictures can be ranked.

    Raises:
        UsageError: a number is out of range.
    """
    for name, value in (("num_candidates", num_candidates), ("keep", keep), ("seed", seed)):
        if value is not None or name != "keep":
            whole_number(name, value)
    if num_candidates < 1:
        raise UsageError(f"num_candidates must be at least 1, got {num_candidates}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    if keep is not None and not 1 <= keep <= num_candidates:
        raise UsageError(f"keep must be between 1 and num_candidates, {num_candidates}, got {keep}")
    if keep is not None and keep < num_candidates and not can_rank:
        raise UsageError(
            f"keep={keep} of {num_candidates} candidates needs ranking, and this model has no captioner to rank with: "
            "train one with cogview train captioning, and give its run as --captioner, or to add_adapter; or leave "
            "keep out"
        )


def texts_of_candidates(
    texts: Sequence[str], seeds: Sequence[int], balance_words: bool = False
) -> list[list[str]]:
    """Return the text of each candidate of each text.

    Args:
        texts: as the user wrote them.
        seeds: of the candidates.
        balance_words: replace words for people, differently for each seed.
    """
    return [[replace_words(text, seed) if balance_words else text for seed in seeds] for text in texts]


def check_pieces(pieces_of: Mapping[str, Sequence[int]], max_text_pieces: int) -> None:
    """Refuse texts without a piece, and warn once of texts that will be cut.

    Args:
        pieces_of: pieces by text.
        max_text_pieces: limit of the model.

    Raises:
        UsageError: a text has no piece.
    """
    for number, (text, pieces) in enumerate(pieces_of.items(), start=1):
        if not len(pieces):
            raise UsageError(
                f"text {number} of {len(pieces_of)}, {text!r}, holds nothing that this model reads; say what to draw"
            )
    lengths = [len(pieces) for pieces in pieces_of.values()]
    num_clipped = sum(length > max_text_pieces for length in lengths)
    if num_clipped:
        warnings.warn(
            f"{num_clipped} of {len(lengths)} texts have more than the {max_text_pieces} pieces that this model reads "
            f"(up to {max(lengths)}); the rest is cut off",
            stacklevel=4,
        )
