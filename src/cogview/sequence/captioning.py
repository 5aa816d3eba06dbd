"""Token order of captioning: a picture's codes, then its text."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool, Int64

from cogview.errors import UsageError
from cogview.sequence.config import CaptionPositions
from cogview.sequence.template import (
    Codes,
    Pieces,
    TextToImageTemplate,
    TokenBatch,
    TokenKind,
    TokenSequence,
    pad_sequences,
)
from cogview.sequence.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class CaptionTemplate:
    """`[SIZE] [BOI1] codes [EOI1] [ROI1] text`, followed by END, which is [PAD], as in the release.

    This is the text-to-image sequence with its halves exchanged. Only the pieces and END are learnt. END is a target
    and never read, so it has no position, and a sequence is as long as one of text to image.

    Differs from the paper: with `positions="as_drawn"` each token has its position of a text-to-image template with
    `image_positions="fixed"`: the picture after the longest text, the text from 0. So an adapter of a model that learnt
    that template need not learn positions anew. "from_zero" is the paper's.

    Args:
        vocabulary: ids of codes, pieces and separators.
        grid_rows: rows of codes.
        grid_columns: columns of codes.
        max_text_pieces: maximum; longer texts are cut.
        positions: how to count positions.

    Raises:
        UsageError: an empty grid, no room for text, or an unknown kind of positions.

    Paper: section 3.2.
    """

    vocabulary: Vocabulary
    grid_rows: int
    grid_columns: int
    max_text_pieces: int
    positions: CaptionPositions = "from_zero"

    def __post_init__(self) -> None:
        if self.positions not in get_args(CaptionPositions):
            raise UsageError(f"positions must be from_zero or as_drawn, got {self.positions!r}.")
        _ = self._text_to_image  # validates the fields

    @classmethod
    def of(
        cls, template: TextToImageTemplate, positions: CaptionPositions | None = None
    ) -> "CaptionTemplate":
        """Return the caption template for a text-to-image template.

        Args:
            template: of text to image.
            positions: by default `as_drawn` if codes have fixed positions in `template`, else the paper's.
        """
        if positions is None:
            positions = "as_drawn" if template.image_positions == "fixed" else "from_zero"
        return cls(
            vocabulary=template.vocabulary,
            grid_rows=template.grid_rows,
            grid_columns=template.grid_columns,
            max_text_pieces=template.max_text_pieces,
            positions=positions,
        )

    @property
    def num_codes_per_image(self) -> int:
        """Codes of one picture."""
        return self._text_to_image.num_codes_per_image

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the text, `[SIZE] [BOI1] codes [EOI1] [ROI1]`."""
        return self.num_codes_per_image + 4

    @property
    def max_tokens(self) -> int:
        """Tokens of a sequence with the longest text: the width of a batch."""
        return self.num_prefix_tokens + self.max_text_pieces

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        return self.max_tokens

    @property
    def text_positions(self) -> Int64[np.ndarray, "n"]:
        """Position of each piece of the longest text."""
        codes = np.zeros(self.num_codes_per_image, dtype=np.int64)
        longest = self.build([0] * self.max_text_pieces, codes)
        return longest.positions[self.num_prefix_tokens :]

    @property
    def max_text_targets(self) -> int:
        """The pieces and END."""
        return self.max_text_pieces + 1

    @property
    def end_token(self) -> int:
        """The id of END, which ends a text."""
        return self.vocabulary.separator("PAD")

    @property
    def legal_tokens(self) -> range:
        """Ids that may be written: all pieces, and END after them."""
        start = self.vocabulary.text_pieces.start
        assert self.end_token == self.vocabulary.text_pieces.stop, "END follows the pieces"
        return range(start, self.end_token + 1)

    @property
    def is_written(self) -> Bool[np.ndarray, "v"]:
        """Which of the legal tokens a caption may have: all."""
        return np.ones(len(self.legal_tokens), dtype=np.bool_)

    def clip(self, pieces: Pieces) -> Int64[np.ndarray, "n"]:
        """Return the first `max_text_pieces` pieces."""
        return self._text_to_image.clip(pieces)

    def prefix(self, codes: Codes) -> TokenSequence:
        """Return the tokens before the text, `[SIZE] [BOI1] codes [EOI1] [ROI1]`.

        Args:
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids outside the vocabulary.
        """
        return self.build(np.empty(0, dtype=np.int64), codes)

    def build(self, pieces: Pieces, codes: Codes) -> TokenSequence:
        """Return the sequence of a picture and its text, without END.

        Args:
            pieces: of the text; clipped if too long.
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids outside the vocabulary.
        """
        sequence = self._text_to_image.build(pieces, codes)
        num_before_picture = 1 + int(np.count_nonzero(sequence.kind == TokenKind.TEXT))

        def rotate(array: np.ndarray) -> np.ndarray:
            return np.roll(array, -num_before_picture)

        from_zero = np.arange(len(sequence.tokens), dtype=np.int64)
        return TokenSequence(
            tokens=rotate(sequence.tokens),
            positions=from_zero if self.positions == "from_zero" else rotate(sequence.positions),
            kind=rotate(sequence.kind),
            num_clipped_pieces=sequence.num_clipped_pieces,
        )

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences padded to `max_tokens`, with the pieces and END as targets.

        Args:
            pairs: (pieces, codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(pieces, codes) for pieces, codes in pairs]
        # Padding and END are the same token, so END already follows the last piece.
        batch = pad_sequences(sequences, self.vocabulary, self.max_tokens)
        return dataclasses.replace(batch, image_mask=np.zeros_like(batch.image_mask))

    @property
    def _text_to_image(self) -> TextToImageTemplate:
        """Text-to-image template of the same pictures and texts."""
        return TextToImageTemplate(
            vocabulary=self.vocabulary,
            grid_rows=self.grid_rows,
            grid_columns=self.grid_columns,
            max_text_pieces=self.max_text_pieces,
            image_positions="fixed",
        )
