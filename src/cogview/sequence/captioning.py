"""The sequence of captioning: a picture's codes first, and then the text that they are told by."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Int64

from cogview.errors import UsageError
from cogview.sequence.config import CaptionPositions
from cogview.sequence.template import (
    Codes,
    Pieces,
    TextToImageTemplate,
    TokenBatch,
    TokenKind,
    TokenSequence,
    side_by_side,
)
from cogview.sequence.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class CaptionTemplate:
    """`[SIZE] [BOI1] codes [EOI1] [ROI1] text`, after which END is to be written; END is [PAD], as in the release.

    It is the sequence of text to image with its two halves exchanged. Only the pieces and END are learnt. END is a
    target and never read, so it has no position, and a sequence is as long as one of text to image.

    Differs from the paper: with `positions="as_drawn"` each token has the position at which a text-to-image template
    with `image_positions="fixed"` has it: the picture those behind the longest text, and the text those from 0. A model
    that learnt that template then meets its codes and pieces where it knows them, and an adapter of it need not learn a
    table of positions anew. "from_zero" counts on from 0, which is the paper's.

    Args:
        vocabulary: the ids of codes, pieces and separators.
        grid_rows: rows of codes.
        grid_columns: columns of codes.
        max_text_pieces: longer texts lose their end.
        positions: where the positions of picture and text start.

    Raises:
        UsageError: an empty grid, no room for text, or another kind of positions.

    Paper: section 3.2.
    """

    vocabulary: Vocabulary
    grid_rows: int
    grid_columns: int
    max_text_pieces: int
    positions: CaptionPositions = "from_zero"

    def __post_init__(self) -> None:
        if self.positions not in get_args(CaptionPositions):
            raise UsageError(f"There are no positions {self.positions!r}: give from_zero or as_drawn.")
        _ = self._drawn  # refuses what no picture or text can have

    @classmethod
    def of(
        cls, template: TextToImageTemplate, positions: CaptionPositions | None = None
    ) -> "CaptionTemplate":
        """Return the template for the pictures and texts of another one.

        Args:
            template: that of text to image.
            positions: by default those that help a model which learnt `template` most: `as_drawn` if codes have fixed
                positions in it, else the paper's.
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
        return self._drawn.num_codes_per_image

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the text, `[SIZE] [BOI1] codes [EOI1] [ROI1]`: as many for every picture."""
        return self.num_codes_per_image + 4

    @property
    def max_tokens(self) -> int:
        """Tokens of a sequence whose text is as long as can be: the width of a batch."""
        return self.num_prefix_tokens + self.max_text_pieces

    @property
    def num_positions(self) -> int:
        """Position embeddings that the transformer needs."""
        return self.max_tokens

    @property
    def text_positions(self) -> Int64[np.ndarray, "n"]:
        """The position index of each piece of a text as long as can be."""
        nothing = np.zeros(self.num_codes_per_image, dtype=np.int64)
        longest = self.build([0] * self.max_text_pieces, nothing)
        return longest.positions[self.num_prefix_tokens :]

    @property
    def max_text_targets(self) -> int:
        """The pieces and END."""
        return self.max_text_pieces + 1

    @property
    def end_token(self) -> int:
        """The id of END, which a text ends with."""
        return self.vocabulary.separator("PAD")

    @property
    def legal_tokens(self) -> range:
        """The ids that may be written: all pieces, and END after them."""
        start = self.vocabulary.text_pieces.start
        assert self.end_token == self.vocabulary.text_pieces.stop, "END follows the pieces"
        return range(start, self.end_token + 1)

    def clip(self, pieces: Pieces) -> Int64[np.ndarray, "n"]:
        """Return the pieces that there is room for: all, or the first `max_text_pieces`."""
        return self._drawn.clip(pieces)

    def prefix(self, codes: Codes) -> TokenSequence:
        """Return what comes before the text, `[SIZE] [BOI1] codes [EOI1] [ROI1]`: all that a caption is made from.

        Args:
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids that the vocabulary does not have.
        """
        return self.build(np.empty(0, dtype=np.int64), codes)

    def build(self, pieces: Pieces, codes: Codes) -> TokenSequence:
        """Return the whole sequence of a picture and its text, without END.

        Args:
            pieces: the text, numbered as the text tokenizer does; clipped if too long.
            codes: the picture, [r s] or flat.

        Raises:
            CogViewError: another number of codes than the grid has, or ids that the vocabulary does not have.
        """
        drawn = self._drawn.build(pieces, codes)
        num_before_picture = 1 + int(np.count_nonzero(drawn.kind == TokenKind.TEXT))

        def exchanged(array: np.ndarray) -> np.ndarray:
            return np.roll(array, -num_before_picture)

        counted = np.arange(len(drawn.tokens), dtype=np.int64)
        return TokenSequence(
            tokens=exchanged(drawn.tokens),
            positions=counted if self.positions == "from_zero" else exchanged(drawn.positions),
            kind=exchanged(drawn.kind),
            num_clipped_pieces=drawn.num_clipped_pieces,
        )

    def batch(self, pairs: Sequence[tuple[Pieces, Codes]]) -> TokenBatch:
        """Return sequences padded to `max_tokens`, whose only targets are the pieces and END.

        Args:
            pairs: (pieces, codes) of each sequence; at least one.

        Raises:
            CogViewError: as `build` does.
        """
        sequences = [self.build(pieces, codes) for pieces, codes in pairs]
        # Padding and END are one token, so what follows the last piece is END already.
        batch = side_by_side(sequences, self.vocabulary, self.max_tokens)
        return dataclasses.replace(batch, image_mask=np.zeros_like(batch.image_mask))

    @property
    def _drawn(self) -> TextToImageTemplate:
        """The same pictures and texts in the order of text to image."""
        return TextToImageTemplate(
            vocabulary=self.vocabulary,
            grid_rows=self.grid_rows,
            grid_columns=self.grid_columns,
            max_text_pieces=self.max_text_pieces,
            image_positions="fixed",
        )
