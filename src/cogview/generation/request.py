"""What can be asked of a pipeline."""

from collections.abc import Sequence

from cogview.errors import UsageError


def check_request(
    texts: Sequence[str], num_candidates: int, keep: int | None, seed: int, can_rank: bool = False
) -> None:
    """Refuse what cannot be drawn.

    Args:
        texts: what to draw.
        num_candidates: pictures of each.
        keep: how many of them to return; None for all.
        seed: of the first.
        can_rank: whether there is something to choose the best by.

    Raises:
        UsageError: there is no text, an empty one, or a number is impossible.
    """
    if not texts:
        raise UsageError("there is no text to draw pictures for; give at least one")
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if empty:
        raise UsageError(f"text {empty[0]} of {len(texts)} is empty; say what to draw")
    if num_candidates < 1:
        raise UsageError(f"num_candidates must be at least 1, got {num_candidates}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    if keep is not None and not 1 <= keep <= num_candidates:
        raise UsageError(f"keep must be between 1 and num_candidates, {num_candidates}, got {keep}")
    if keep is not None and keep < num_candidates and not can_rank:
        raise UsageError(
            f"keep={keep} of {num_candidates} candidates needs ranking, and this model has no captioner to rank with: "
            "train one with cogview train captioning and add it, or leave keep out"
        )
