"""Config of text tokenizers."""

from dataclasses import dataclass
from typing import Literal

from cogview.errors import UsageError

NUM_RESERVED_PIECES = 257
"""Pieces of every trained model: 256 bytes, and the unknown piece."""

TextCase = Literal["as_written", "usual", "lower"]
"""How a model reads capitals: as written; for words not known so, in their usual spelling; or in lower case."""

CaptionCase = Literal["as_written", "lower"]
"""How captions are read: as written, or in lower case."""


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    """Training settings of a SentencePiece model.

    Args:
        num_pieces: maximum, including the 256 bytes; a small corpus gives fewer.
        character_coverage: share of the corpus's characters with a piece of their own, 0.98 to 1; the rest are spelt in
            bytes.
        max_piece_characters: maximum length of a piece.

    Raises:
        UsageError: a number is out of range.
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
            raise UsageError(f"character_coverage must be 0.98 to 1, got {self.character_coverage}.")
        if self.max_piece_characters < 1:
            raise UsageError(f"max_piece_characters must be at least 1, got {self.max_piece_characters}.")
