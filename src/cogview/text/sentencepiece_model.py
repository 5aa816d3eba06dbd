"""Pieces of a text by a SentencePiece model."""

from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor

from cogview.errors import CogViewError


class SentencePieceModel:
    """SentencePiece model: ours, the authors' or any other.

    Args:
        content: of the model file.
        name: of the file, for messages.

    Attributes:
        num_pieces: size of the vocabulary.
        unknown_piece: for characters that no other piece has.
        padding_piece: None if the model has none.
        begin_piece: of a text; None if the model has none.
        end_piece: of a text; None if the model has none.

    Raises:
        CogViewError: the bytes are not a SentencePiece model.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self._processor = _load(content, name)
        self.num_pieces: int = self._processor.get_piece_size()
        self.unknown_piece: int = self._processor.unk_id()
        self.padding_piece = _if_present(self._processor.pad_id())
        self.begin_piece = _if_present(self._processor.bos_id())
        self.end_piece = _if_present(self._processor.eos_id())

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text."""
        pieces: list[int] = self._processor.encode(text)
        return pieces

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of pieces; invalid bytes become U+FFFD."""
        text: str = self._processor.decode(pieces)
        return text

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, with "▁" for a space."""
        words: list[str] = self._processor.encode(text, out_type=str)
        return words

    def spelling(self, piece: int) -> str | bytes | None:
        """Return what a piece stands for: a string, one byte, or None if it is unknown or a control piece."""
        if self._processor.is_unknown(piece) or self._processor.is_control(piece):
            return None
        word: str = self._processor.id_to_piece(piece)
        return bytes([int(word[3:5], 16)]) if self._processor.is_byte(piece) else word  # "<0x41>"


def _load(content: bytes, name: str) -> SentencePieceProcessor:
    """Load a model; raise a one-line error if it is none.

    SentencePiece itself accepts an empty file and fails at the first use.
    """
    try:
        if not content:
            raise ValueError("the file is empty")
        processor = SentencePieceProcessor(model_proto=content)
    except (RuntimeError, ValueError) as error:
        raise CogViewError(
            f"{name} is not a SentencePiece model, nor one of YouTokenToMe: give a model file that one of them or this "
            "project trained."
        ) from error
    return processor


def _if_present(piece: int) -> int | None:
    return None if piece < 0 else piece
