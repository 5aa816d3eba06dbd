"""What can be asked of a pipeline, and the texts that are drawn for it."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from cogview.errors import UsageError
from cogview.numbers import whole_number
from cogview.text.word_replacing import replace_words


def checked_texts(text: str | Sequence[str]) -> list[str]:
    """Return the texts to draw: one, or several.

    Raises:
        UsageError: there is none, an empty one, or something that is no text.
    """
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if not texts:
        raise UsageError("there is no text to draw pictures for; give at least one")
    for number, each in enumerate(texts, start=1):
        if not isinstance(each, str):
            raise UsageError(f"text {number} of {len(texts)} must be a text, got {each!r}")
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if empty:
        raise UsageError(f"text {empty[0]} of {len(texts)} is empty; say what to draw")
    return texts


def check_request(num_candidates: int, keep: int | None, seed: int, can_rank: bool = False) -> None:
    """Refuse numbers of pictures that cannot be drawn.

    Args:
        num_candidates: pictures of each text.
        keep: how many of them to return; None for all.
        seed: of the first.
        can_rank: whether there is something to choose the best by.

    Raises:
        UsageError: a number is impossible.
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
    """Return what is drawn for each candidate of each text.

    Args:
        texts: what the user asks for.
        seeds: of the candidates.
        balance_words: replace words for people, for each seed in its own way.
    """
    return [[replace_words(text, seed) if balance_words else text for seed in seeds] for text in texts]


def check_pieces(pieces_of: Mapping[str, Sequence[int]], max_text_pieces: int) -> None:
    """Refuse texts without a piece, and warn once of those that are longer than the model reads.

    Args:
        pieces_of: the pieces of each text.
        max_text_pieces: so many the model reads.

    Raises:
        UsageError: a text holds nothing that the model reads.
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
            f"(up to {max(lengths)}); the rest of them is left out",
            stacklevel=4,
        )
