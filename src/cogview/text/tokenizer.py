"""Words to pieces and back, by a SentencePiece model."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from cogview.errors import CogViewError
from cogview.files import atomic_write_bytes


class TextTokenizer:
    """A SentencePiece model: ours, the authors' or any other.

    Args:
        model: the model file's bytes.
        name: what messages call the file.

    Attributes:
        num_pieces: size of the vocabulary; pieces are numbered from 0.
        unknown_piece: stands for characters that no other piece holds; ours spell these as bytes instead.
        fingerprint: first 16 hexadecimal digits of the SHA-256 of the model file. Token shards and models carry it,
            so that they are never used with another vocabulary.

    Raises:
        CogViewError: the bytes are no SentencePiece model.

    Paper: section 2.2.
    """

    def __init__(self, model: bytes, name: str = "The text tokenizer") -> None:
        self._model = model
        self._processor = _load(model, name)
        self.num_pieces: int = self._processor.get_piece_size()
        self.unknown_piece: int = self._processor.unk_id()
        self.fingerprint: str = hashlib.sha256(model).hexdigest()[:16]

    @classmethod
    def from_file(cls, path: Path | str) -> "TextTokenizer":
        """Read a model file.

        Raises:
            CogViewError: the file cannot be read or is no SentencePiece model.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise CogViewError(
                f"The text tokenizer {path} cannot be read ({reason}): give the path of a SentencePiece .model file."
            ) from error
        return cls(model, name=str(path))

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text.

        Texts are normalised as the model says, ours by Unicode's NFKC with whitespace drawn together.

        Args:
            text: any text; what is not valid Unicode (half a surrogate pair) is read as a question mark.
        """
        pieces: list[int] = self._processor.encode(_valid(text))
        return pieces

    def decode(self, pieces: Iterable[int]) -> str:
        """Return the text of pieces; bytes that make no character become U+FFFD."""
        text: str = self._processor.decode([int(piece) for piece in pieces])
        return text

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, to look at; a space is shown as "▁"."""
        words: list[str] = self._processor.encode(_valid(text), out_type=str)
        return words

    def save(self, path: Path) -> None:
        """Write the model file, whole or not at all."""
        atomic_write_bytes(path, self._model)


def _valid(text: str) -> str:
    """Return a text whose half surrogate pairs are question marks."""
    return text.encode("utf-8", errors="replace").decode()


def _load(model: bytes, name: str) -> SentencePieceProcessor:
    """Load a model, or say in one line that it is none.

    SentencePiece itself accepts an empty file and then fails at the first use.
    """
    try:
        if not model:
            raise ValueError("the file is empty")
        processor = SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError) as error:
        raise CogViewError(
            f"{name} is no SentencePiece model: give a .model file that was trained by SentencePiece or by us."
        ) from error
    return processor
