"""Super-resolution batches: the same pictures as codes at two sizes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

from cogview.data.loader import epochs_and_indices
from cogview.data.shards import TokenShards
from cogview.errors import CogViewError, UsageError
from cogview.sequence.super_resolution import FACTOR, SuperResolutionTemplate
from cogview.sequence.template import Codes, Pieces, TokenBatch

_CROP_STREAM = 4
"""Seeds crops differently from the loader's draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SuperResolutionShards:
    """Token shards of the same pictures at two sizes.

    Args:
        low: the pictures at the smaller size.
        high: the same pictures with twice the rows and columns of codes.

    Raises:
        CogViewError: tokenizers, pictures, captions or grids do not match.
    """

    low: TokenShards
    high: TokenShards

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        both = f"{low.folder} and {high.folder}"
        for kind in ("image_tokenizer", "text_tokenizer"):
            got, wanted = getattr(low, kind), getattr(high, kind)
            if got != wanted:
                raise CogViewError(
                    f"{both} were made with different {kind.replace('_', ' ')}s ({got} and {wanted}): make both with "
                    "the same, by `cogview tokenize`."
                )
        rows, columns = (FACTOR * side for side in low.grid)
        if high.grid != (rows, columns):
            raise CogViewError(
                f"{high.folder} has pictures of {high.grid[0]}x{high.grid[1]} codes, but twice those of {low.folder} "
                f"are {rows}x{columns}: tokenize the same pictures with twice the --size-pixels."
            )
        if len(low) != len(high):
            raise CogViewError(
                f"{both} are not of the same pictures, {len(low):,} and {len(high):,}: tokenize the same data set and "
                "split at both sizes."
            )
        if low.captions_fingerprint() != high.captions_fingerprint():
            raise CogViewError(
                f"{both} are not of the same pictures in the same order, their captions differ: tokenize the same data "
                "set and split at both sizes."
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.low)

    def crop(
        self, index: int, row: int, column: int, size: tuple[int, int]
    ) -> tuple[UInt16[np.ndarray, "r s"], UInt16[np.ndarray, "R S"]]:
        """Return a part of a picture at both sizes.

        Args:
            index: the picture.
            row: first row of low codes.
            column: first column of low codes.
            size: rows and columns of low codes.
        """
        (rows, columns), crops = size, []
        for shards, factor in ((self.low, 1), (self.high, FACTOR)):
            codes = shards.codes(index).reshape(shards.grid)
            crops.append(
                codes[factor * row : factor * (row + rows), factor * column : factor * (column + columns)]
            )
        return crops[0], crops[1]


class SuperResolutionBatches:
    """Batches of sequences with a picture at both sizes, a pure function of seed and step.

    Each epoch crops pictures larger than the template at a random place, and keeps the whole caption, as upscaling by
    windows does. If a picture has several captions, each epoch draws one.

    Args:
        shards: pictures at least as large as the template's.
        template: builds sequences.
        seed: seed of the order, the captions and the crops.
        batch_size: sequences per step.
        windows: larger pictures, for a share of the sequences.
        window_share: that share, 0 to 1.
        dropped_texts: share of unconditional sequences.

    Raises:
        CogViewError: pictures are smaller than the template's, or of another vocabulary.
        UsageError: the batch is empty, or a share is outside 0..1.
    """

    def __init__(
        self,
        shards: SuperResolutionShards,
        template: SuperResolutionTemplate,
        seed: int,
        batch_size: int,
        *,
        windows: SuperResolutionShards | None = None,
        window_share: float = 0.5,
        dropped_texts: float = 0.0,
    ) -> None:
        for name, share in (("window_share", window_share), ("dropped_texts", dropped_texts)):
            if not 0 <= share <= 1:
                raise UsageError(f"{name} must be a share of 0 to 1, got {share}")
        if batch_size < 1:
            raise UsageError(f"A batch of {batch_size} sequences is impossible: give 1 or more.")
        for pictures in (shards, windows):
            if pictures is not None:
                _check(pictures.low, template)
        self.template = template
        self._shards = shards
        self._windows = windows
        self._window_share = window_share if windows is not None else 0.0
        self._seed = seed
        self._batch_size = batch_size
        self._dropped_texts = dropped_texts

    def batch(self, step: int) -> TokenBatch:
        """Return the sequences of a step, counted from 0."""
        draw = np.random.Generator(np.random.PCG64([self._seed, step, _CROP_STREAM]))
        is_window = draw.random(self._batch_size) < self._window_share
        of_set = {
            shards: epochs_and_indices(self._seed, step, self._batch_size, len(shards))
            for shards in (self._shards, self._windows)
            if shards is not None
        }
        examples = []
        for place in range(self._batch_size):
            shards = self._windows if self._windows is not None and is_window[place] else self._shards
            epochs, indices = of_set[shards]
            examples.append(self._example(shards, int(epochs[place]), int(indices[place])))
        return self.template.batch(examples)

    def _example(self, shards: SuperResolutionShards, epoch: int, index: int) -> tuple[Pieces, Codes, Codes]:
        """Draw a caption and a crop at both sizes for an epoch."""
        draw = np.random.Generator(np.random.PCG64([self._seed, epoch, index, _CROP_STREAM]))
        pieces = shards.low.pieces(index, int(draw.integers(shards.low.num_captions(index))))
        if draw.random() < self._dropped_texts:
            pieces = pieces[:0]
        size = self.template.low_grid
        row, column = (
            int(draw.integers(whole - part + 1)) for whole, part in zip(shards.low.grid, size, strict=True)
        )
        return pieces, *shards.crop(index, row, column, size)


def _check(low: TokenShards, template: SuperResolutionTemplate) -> None:
    """Refuse shards of another vocabulary than the template's, or of smaller pictures."""
    vocabulary, (rows, columns) = template.vocabulary, template.low_grid
    wanted = (vocabulary.num_image_codes, vocabulary.num_text_pieces)
    if (low.num_codes, low.num_pieces) != wanted:
        raise CogViewError(
            f"{low.folder} was made with {low.num_codes} codes and {low.num_pieces} text pieces, but the model reads "
            f"{wanted[0]} and {wanted[1]}: tokenize with the tokenizers that the model is for."
        )
    if low.grid[0] < rows or low.grid[1] < columns:
        raise CogViewError(
            f"{low.folder} has pictures of {low.grid[0]}x{low.grid[1]} codes, but the model upscales "
            f"{rows}x{columns}: tokenize with a larger --size-pixels."
        )
