"""Sequence templates: order and positions of pieces, codes and separators.

Letters of the shapes: b batch, t tokens, n pieces of one text, k codes of one picture, r s rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int8, Int64

from cogview.errors import CogViewError, UsageError
from cogview.sequence.vocabulary import Vocabulary, size_token

Pieces = Sequence[int] | npt.NDArray[np.integer]
"""Text pieces, numbered by the text tokenizer."""

Codes = npt.NDArray[np.integer]
"""Image codes of one picture, [r s] or flattened row by row."""


class TokenKind(IntEnum):
    """Kind of a token."""

    SEPARATOR = 0
    TEXT = 1
    IMAGE = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenSequence:
    """Tokens of one sequence.

    Args:
        tokens: ids of the vocabulary.
        positions: index of each token's position embedding.
        kind: `TokenKind` of each token.
        num_clipped_pieces: pieces cut off because the text was too long.
    """

    tokens: Int64[np.ndarray, "t"]
    positions: Int64[np.ndarray, "t"]
    kind: Int8[np.ndarray, "t"]
    num_clipped_pieces: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Padded sequences with their targets.

    Args:
        tokens: ids, [PAD] at the end.
        positions: index of each token's position embedding, 0 for padding.
        targets: next token of each, [PAD] where there is none.
        text_mask: targets that are text: the pieces and the separator that ends them.
        image_mask: targets that are image codes. Other separators follow from the template, so they are in neither mask
            and are not learnt.
        num_clipped: texts that were cut.
    """

    tokens: Int64[np.ndarray, "b t"]
    positions: Int64[np.ndarray, "b t"]
    targets: Int64[np.ndarray, "b t"]
    text_mask: Bool[np.ndarray, "b t"]
    image_mask: Bool[np.ndarray, "b t"]
    num_clipped: int = 0


@runtime_checkable
class SequenceTemplate(Protocol):
    """What training needs to know about a token order; each task of the paper has one."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of codes, pieces and separators."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence: the width of a batch."""
        ...

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        ...

    @property
    def max_text_targets(self) -> int:
        """Text targets of the longest sequence; 0 if texts are not learnt."""
        ...


@runtime_checkable
class PairTemplate(SequenceTemplate, Protocol):
    """Template for a text and a picture's codes, in either order."""

    @property
    def grid_rows(self) -> int:
        """Rows of codes."""
        ...

    @property
    def grid_columns(self) -> int:
        """Columns of codes."""
        ...

    @property
    def num_codes_per_image(self) -> int:
        """Codes of one picture."""
        ...

    @property
    def max_text_pieces(self) -> int:
        """Pieces of the longest text."""
        ...

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences of (pieces, codes), padded to `max_tokens`, with their targets."""
        ...


def pad_sequences(sequences: Sequence[TokenSequence], vocabulary: Vocabulary, max_tokens: int) -> TokenBatch:
    """Pad sequences to one width, with each token's successor as its target.

    Targets are all codes, and the pieces with the separator that ends them, after [ROI1]; see `TokenBatch`. A template
    with fewer targets clears the masks.

    Args:
        sequences: at least one, none longer than `max_tokens`.
        vocabulary: of their tokens.
        max_tokens: width.
    """
    padding, text_start = vocabulary.separator("PAD"), vocabulary.separator("ROI1")
    # One more column: the successor of the last token is a target too.
    tokens = np.full((len(sequences), max_tokens + 1), padding, dtype=np.int64)
    positions = np.zeros((len(sequences), max_tokens), dtype=np.int64)
    text_mask = np.zeros((len(sequences), max_tokens), dtype=np.bool_)
    image_mask = np.zeros((len(sequences), max_tokens), dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        num_tokens = len(sequence.tokens)
        tokens[row, :num_tokens] = sequence.tokens
        positions[row, :num_tokens] = sequence.positions
        text_mask[row, :num_tokens] = (sequence.kind == TokenKind.TEXT) | (sequence.tokens == text_start)
        image_mask[row, : num_tokens - 1] = sequence.kind[1:] == TokenKind.IMAGE
    return TokenBatch(
        tokens=tokens[:, :-1].copy(),
        positions=positions,
        targets=tokens[:, 1:].copy(),
        text_mask=text_mask,
        image_mask=image_mask,
        num_clipped=sum(sequence.num_clipped_pieces > 0 for sequence in sequences),
    )


@dataclass(frozen=True, kw_only=True)
class TextToImageTemplate:
    """`[ROI1] text [SIZE] [BOI1] codes [EOI1]`: the sequence of pretraining and of text-to-image generation.

    Differs from the paper: with `image_positions="fixed"` the size token's position is always
    `1 + max_text_pieces`, so that a code's position does not depend on the text's length. A small model need not
    learn to subtract that. "after_text" is the paper's.

    Args:
        vocabulary: ids of codes, pieces and separators.
        grid_rows: rows of codes.
        grid_columns: columns of codes.
        max_text_pieces: maximum; longer texts are cut. The paper's 1,088 tokens leave 60 beside 32x32 codes.
        image_positions: where the positions of the picture start.

    Raises:
        UsageError: an empty grid, or no room for text.

    Paper: section 2.2 and figure 3.
    """

    vocabulary: Vocabulary
    grid_rows: int
    grid_columns: int
    max_text_pieces: int
    image_positions: Literal["after_text", "fixed"] = "after_text"

    def __post_init__(self) -> None:
        for name in ("grid_rows", "grid_columns", "max_text_pieces"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.image_positions not in ("after_text", "fixed"):
            raise UsageError(f"image_positions must be after_text or fixed, got {self.image_positions!r}.")

    @property
    def num_codes_per_image(self) -> int:
        """Codes of one picture."""
        return self.grid_rows * self.grid_columns

    @property
    def max_prefix_tokens(self) -> int:
        """Tokens before the codes, `[ROI1] text [SIZE] [BOI1]`, with the longest text."""
        return 3 + self.max_text_pieces

    @property
    def max_tokens(self) -> int:
        """Tokens of a sequence with the longest text: the width of a batch."""
        return self.max_prefix_tokens + self.num_codes_per_image + 1

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        return self.max_tokens

    @property
    def max_text_targets(self) -> int:
        """The pieces and the separator that ends them."""
        return self.max_text_pieces + 1

    def clip(self, pieces: Pieces) -> Int64[np.ndarray, "n"]:
        """Return the first `max_text_pieces` pieces."""
        return np.asarray(pieces[: self.max_text_pieces], dtype=np.int64)

    def prefix(self, pieces: Pieces) -> TokenSequence:
        """Return the tokens before the codes, `[ROI1] text [SIZE] [BOI1]`.

        Args:
            pieces: of the text; clipped if too long.

        Raises:
            CogViewError: a piece is not in the vocabulary.
        """
        text = self.clip(pieces)
        check_range(text, self.vocabulary.num_text_pieces, "text piece")
        separator = self.vocabulary.separator
        tokens = np.concatenate(
            [
                [separator("ROI1")],
                self.vocabulary.text_pieces.start + text,
                [separator(size_token(self.grid_rows, self.grid_columns)), separator("BOI1")],
            ]
        )
        kind = np.full(len(tokens), TokenKind.SEPARATOR, dtype=np.int8)
        kind[1 : 1 + len(text)] = TokenKind.TEXT
        return TokenSequence(
            tokens=tokens,
            positions=self._positions(len(text), len(tokens)),
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
        prefix = self.prefix(pieces)
        picture = self.checked_codes(codes)
        tokens = np.concatenate([prefix.tokens, picture, [self.vocabulary.separator("EOI1")]])
        kind = np.full(len(tokens), TokenKind.SEPARATOR, dtype=np.int8)
        kind[: len(prefix.kind)] = prefix.kind
        kind[len(prefix.kind) : -1] = TokenKind.IMAGE
        num_pieces = len(prefix.tokens) - 3
        return TokenSequence(
            tokens=tokens,
            positions=self._positions(num_pieces, len(tokens)),
            kind=kind,
            num_clipped_pieces=prefix.num_clipped_pieces,
        )

    def code_positions(self, num_pieces: int) -> Int64[np.ndarray, "k"]:
        """Return the position of each code after a text.

        Args:
            num_pieces: pieces of the text before clipping.
        """
        num_pieces = min(num_pieces, self.max_text_pieces)
        start = num_pieces + 3
        return self._positions(num_pieces, start + self.num_codes_per_image)[start:]

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences padded to `max_tokens`, with their targets.

        Args:
            pairs: (pieces, codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(pieces, codes) for pieces, codes in pairs]
        return pad_sequences(sequences, self.vocabulary, self.max_tokens)

    @cached_property
    def _counting(self) -> Int64[np.ndarray, "t"]:
        return np.arange(self.max_tokens, dtype=np.int64)

    def _positions(self, num_pieces: int, num_tokens: int) -> Int64[np.ndarray, "t"]:
        """Return the positions of the first `num_tokens` tokens, after a text of `num_pieces`."""
        if self.image_positions == "after_text":
            return self._counting[:num_tokens].copy()
        num_before_size = 1 + num_pieces
        gap = self.max_text_pieces - num_pieces
        positions = self._counting[:num_tokens].copy()
        positions[num_before_size:] += gap
        return positions

    def checked_codes(self, codes: Codes) -> Int64[np.ndarray, "k"]:
        """Return codes row by row, checked against grid and vocabulary."""
        if codes.shape not in ((self.grid_rows, self.grid_columns), (self.num_codes_per_image,)):
            raise CogViewError(
                f"The picture has codes of shape {list(codes.shape)}, but the sequence is for "
                f"{self.grid_rows}x{self.grid_columns}: use the picture size and tokenizer the model is for."
            )
        picture = codes.reshape(-1).astype(np.int64)
        check_range(picture, self.vocabulary.num_image_codes, "image code")
        return picture


def check_range(ids: Int64[np.ndarray, "n"], limit: int, noun: str) -> None:
    """Refuse ids outside 0..limit-1, which come from another tokenizer."""
    if len(ids) and not 0 <= ids.min() <= ids.max() < limit:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise CogViewError(
            f"There is no {noun} {wrong} in a vocabulary of {limit}: use the tokenizer that the model is for."
        )
