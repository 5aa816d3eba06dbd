"""Token ids: image codes first, then text pieces, special pieces and pads if there are any, then separators."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from cogview.errors import UsageError

SEPARATORS: tuple[str, ...] = (
    "PAD",
    *("BOI1", "BOI2", "BOI3"),
    *("EOI1", "EOI2", "EOI3"),
    *("ROI1", "ROI2", "ROI3"),
    *("SEP", "MASK", "CLS", "ENC"),
    *("TINY", "SMALL", "BASE", "BIG"),
    *(f"POS{number}" for number in range(9)),
)
"""Separators in the order of their ids in the released checkpoints."""

SIZE_TOKENS: Mapping[str, int] = MappingProxyType({"TINY": 8, "SMALL": 16, "BASE": 32, "BIG": 64})
"""Separators that announce the size of a grid, with the side that each stands for."""

_PADDING_MULTIPLE = 128
_MOST_TOKENS = 2**31 - 1
"""Ids are stored in 32 bits at most."""


def size_token(grid_rows: int, grid_columns: int) -> str:
    """Return the name of the size token of a grid.

    The four names stand for squares of 8, 16, 32 and 64 codes a side. A grid between takes the smallest square that
    holds it; one beyond 64 takes BIG.

    Args:
        grid_rows: rows of codes, at least 1.
        grid_columns: columns of codes, at least 1.
    """
    side = max(grid_rows, grid_columns)
    return next((name for name, size in SIZE_TOKENS.items() if side <= size), "BIG")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token ids of image codes, text pieces and separators, which share one embedding.

    Args:
        num_image_codes: entries of the image tokenizer's codebook; code `i` is token `i`.
        num_text_pieces: pieces of the text tokenizer; piece `i` is token `num_image_codes + i`.
        num_special_pieces: tokens after the pieces that a model has beside those of its text tokenizer, as RuDOLPH.
        num_pads: tokens that fill a text up, one for each place, as in ruDALL-E.
        num_special_codes: tokens at the end that a model has beside the codes, as RuDOLPH.

    Raises:
        UsageError: a number is not positive, one that may be 0 is negative, or there are too many tokens.

    Paper: section 2.2; the order of the separators is that of the released code.
    """

    num_image_codes: int
    num_text_pieces: int
    num_special_pieces: int = 0
    num_pads: int = 0
    num_special_codes: int = 0

    def __post_init__(self) -> None:
        for name in ("num_special_pieces", "num_pads", "num_special_codes"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("num_image_codes", "num_text_pieces"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, got {getattr(self, name)}: give the size of the trained tokenizer."
                )
        if self.pads.stop + self.num_special_codes > _MOST_TOKENS:
            raise UsageError(
                f"image codes, text pieces and other tokens must be at most {_MOST_TOKENS:,} together, got "
                f"{self.num_image_codes:,} codes and {self.num_text_pieces:,} pieces."
            )

    @property
    def image_codes(self) -> range:
        """Token ids of the image codes."""
        return range(self.num_image_codes)

    @property
    def text_pieces(self) -> range:
        """Token ids of the text pieces."""
        return range(self.num_image_codes, self.num_image_codes + self.num_text_pieces)

    @property
    def special_pieces(self) -> range:
        """Token ids of the special pieces."""
        return range(self.text_pieces.stop, self.text_pieces.stop + self.num_special_pieces)

    @property
    def pads(self) -> range:
        """Token ids of the pads."""
        return range(self.special_pieces.stop, self.special_pieces.stop + self.num_pads)

    @property
    def special_codes(self) -> range:
        """Token ids of the special codes."""
        return range(self.num_tokens - self.num_special_codes, self.num_tokens)

    @cached_property
    def _separator_ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(SEPARATORS, start=self.pads.stop)}

    def separator(self, name: str) -> int:
        """Return the token id of a separator.

        Args:
            name: one of `SEPARATORS`, without brackets: "BOI1".

        Raises:
            KeyError: there is no such separator.
        """
        return self._separator_ids[name]

    @property
    def num_tokens(self) -> int:
        """Number of ids in use."""
        return self.pads.stop + len(SEPARATORS) + self.num_special_codes

    @property
    def size(self) -> int:
        """Rows of the embedding: ids in use, padded to a multiple of 128 for the matrix kernels."""
        return -(-self.num_tokens // _PADDING_MULTIPLE) * _PADDING_MULTIPLE
