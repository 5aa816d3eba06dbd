"""Token order of super-resolution: text, a picture's codes, then its codes at twice the rows and columns.

Letters of the shapes: t tokens, n codes of the upscaled picture.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

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
    pad_sequences,
)
from cogview.sequence.vocabulary import Vocabulary, size_token

FACTOR = 2
"""High rows and columns for each low one."""


@dataclass(frozen=True, kw_only=True)
class SuperResolutionTemplate:
    """`[ROI1] text [SIZE] [BOI1] low codes [EOI1] [ROI2] [SIZE2] [BOI2] high codes [EOI2]`.

    The part before [ROI2] is, tokens and positions, a text-to-image sequence, so a text-to-image transformer knows it.
    Only the high codes are learnt.

    Differs from the paper: with `high_positions="after_low"` the part from [ROI2] on has positions after those of the
    low part. A small model learns a code's place from its position alone; if low and high codes shared positions, one
    row of the table would mean two places. And with `released=False` the low grid has its own size token: [SMALL] for
    16x16, where the paper has [BASE].

    Args:
        vocabulary: ids of codes, pieces and separators.
        grid_rows: rows of low codes.
        grid_columns: columns of low codes.
        max_text_pieces: maximum; longer texts are cut.
        image_positions: where the positions of the low codes start, as in `TextToImageTemplate`.
        high_positions: `restart` counts from 0 again at [ROI2], as the paper does; `after_low` counts on from
            `low.num_positions`.
        released: the tokens that the weights released in 2021 expect: [BASE] before either grid, and [POS0] after
            [ROI2].

    Raises:
        UsageError: an empty grid, no room for text, or an unknown kind of positions.

    Paper: section 3.1.
    """

    vocabulary: Vocabulary
    grid_rows: int
    grid_columns: int
    max_text_pieces: int
    image_positions: Literal["after_text", "fixed"] = "after_text"
    high_positions: Literal["restart", "after_low"] = "restart"
    released: bool = False

    def __post_init__(self) -> None:
        _ = self.low  # validates the fields
        if self.high_positions not in ("restart", "after_low"):
            raise UsageError(f"high_positions must be restart or after_low, got {self.high_positions!r}.")

    @classmethod
    def of(
        cls,
        low: TextToImageTemplate,
        high_positions: Literal["restart", "after_low"] = "restart",
        *,
        released: bool = False,
    ) -> "SuperResolutionTemplate":
        """Return the template that continues a text-to-image template."""
        fields = {field.name: getattr(low, field.name) for field in dataclasses.fields(low)}
        return cls(**fields, high_positions=high_positions, released=released)

    @cached_property
    def low(self) -> TextToImageTemplate:
        """Template of the part before [ROI2]."""
        return TextToImageTemplate(
            vocabulary=self.vocabulary,
            grid_rows=self.grid_rows,
            grid_columns=self.grid_columns,
            max_text_pieces=self.max_text_pieces,
            image_positions=self.image_positions,
        )

    @property
    def low_grid(self) -> tuple[int, int]:
        """Rows and columns of the low codes."""
        return self.grid_rows, self.grid_columns

    @property
    def high_grid(self) -> tuple[int, int]:
        """Rows and columns of the high codes."""
        return FACTOR * self.grid_rows, FACTOR * self.grid_columns

    @property
    def num_high_codes(self) -> int:
        """Number of high codes."""
        return FACTOR**2 * self.low.num_codes_per_image

    @property
    def max_prefix_tokens(self) -> int:
        """Tokens before the high codes, with the longest text."""
        return self.low.max_tokens + len(self.opening)

    @property
    def max_tokens(self) -> int:
        """Tokens of a sequence with the longest text: the width of a batch."""
        return self.max_prefix_tokens + self.num_high_codes + 1

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        num_high = len(self.opening) + self.num_high_codes + 1
        return max(self.low.num_positions, self._first_high_position + num_high)

    @property
    def max_text_targets(self) -> int:
        """None: texts are no targets."""
        return 0

    def prefix(self, pieces: Pieces, low_codes: Codes) -> TokenSequence:
        """Return the tokens before the high codes, up to [BOI2].

        Args:
            pieces: of the text; clipped if too long.
            low_codes: the picture to upscale, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids outside the vocabulary.
        """
        low = self.low.build(pieces, low_codes)
        tokens = np.concatenate([low.tokens, self.opening])
        if self.released:
            tokens[len(low.tokens) - self.low.num_codes_per_image - 3] = self.vocabulary.separator("BASE")
        return TokenSequence(
            tokens=tokens,
            positions=np.concatenate([low.positions, self._high_positions(len(self.opening))]),
            kind=np.concatenate([low.kind, np.full(len(self.opening), TokenKind.SEPARATOR, dtype=np.int8)]),
            num_clipped_pieces=low.num_clipped_pieces,
        )

    def build(self, pieces: Pieces, low_codes: Codes, high_codes: Codes) -> TokenSequence:
        """Return the sequence of a text and a picture at both sizes.

        Args:
            pieces: of the text; clipped if too long.
            low_codes: the picture, [r s] or flat.
            high_codes: the same picture at twice the rows and columns, [2r 2s] or flat.

        Raises:
            CogViewError: another number of codes than a grid has, or ids outside the vocabulary.
        """
        prefix = self.prefix(pieces, low_codes)
        high = self._high.checked_codes(high_codes)
        num_high = len(self.opening) + len(high) + 1
        low_positions = prefix.positions[: -len(self.opening)]
        kind = np.full(len(high) + 1, TokenKind.IMAGE, dtype=np.int8)
        kind[-1] = TokenKind.SEPARATOR
        return TokenSequence(
            tokens=np.concatenate([prefix.tokens, high, [self.vocabulary.separator("EOI2")]]),
            positions=np.concatenate([low_positions, self._high_positions(num_high)]),
            kind=np.concatenate([prefix.kind, kind]),
            num_clipped_pieces=prefix.num_clipped_pieces,
        )

    def high_code_positions(self) -> Int64[np.ndarray, "n"]:
        """Return the position of each high code; it does not depend on the text."""
        opening = len(self.opening)
        return self._high_positions(opening + self.num_high_codes)[opening:]

    def batch(self, examples: Sequence[tuple[Pieces, Codes, Codes]]) -> TokenBatch:
        """Return sequences padded to `max_tokens`, with the high codes as targets.

        Args:
            examples: (pieces, low codes, high codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(*example) for example in examples]
        batch = pad_sequences(sequences, self.vocabulary, self.max_tokens)
        is_high = np.cumsum(batch.tokens == self.vocabulary.separator("ROI2"), axis=1) > 0
        return dataclasses.replace(
            batch, text_mask=np.zeros_like(batch.text_mask), image_mask=batch.image_mask & is_high
        )

    @property
    def _high(self) -> TextToImageTemplate:
        """Template that validates the high codes."""
        rows, columns = self.high_grid
        return dataclasses.replace(self.low, grid_rows=rows, grid_columns=columns)

    @property
    def opening(self) -> Int64[np.ndarray, "t"]:
        """Separators between low and high codes, from [ROI2] on; new to a text-to-image model."""
        size = "BASE" if self.released else size_token(*self.high_grid)
        names = ("ROI2", "POS0", size, "BOI2") if self.released else ("ROI2", size, "BOI2")
        return np.array([self.vocabulary.separator(name) for name in names], dtype=np.int64)

    @property
    def _first_high_position(self) -> int:
        return 0 if self.high_positions == "restart" else self.low.num_positions

    def _high_positions(self, num_tokens: int) -> Int64[np.ndarray, "t"]:
        """Return the positions of the first tokens from [ROI2] on."""
        return self._first_high_position + np.arange(num_tokens, dtype=np.int64)
