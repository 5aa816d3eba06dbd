"""Text tokenizer: text to pieces and back, by a SentencePiece model."""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from sentencepiece import SentencePieceNormalizer, SentencePieceProcessor

from cogview.errors import CogViewError
from cogview.files import atomic_write_bytes, read_bounded
from cogview.text.word_replacing import Language

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


class TextTokenizer:
    """SentencePiece model: ours, the authors' or any other.

    Args:
        model: bytes of the model file.
        name: of the file, for messages.

    Attributes:
        num_pieces: size of the vocabulary; pieces are numbered from 0.
        unknown_piece: for characters that no other piece has; our models spell these as bytes instead.
        fingerprint: first 16 hexadecimal digits of the SHA-256 of the model file, stored in token shards and models so
            that they are never used with another vocabulary.

    Raises:
        CogViewError: the bytes are not a SentencePiece model.

    Paper: section 2.2.
    """

    def __init__(self, model: bytes, name: str = "The text tokenizer") -> None:
        self._model = model
        self._processor = _load(model, name)
        self.num_pieces: int = self._processor.get_piece_size()
        self.unknown_piece: int = self._processor.unk_id()
        self.fingerprint: str = hashlib.sha256(model).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_pieces:,} pieces, {self.fingerprint})"

    @classmethod
    def from_file(cls, path: Path | str) -> "TextTokenizer":
        """Read a model file.

        Raises:
            CogViewError: the file cannot be read or is not a SentencePiece model.
        """
        try:
            model = read_bounded(Path(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CogViewError(
                f"The text tokenizer {path} cannot be read ({reason}): give the path of a SentencePiece .model file."
            ) from error
        return cls(model, name=str(path))

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text.

        The model's own normalisation applies; ours is NFKC with whitespace collapsed.

        Args:
            text: any text; invalid Unicode is read as question marks.
        """
        pieces: list[int] = self._processor.encode(valid_text(text))
        return pieces

    def decode(self, pieces: Iterable[int]) -> str:
        """Return the text of pieces; invalid bytes become U+FFFD."""
        text: str = self._processor.decode([int(piece) for piece in pieces])
        return text

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, with "▁" for a space."""
        words: list[str] = self._processor.encode(valid_text(text), out_type=str)
        return words

    def writes(self, language: Language) -> Bool[np.ndarray, "n"]:
        """Return a mask of the pieces that a text in a language may have: those without letters of other scripts.

        Args:
            language: "en" for Latin letters alone; "zh" for Chinese characters, and letters only beside one in the same
                piece.
        """
        return np.array([self._is_of(language, piece) for piece in range(self.num_pieces)])

    def _is_of(self, language: Language, piece: int) -> bool:
        if self._processor.is_unknown(piece) or self._processor.is_control(piece):
            return False
        word = self._processor.id_to_piece(piece)
        if self._processor.is_byte(piece):  # "<0x41>"
            byte = int(word[3:5], 16)
            return byte < 0x80 if language == "en" else not chr(byte).isascii() or not chr(byte).isalpha()
        letters = [unicodedata.name(each, "") for each in word if each.isalpha()]
        if language == "en":
            return all(name.startswith("LATIN") for name in letters)
        return not letters or any(name.startswith("CJK") for name in letters)

    def save(self, path: Path) -> None:
        """Write the model file, whole or not at all."""
        atomic_write_bytes(path, self._model)


def _load(model: bytes, name: str) -> SentencePieceProcessor:
    """Load a model; raise a one-line error if it is none.

    SentencePiece itself accepts an empty file and fails at the first use.
    """
    try:
        if not model:
            raise ValueError("the file is empty")
        processor = SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError) as error:
        raise CogViewError(
            f"{name} is not a SentencePiece model: give a .model file trained by SentencePiece or by this project."
        ) from error
    return processor
