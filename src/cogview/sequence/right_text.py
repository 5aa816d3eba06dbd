"""Token order with a text on each side of the picture: `left text pads codes right text`, for captions on the right.

Beyond the paper: the sequences of RuDOLPH.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from cogview.errors import UsageError
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.padded_text import padded
from cogview.sequence.template import (
    Codes,
    Pieces,
    TokenBatch,
    TokenKind,
    TokenSequence,
    check_range,
    pad_sequences,
)


@dataclass(frozen=True, kw_only=True)
class RightTextTemplate(CaptionTemplate):
    """`left pads codes opening text`, followed by END, which is a piece.

    Only the pieces and END are learnt. The first token of the opening is not.

    Args:
        num_left_tokens: tokens before the codes; what `left` leaves is filled by pads.
        left: pieces and special pieces before the codes, numbered from the first piece.
        opening: pieces and special pieces before the text.
        end_piece: END.
        unwritten_pieces: pieces that captions never have, such as the padding of the text tokenizer.
        first_code_position: position of the first code; those of the left text count from 0.
        first_right_position: position of the first token after the codes.
        kind: tells these templates from others in a config.

    Raises:
        UsageError: numbers that do not fit together.
    """

    num_left_tokens: int
    left: tuple[int, ...]
    opening: tuple[int, ...]
    end_piece: int
    unwritten_pieces: tuple[int, ...] = ()
    first_code_position: int
    first_right_position: int
    kind: Literal["right_text"] = "right_text"

    def __post_init__(self) -> None:
        super().__post_init__()
        vocabulary = self.vocabulary
        if self.kind != "right_text" or not self.opening:
            raise UsageError(
                f"a template of kind {self.kind!r} and opening {self.opening} is not one of right texts"
            )
        if not len(self.left) <= self.num_left_tokens <= len(self.left) + vocabulary.num_pads:
            raise UsageError(
                f"num_left_tokens {self.num_left_tokens} cannot be {len(self.left)} tokens and at most "
                f"{vocabulary.num_pads} pads"
            )
        if not self.num_left_tokens <= self.first_code_position <= self._stop_code_position:
            raise UsageError(
                f"positions of {self.num_left_tokens} tokens, of codes from {self.first_code_position} and of the text "
                f"from {self.first_right_position} on overlap"
            )
        num_known = vocabulary.num_text_pieces + vocabulary.num_special_pieces
        of_text = (self.end_piece, *self.unwritten_pieces)
        if not (
            all(0 <= piece < num_known for piece in (*self.opening, *self.left))
            and all(0 <= piece < vocabulary.num_text_pieces for piece in of_text)
        ):
            raise UsageError(
                f"left, opening, end_piece and unwritten_pieces must be below {num_known}, the last two below "
                f"{vocabulary.num_text_pieces}"
            )

    @property
    def _stop_code_position(self) -> int:
        """Largest first position of codes that end before the text's positions."""
        return self.first_right_position - self.num_codes_per_image

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the text."""
        return self.num_left_tokens + self.num_codes_per_image + len(self.opening)

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        return self.first_right_position + len(self.opening) + self.max_text_pieces

    @property
    def end_token(self) -> int:
        """The id of END, which ends a text."""
        return self.vocabulary.text_pieces.start + self.end_piece

    @property
    def legal_tokens(self) -> range:
        """Ids that text probabilities are over: all pieces, END among them, and the special ones."""
        return range(self.vocabulary.text_pieces.start, self.vocabulary.special_pieces.stop)

    @property
    def is_written(self) -> Bool[np.ndarray, "v"]:
        """Which of the legal tokens a caption may have."""
        written = np.arange(len(self.legal_tokens)) < self.vocabulary.num_text_pieces
        written[list(self.unwritten_pieces)] = False
        return written

    def build(self, pieces: Pieces, codes: Codes) -> TokenSequence:
        """Return the sequence of a picture and its text, without END.

        Args:
            pieces: of the text; clipped if too long.
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids outside the vocabulary.
        """
        text, picture = self.clip(pieces), self._text_to_image.checked_codes(codes)
        check_range(text, self.vocabulary.num_text_pieces, "text piece")
        right = self.vocabulary.text_pieces.start + np.concatenate(
            [np.array(self.opening, dtype=np.int64), text]
        )
        parts = (padded(self.vocabulary, self.left, self.num_left_tokens), picture, right)
        starts = (0, self.first_code_position, self.first_right_position)
        kinds = (TokenKind.SEPARATOR, TokenKind.IMAGE, TokenKind.TEXT)
        kind = np.repeat(np.array(kinds, dtype=np.int8), [len(part) for part in parts])
        kind[self.num_prefix_tokens - len(self.opening) : self.num_prefix_tokens] = TokenKind.SEPARATOR
        return TokenSequence(
            tokens=np.concatenate(parts),
            positions=np.concatenate(
                [start + np.arange(len(part)) for start, part in zip(starts, parts, strict=True)]
            ),
            kind=kind,
            num_clipped_pieces=len(pieces) - len(text),
        )

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences padded to `max_tokens`, with the pieces and END as targets.

        Args:
            pairs: (pieces, codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(pieces, codes) for pieces, codes in pairs]
        batch = pad_sequences(sequences, self.vocabulary, self.max_tokens)
        last = [len(sequence.tokens) - 1 for sequence in sequences]
        batch.targets[np.arange(len(last)), last] = self.end_token
        batch.text_mask[:, self.num_prefix_tokens - 1] = True  # the opening predicts the first piece
        return dataclasses.replace(batch, image_mask=np.zeros_like(batch.image_mask))


def caption_class_of(values: Any) -> type[CaptionTemplate]:
    """Return the class of a caption template by its fields in a config."""
    return RightTextTemplate if isinstance(values, Mapping) and "kind" in values else CaptionTemplate
