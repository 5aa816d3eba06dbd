"""Token order with texts of fixed length, filled up by pads: `text pads codes`, without separators.

Beyond the paper: the sequences of ruDALL-E and RuDOLPH.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from cogview.errors import UsageError
from cogview.sequence.template import (
    Codes,
    Pieces,
    TextToImageTemplate,
    TokenBatch,
    TokenKind,
    TokenSequence,
    check_range,
    pad_sequences,
)
from cogview.sequence.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class PaddedTextTemplate(TextToImageTemplate):
    """`opening text [END] pads codes`: all texts are equally long, so each code has one place in the sequence.

    END is left out where the text leaves no room for it. Each place has a pad of its own; pads are attended to and
    learnt like pieces.

    Args:
        num_text_tokens: tokens before the codes.
        opening: pieces and special pieces before the text, numbered from the first piece.
        end_piece: piece after the text.
        first_code_position: position of the first code; the text's count from 0.
        kind: tells these templates from others in a config.

    Raises:
        UsageError: numbers that do not fit together.
    """

    num_text_tokens: int
    opening: tuple[int, ...]
    end_piece: int
    first_code_position: int
    kind: Literal["padded_text"] = "padded_text"

    def __post_init__(self) -> None:
        super().__post_init__()
        vocabulary = self.vocabulary
        if self.kind != "padded_text" or self.image_positions != "fixed":
            raise UsageError(
                f"a template of kind {self.kind!r} and image_positions {self.image_positions!r} is not one of padded "
                "texts and fixed positions"
            )
        if len(self.opening) + self.max_text_pieces > self.num_text_tokens:
            raise UsageError(
                f"{len(self.opening)} tokens and {self.max_text_pieces} pieces do not fit in num_text_tokens "
                f"{self.num_text_tokens}"
            )
        num_known = vocabulary.num_text_pieces + vocabulary.num_special_pieces
        if not all(0 <= piece < num_known for piece in (*self.opening, self.end_piece)):
            raise UsageError(
                f"opening and end_piece must be below {num_known}, got {(*self.opening, self.end_piece)}"
            )
        if vocabulary.num_pads < self.num_text_tokens - len(self.opening) - 1:
            raise UsageError(
                f"num_pads {vocabulary.num_pads} cannot fill {self.num_text_tokens} tokens of an empty text"
            )
        if self.first_code_position < self.num_text_tokens:
            raise UsageError(
                f"first_code_position must be at least {self.num_text_tokens}, got {self.first_code_position}"
            )

    @property
    def max_prefix_tokens(self) -> int:
        """Tokens before the codes."""
        return self.num_text_tokens

    @property
    def max_tokens(self) -> int:
        """Tokens of a sequence."""
        return self.num_text_tokens + self.num_codes_per_image

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        return self.first_code_position + self.num_codes_per_image

    @property
    def max_text_targets(self) -> int:
        """All tokens of the text but the first, pads included."""
        return self.num_text_tokens - 1

    def prefix(self, pieces: Pieces) -> TokenSequence:
        """Return the tokens before the codes.

        Args:
            pieces: of the text; clipped if too long.

        Raises:
            CogViewError: a piece is not in the vocabulary.
        """
        text = self.clip(pieces)
        check_range(text, self.vocabulary.num_text_pieces, "text piece")
        tokens = padded(
            self.vocabulary, [*self.opening, *text.tolist(), self.end_piece], self.num_text_tokens
        )
        kind = np.full(self.num_text_tokens, TokenKind.SEPARATOR, dtype=np.int8)
        kind[len(self.opening) : len(self.opening) + len(text)] = TokenKind.TEXT
        return TokenSequence(
            tokens=tokens,
            positions=np.arange(self.num_text_tokens, dtype=np.int64),
            kind=kind,
            num_clipped_pieces=len(pieces) - len(text),
        )

    def build(self, pieces: Pieces, codes: Codes) -> TokenSequence:
        """Return the sequence of a text and its picture.

        Args:
            pieces: of the text; clipped if too long.
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids outside the vocabulary.
        """
        prefix, picture = self.prefix(pieces), self.checked_codes(codes)
        return TokenSequence(
            tokens=np.concatenate([prefix.tokens, picture]),
            positions=np.concatenate([prefix.positions, self.code_positions(0)]),
            kind=np.concatenate([prefix.kind, np.full(len(picture), TokenKind.IMAGE, dtype=np.int8)]),
            num_clipped_pieces=prefix.num_clipped_pieces,
        )

    def code_positions(self, num_pieces: int) -> Int64[np.ndarray, "k"]:
        """Return the position of each code, the same after any text."""
        return self.first_code_position + np.arange(self.num_codes_per_image, dtype=np.int64)

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences with their targets: every token but the first.

        Args:
            pairs: (pieces, codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(pieces, codes) for pieces, codes in pairs]
        batch = pad_sequences(sequences, self.vocabulary, self.max_tokens)
        is_text = np.zeros_like(batch.text_mask)
        is_text[:, : self.num_text_tokens - 1] = True  # pads are learnt too
        return dataclasses.replace(batch, text_mask=is_text)


def padded(
    vocabulary: Vocabulary, pieces: Sequence[int] | Int64[np.ndarray, "n"], num_tokens: int
) -> Int64[np.ndarray, "t"]:
    """Return the tokens of a text, filled up by the pads of the remaining places or cut.

    Args:
        vocabulary: of the tokens.
        pieces: pieces and special pieces, numbered from the first piece.
        num_tokens: number of tokens in all.
    """
    text = vocabulary.text_pieces.start + np.asarray(pieces[:num_tokens], dtype=np.int64)
    # The last place always has the last pad.
    return np.concatenate(
        [text, np.arange(vocabulary.pads.stop - num_tokens + len(text), vocabulary.pads.stop)]
    )


def template_class_of(values: Any) -> type[TextToImageTemplate]:
    """Return the class of a text-to-image template by its fields in a config."""
    return PaddedTextTemplate if isinstance(values, Mapping) and "kind" in values else TextToImageTemplate
