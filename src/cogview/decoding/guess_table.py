"""Guess table: the most frequent code after each neighbourhood, counted in a model's pictures.

A code is guessed from as many neighbours as were seen together: six, four, three or two. The table is a hash table of
pairs of slots, a megabyte; of three contexts with the same pair the least useful is dropped.

Letters of the shapes: b pictures, r s rows and columns of codes, n places or contexts, m slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, Shaped, UInt64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cogview.errors import CogViewError, UsageError
from cogview.files import read_bounded

GUESSES_FILE = "guesses.safetensors"

MAX_PICTURES = 20_000
"""Pictures to count; more hardly improve the guesses."""

_MIN_SHARES = (0.35, 0.5, 0.7, 0.85, 0.95, 0.985, 0.997)
_MAX_SLOT_BITS = 18
_MAX_BYTES = 2 * 4 << _MAX_SLOT_BITS
_SLOTS_PER_CONTEXT = 4
_TAG_BITS, _CODE_BITS = 13, 16
_MASK = (1 << 32) - 1
# Of the left, above left, above, above right, second to the left and second above neighbour.
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0x7FEB352D)
_LEVELS = ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3), (0, 2, 3), (0, 2))
_SALTS = (0x2545F491, 0x1B873593, 0x6A09E667, 0x3C6EF372)

_Number = TypeVar("_Number", int, UInt64[np.ndarray, "n"])


def neighbours(codes: Sequence[int], place: int, columns: int) -> tuple[int, int, int, int, int, int]:
    """Return the codes left, above left, above, above right, two left and two above; -1 for none.

    Args:
        codes: of a picture, row by row.
        place: index of the code.
        columns: of the picture.
    """
    column, above = place % columns, place - columns
    return (
        codes[place - 1] if column else -1,
        codes[above - 1] if column and above > 0 else -1,
        codes[above] if above >= 0 else -1,
        codes[above + 1] if above >= 0 and column < columns - 1 else -1,
        codes[place - 2] if column > 1 else -1,
        codes[above - columns] if above >= columns else -1,
    )


@dataclass(frozen=True, eq=False)
class GuessTable:
    """Most frequent code after each neighbourhood.

    Args:
        slots: hash table of 2^n slots in pairs: 13 bits of a context's hash, 16 of the code, 3 of its grade.

    Raises:
        CogViewError: the array is no such table.
    """

    slots: Shaped[np.ndarray, "..."]

    def __post_init__(self) -> None:
        slots = self.slots
        if slots.ndim != 1 or slots.dtype != np.int32 or len(slots) < 4 or len(slots) & (len(slots) - 1):
            raise CogViewError(
                f"a guess table has a power of two of int32 slots, got {slots.dtype} of {list(slots.shape)}"
            )
        object.__setattr__(self, "_view", np.ascontiguousarray(slots).view(np.uint32).data)

    @classmethod
    def in_folder(cls, folder: Path) -> "GuessTable | None":
        """Read the table of a model folder, if it has one.

        Raises:
            CogViewError: the table is damaged.
        """
        path = folder / GUESSES_FILE
        if not path.exists():
            return None
        try:
            return cls(load(read_bounded(path, _MAX_BYTES))["slots"])
        except (OSError, ValueError, KeyError, SafetensorError, CogViewError) as error:
            raise CogViewError(
                f"{path} is not a guess table ({error}): copy or export the folder again, or delete the file; then "
                "the same pictures take longer."
            ) from error

    def save(self, folder: Path) -> None:
        """Write the table into a model folder."""
        (folder / GUESSES_FILE).write_bytes(save({"slots": self.slots}))

    @property
    def num_codes(self) -> int:
        """Smallest size of a codebook that has all guessed codes."""
        return int((self.slots.view(np.uint32) >> _TAG_BITS & (1 << _CODE_BITS) - 1).max()) + 1

    def guess(self, around: Sequence[int]) -> tuple[int, int] | None:
        """Return the guess and its grade, up to 7 for the surest; None for unknown neighbours.

        Args:
            around: `neighbours` of the place.
        """
        view: memoryview = self._view  # type: ignore[attr-defined]
        shift = 34 - len(view).bit_length()
        left, above_left, above, above_right, second_left, second_above = around
        # The sums of `_LEVELS`, each from the one with fewer neighbours.
        two = left * _FACTORS[0] + above * _FACTORS[2]
        three = two + above_right * _FACTORS[3]
        four = three + above_left * _FACTORS[1]
        six = four + second_left * _FACTORS[4] + second_above * _FACTORS[5]
        for total, salt in zip((six, four, three, two), _SALTS, strict=True):
            mixed = _mixed(total + salt)
            pair = mixed >> shift << 1
            for slot in (view[pair], view[pair + 1]):
                if slot and not (slot ^ mixed) & (1 << _TAG_BITS) - 1:
                    return slot >> _TAG_BITS & (1 << _CODE_BITS) - 1, slot >> _TAG_BITS + _CODE_BITS
        return None

    @classmethod
    def of(cls, codes: Integer[np.ndarray, "b r s"]) -> "GuessTable":
        """Count a table from pictures.

        Args:
            codes: of pictures that the model drew; at most `MAX_PICTURES` are counted.

        Raises:
            UsageError: no codes, or codes of more than 16 bits.
        """
        counted = codes[:: -(-len(codes) // MAX_PICTURES) or 1].astype(np.int32)
        if not counted.size or not 0 <= counted.min() <= counted.max() < 1 << _CODE_BITS:
            raise UsageError("a guess table needs pictures with codes below 65,536; there are none")
        around, next_codes = _places(counted)
        guessed = np.full(len(next_codes), -1, dtype=np.int32)
        levels: list[_Level] = []
        for level, salt in reversed(list(zip(_LEVELS, _SALTS, strict=True))):
            levels.append(_counted(around, next_codes, guessed, level, salt))
        hashes, values, gains = (np.concatenate(each) for each in zip(*levels, strict=True))
        order = np.argsort(-gains, kind="stable")  # the most useful context has the slot
        hashes, values = hashes[order], values[order]
        num_bits = min(_MAX_SLOT_BITS, max(2, int(_SLOTS_PER_CONTEXT * len(hashes)).bit_length()))
        pairs = hashes >> 33 - num_bits
        slots = np.zeros((1 << num_bits - 1, 2), dtype=np.uint32)
        for column in range(2):
            used, first = np.unique(pairs, return_index=True)
            slots[used, column] = hashes[first] & (1 << _TAG_BITS) - 1 | values[first] << _TAG_BITS
            pairs, hashes, values = (np.delete(each, first) for each in (pairs, hashes, values))
        return cls(slots.ravel().view(np.int32))


def _mixed(total: _Number) -> _Number:
    mixed = (total & _MASK) * 0x9E3779B1 & _MASK
    return (mixed ^ mixed >> 15) * 0x85EBCA77 & _MASK


def _places(
    codes: Int32[np.ndarray, "b r s"],
) -> tuple[Int32[np.ndarray, "n 6"], Int32[np.ndarray, "n"]]:
    """Return neighbours and code of all places but the first of each picture."""
    num, rows, columns = codes.shape
    wide = np.full((num, rows + 2, columns + 3), -1, dtype=np.int32)
    wide[:, 2:, 2:-1] = codes
    offsets = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2), (-2, 0))
    around = np.stack(
        [wide[:, 2 + row : 2 + row + rows, 2 + column : 2 + column + columns] for row, column in offsets],
        axis=-1,
    )
    return around.reshape(num, -1, 6)[:, 1:].reshape(-1, 6), codes.reshape(num, -1)[:, 1:].ravel()


class _Level(NamedTuple):
    """Contexts of a level that are worth a slot: hash, code and grade, and number of guesses corrected."""

    hashes: UInt64[np.ndarray, "n"]
    values: UInt64[np.ndarray, "n"]
    gains: Int64[np.ndarray, "n"]


def _counted(
    around: Int32[np.ndarray, "n 6"],
    next_codes: Int32[np.ndarray, "n"],
    guessed: Int32[np.ndarray, "n"],
    level: tuple[int, ...],
    salt: int,
) -> _Level:
    """Count the codes after each context of a level; update `guessed`, the guesses from fewer neighbours."""
    keys = np.full(len(around), salt, dtype=np.uint64)
    for which in level:
        keys += around[:, which].astype(np.uint64) * np.uint64(_FACTORS[which])
    keys &= np.uint64(_MASK)
    contexts, context_of = np.unique(keys, return_inverse=True)
    pairs, counts = np.unique(context_of << _CODE_BITS | next_codes, return_counts=True)
    order = np.lexsort((-counts, pairs >> _CODE_BITS))
    pairs, counts = pairs[order], counts[order]
    is_most: Bool[np.ndarray, "_"] = np.append(True, np.diff(pairs >> _CODE_BITS) > 0)
    most, right = pairs[is_most] & (1 << _CODE_BITS) - 1, counts[is_most]
    gains = right - np.bincount(context_of, weights=guessed == next_codes).astype(np.int64)
    grades = np.digitize((right + 0.3) / (np.bincount(context_of) + 1), _MIN_SHARES)
    is_kept = gains > 0
    guessed[:] = np.where(is_kept[context_of], most[context_of], guessed)
    values = most | grades << _CODE_BITS
    hashes = _mixed(contexts[is_kept])
    return _Level(hashes=hashes, values=values[is_kept].astype(np.uint64), gains=gains[is_kept])
