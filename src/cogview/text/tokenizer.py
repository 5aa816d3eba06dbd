"""Text tokenizer: text to pieces and back, by a model file of SentencePiece or YouTokenToMe."""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool
from sentencepiece import SentencePieceNormalizer

from cogview.errors import CogViewError
from cogview.files import atomic_write_bytes, read_bounded
from cogview.text.sentencepiece_model import SentencePieceModel
from cogview.text.word_replacing import Language
from cogview.text.youtokentome_model import YouTokenToMeModel, is_youtokentome

NORMALIZATION = "nmt_nfkc"
"""SentencePiece's name for Unicode's NFKC with whitespace collapsed."""


def valid_text(text: str) -> str:
    """Replace invalid Unicode (lone surrogates) by question marks.

    JSON cut in the middle of an emoji has such halves.
    """
    return text.encode("utf-8", errors="replace").decode()


def is_blank(text: str) -> bool:
    """Return whether a text is empty after normalisation: spaces and invisible characters."""
    normalized: str = _normalizer().normalize(valid_text(text))
    return not normalized.strip()


@lru_cache(maxsize=1)
def _normalizer() -> SentencePieceNormalizer:
    return SentencePieceNormalizer(
        rule_name=NORMALIZATION, remove_extra_whitespaces=True, escape_whitespaces=False
    )


class PieceModel(Protocol):
    """What a text tokenizer's file says: pieces and how a text is cut into them.

    `TextTokenizer` has the same attributes and methods, and says more of them.
    """

    num_pieces: int
    unknown_piece: int
    padding_piece: int | None
    begin_piece: int | None
    end_piece: int | None

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text in valid Unicode."""

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of pieces."""

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text in valid Unicode as strings."""

    def spelling(self, piece: int) -> str | bytes | None:
        """Return what a piece stands for: a string, one byte, or None if it is unknown or a control piece."""


class TextTokenizer:
    """Maps text to pieces and back, by a model file of SentencePiece or YouTokenToMe; its content tells which.

    Args:
        model: bytes of the model file.
        name: of the file, for messages.

    Attributes:
        num_pieces: size of the vocabulary; pieces are numbered from 0.
        unknown_piece: for characters that no other piece has; our models spell these as bytes instead.
        padding_piece: None if the model has none, as ours.
        begin_piece: of a text; None if the model has none. `encode` does not add it.
        end_piece: of a text; None if the model has none. `encode` does not add it.
        fingerprint: first 16 hexadecimal digits of the SHA-256 of the model file, stored in token shards and models so
            that they are never used with another vocabulary.

    Raises:
        CogViewError: the bytes are neither model, or a damaged one.

    Paper: section 2.2.
    """

    def __init__(self, model: bytes, name: str = "The text tokenizer") -> None:
        self._content = model
        self._model: PieceModel = (
            YouTokenToMeModel(model, name) if is_youtokentome(model) else SentencePieceModel(model, name)
        )
        self.num_pieces = self._model.num_pieces
        self.unknown_piece = self._model.unknown_piece
        self.padding_piece = self._model.padding_piece
        self.begin_piece = self._model.begin_piece
        self.end_piece = self._model.end_piece
        self.fingerprint: str = hashlib.sha256(model).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_pieces:,} pieces, {self.fingerprint})"

    @classmethod
    def from_file(cls, path: Path | str) -> "TextTokenizer":
        """Read a model file of SentencePiece or YouTokenToMe.

        Raises:
            CogViewError: the file cannot be read, or is neither model, or a damaged one.
        """
        try:
            model = read_bounded(Path(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CogViewError(
                f"The text tokenizer {path} cannot be read ({reason}): give the path of a model file of SentencePiece "
                "or YouTokenToMe."
            ) from error
        return cls(model, name=str(path))

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text.

        The model's own normalisation applies; ours is NFKC with whitespace collapsed. YouTokenToMe has none: it takes
        any amount of ASCII whitespace as one space, and capitals and other forms of a letter as other letters.

        Args:
            text: any text; invalid Unicode is read as question marks.
        """
        return self._model.encode(valid_text(text))

    def decode(self, pieces: Iterable[int]) -> str:
        """Return the text of pieces; invalid bytes become U+FFFD."""
        return self._model.decode([int(piece) for piece in pieces])

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, with "▁" for a space."""
        return self._model.words(valid_text(text))

    def writes(self, language: Language) -> Bool[np.ndarray, "n"]:
        """Return a mask of the pieces that a text in a language may have: those without letters of other scripts.

        Args:
            language: "en" for Latin letters alone; "zh" for Chinese characters, and letters only beside one in the same
                piece.
        """
        return np.array([self._is_of(language, piece) for piece in range(self.num_pieces)])

    def _is_of(self, language: Language, piece: int) -> bool:
        spelling = self._model.spelling(piece)
        if spelling is None:
            return False
        if isinstance(spelling, bytes):
            return spelling.isascii() if language == "en" else not spelling.isalpha()
        letters = [unicodedata.name(each, "") for each in spelling if each.isalpha()]
        if language == "en":
            return all(name.startswith("LATIN") for name in letters)
        return not letters or any(name.startswith("CJK") for name in letters)

    def save(self, path: Path) -> None:
        """Write the model file, whole or not at all."""
        atomic_write_bytes(path, self._content)
