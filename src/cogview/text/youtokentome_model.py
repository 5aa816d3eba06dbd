"""Pieces of a text by a YouTokenToMe model: byte-pair encoding, as ruDALL-E and RuDOLPH use it.

The model file is ASCII: whole numbers between whitespace.

| numbers | meaning |
|---|---|
| n, m | how many characters and rules follow |
| n pairs | code point of a character, its piece |
| m triples | a rule, the most urgent first: left piece, right piece, the piece that they are merged into |
| 4 | pieces for what is unknown, padding, begin and end; -1 if absent |
"""

import re
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby

from cogview.errors import CogViewError

_SPACE = "▁"
_SEPARATORS = re.compile(f"[ \t\n\v\f\r{_SPACE}]+")
"""Whitespace of the C locale: other whitespace, such as U+00A0 and U+3000, is part of a word."""

_START = re.compile(rb"-?[0-9]+[ \t\r\n]+-?[0-9]+[ \t\r\n]")
_WHOLE_NUMBERS = re.compile(rb"[-0-9 \t\n\v\f\r]*")
_MAX_DIGITS = 18
_MAX_PIECES = 2**20
_MAX_CHARACTERS = 2**24
"""Of all pieces together: a rule can double the length of the rule before it."""

_MAX_KEPT_WORDS, _MAX_KEPT_CHARACTERS = 2**14, 32


def is_youtokentome(content: bytes) -> bool:
    """Return whether a file is a YouTokenToMe model, perhaps a damaged one, rather than a SentencePiece model.

    A SentencePiece model, which is a protocol buffer, never begins with a digit.
    """
    return _START.match(content) is not None


class YouTokenToMeModel:
    """YouTokenToMe model: characters and the rules that merge them.

    Letters are not normalised, and runs of characters outside the vocabulary are one unknown piece each.

    Args:
        content: of the model file.
        name: of the file, for messages.

    Attributes:
        num_pieces: size of the vocabulary.
        unknown_piece: for a run of characters that no other piece has.
        padding_piece: None if the model has none.
        begin_piece: of a text; None if the model has none.
        end_piece: of a text; None if the model has none.

    Raises:
        CogViewError: the file is damaged.
    """

    def __init__(self, content: bytes, name: str) -> None:
        try:
            characters, rules, specials = _sections(content)
            self._characters = _by_character(characters)
            self._spellings = {piece: character for character, piece in self._characters.items()}
            self._rules = _by_pair(rules, self._spellings)
            present = [piece for piece in specials if piece != -1]
            self.num_pieces = len(characters) + len(rules) + len(present)
            if sorted([*self._spellings, *present]) != list(range(self.num_pieces)):
                raise ValueError(f"its pieces are not 0 to {self.num_pieces - 1:,}, each once")
            if specials[0] == -1:
                raise ValueError("it has no piece for what is unknown")
        except ValueError as error:
            raise CogViewError(
                f"{name} is a YouTokenToMe model, but a damaged one ({error}): copy the file again."
            ) from error
        self._kept: dict[str, list[tuple[int, str]]] = {}
        self.unknown_piece = specials[0]
        self.padding_piece, self.begin_piece, self.end_piece = (
            None if piece == -1 else piece for piece in specials[1:]
        )

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text."""
        return [piece for word in _words_of(text) for piece, _ in self._pieces_of(word)]

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of pieces, with "<UNK>" for the unknown one and nothing for padding, begin and end."""
        return "".join(map(self._written, pieces)).removeprefix(" ")

    def words(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, with "▁" for a space, and unknown characters as they are."""
        return [spelling for word in _words_of(text) for _, spelling in self._pieces_of(word)]

    def spelling(self, piece: int) -> str | None:
        """Return the string that a piece stands for, None if it is unknown or a control piece."""
        return self._spellings.get(piece)

    def _written(self, piece: int) -> str:
        if piece == self.unknown_piece:
            return "<UNK>"
        if piece in (self.padding_piece, self.begin_piece, self.end_piece):
            return ""
        word = self._spellings[piece]
        return f" {word[1:]}" if word.startswith(_SPACE) else word

    def _pieces_of(self, word: str) -> list[tuple[int, str]]:
        """Return the pieces of a word, each with its string; those of usual words are kept for the next time."""
        if (kept := self._kept.get(word)) is not None:
            return kept
        pieces: list[int] = []
        runs: list[str] = []
        for is_known, run in groupby(_SPACE + word, key=self._characters.__contains__):
            if is_known:
                pieces += map(self._characters.__getitem__, run)
            else:
                pieces.append(self.unknown_piece)
                runs.append("".join(run))
        unknown = iter(runs)
        spelt = [
            (piece, next(unknown) if piece == self.unknown_piece else self._spellings[piece])
            for piece in self._merged(pieces)
        ]
        if len(self._kept) < _MAX_KEPT_WORDS and len(word) <= _MAX_KEPT_CHARACTERS:
            self._kept[word] = spelt
        return spelt

    def _merged(self, pieces: list[int]) -> list[int]:
        """Merge the pieces of a word: always by the most urgent rule, and where it fits several pairs, the leftmost.

        For a word of n characters it takes n log n steps.
        """
        before, after = list(range(-1, len(pieces) - 1)), list(range(1, len(pieces) + 1))

        def fitting(left: int) -> tuple[int, int, int] | None:
            """Return the rule's number, the place and the new piece of the pair that begins at a place."""
            if left < 0 or after[left] == len(pieces):
                return None
            rule = self._rules.get((pieces[left], pieces[after[left]]))
            return rule and (rule[0], left, rule[1])

        candidates = [each for left in range(len(pieces)) if (each := fitting(left))]
        heapify(candidates)
        while candidates:
            candidate = heappop(candidates)
            _, left, merged = candidate
            if candidate != fitting(left):
                continue  # one of the two has been merged with another
            right = after[left]
            pieces[left], pieces[right] = merged, -1
            after[left] = after[right]
            if after[left] < len(pieces):
                before[after[left]] = left
            for place in (before[left], left):
                if each := fitting(place):
                    heappush(candidates, each)
        return [piece for piece in pieces if piece != -1]


def _words_of(text: str) -> Iterator[str]:
    return filter(None, _SEPARATORS.split(text))


def _sections(content: bytes) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[int]]:
    """Return the characters, the rules and the special pieces of a model file.

    Raises:
        ValueError: it has other bytes, or other numbers than it announces.
    """
    if not _WHOLE_NUMBERS.fullmatch(content):
        raise ValueError("it has other bytes than whole numbers and spaces")
    num_characters, num_rules = map(_whole_number, content.split(maxsplit=2)[:2])
    if num_characters < 0 or num_rules < 0 or num_characters + num_rules > _MAX_PIECES:
        raise ValueError(
            f"it announces {num_characters:,} characters and {num_rules:,} rules, at most {_MAX_PIECES:,} are read"
        )
    wanted = 2 + 2 * num_characters + 3 * num_rules + 4
    numbers = content.split(maxsplit=wanted)
    if len(numbers) != wanted:
        got = "more" if len(numbers) > wanted else f"{len(numbers):,}"
        raise ValueError(f"it has {got} numbers, wanted {wanted:,}")
    values = [_whole_number(number) for number in numbers]
    rules = 2 + 2 * num_characters
    return (
        list(zip(values[2:rules:2], values[3:rules:2], strict=True)),
        list(zip(*(values[rules + part : -4 : 3] for part in range(3)), strict=True)),
        values[-4:],
    )


def _whole_number(digits: bytes) -> int:
    """Return a number of usual size.

    Raises:
        ValueError: it has many digits, or is none.
    """
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def _by_character(characters: list[tuple[int, ...]]) -> dict[str, int]:
    """Return the piece of each character.

    Raises:
        ValueError: a code point is out of range or repeated, or that of the space is missing.
    """
    pieces: dict[str, int] = {}
    for code_point, piece in characters:
        if not 0 <= code_point <= 0x10FFFF or 0xD800 <= code_point <= 0xDFFF:
            raise ValueError(f"{code_point} is no code point of Unicode")
        pieces[chr(code_point)] = piece
    if len(pieces) != len(characters):
        raise ValueError("it has a character twice")
    if _SPACE not in pieces:
        raise ValueError(f"it lacks the character {ord(_SPACE)}, which begins each word")
    return pieces


def _by_pair(
    rules: list[tuple[int, ...]], spellings: dict[int, str]
) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the number and the new piece of each pair's rule, and add the new pieces' spellings.

    Raises:
        ValueError: a rule merges what no character or earlier rule gave, or a pair that has a rule; or all spellings
            together are too long.
    """
    by_pair: dict[tuple[int, int], tuple[int, int]] = {}
    num_characters = 0
    for number, (left, right, merged) in enumerate(rules):
        if left not in spellings or right not in spellings:
            raise ValueError(
                f"rule {number + 1} merges pieces {left} and {right}, and one of them is not made before"
            )
        if (left, right) in by_pair:
            raise ValueError(f"two rules merge pieces {left} and {right}")
        num_characters += len(spellings[left]) + len(spellings[right])
        if num_characters > _MAX_CHARACTERS:
            raise ValueError(f"its pieces have more than {_MAX_CHARACTERS:,} characters together")
        by_pair[left, right] = number, merged
        spellings[merged] = spellings[left] + spellings[right]
    return by_pair
