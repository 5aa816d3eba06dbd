"""What a text tokenizer is trained to be."""

from dataclasses import dataclass
from typing import Literal

from cogview.errors import UsageError

NUM_RESERVED_PIECES = 257
"""Pieces that every trained model has: one for each of the 256 bytes, and the one for the unknown."""

TextCase = Literal["as_written", "usual"]
"""How a model reads capitals: as they are, or, where a word is not known so, in its usual spelling."""


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    """How a SentencePiece model is trained.

    Args:
        num_pieces: pieces at most, the 256 bytes among them; a small corpus gives fewer.
        character_coverage: share of the corpus's characters that get a piece of their own, 0.98 to 1; the rest are
            spelt in bytes.
        max_piece_characters: no piece is longer.

    Raises:
        UsageError: a number out of its range.
    """

    num_pieces: int = 8000
    character_coverage: float = 1.0
    max_piece_characters: int = 16

    def __post_init__(self) -> None:
        if self.num_pieces <= NUM_RESERVED_PIECES:
            raise UsageError(
                f"num_pieces={self.num_pieces} leaves no room for words: the bytes alone take "
                f"{NUM_RESERVED_PIECES} pieces; give more."
            )
        if not 0.98 <= self.character_coverage <= 1.0:
            raise UsageError(f"character_coverage={self.character_coverage} is out of range: give 0.98 to 1.")
        if self.max_piece_characters < 1:
            raise UsageError(
                f"max_piece_characters={self.max_piece_characters} is impossible: give 1 or more."
            )
