"""Texts to draw, from the command line or a file of any length."""

import hashlib
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType

from cogview.errors import CogViewError, UsageError, printable
from cogview.text.tokenizer import TextTokenizer

_MAX_LINE_BYTES = 1_000_000
_MAX_LISTED = 5
_TEXTS_AT_ONCE = 4096


class Prompts:
    """Texts in order, copied to a temporary file so that later changes to the source have no effect.

    Args:
        texts: to draw; empty if there is a file.
        source: a UTF-8 file with one text per line, or "-" for standard input. Only newlines of any system end a line;
            empty lines are skipped, with a message on stderr.

    Attributes:
        fingerprint: of all texts.

    Raises:
        UsageError: there is no text, an empty one, or both words and a file.
        CogViewError: the file cannot be read, or is no text.
    """

    def __init__(self, texts: Sequence[str], source: str | None = None) -> None:
        if texts and source is not None:
            raise UsageError("give the texts as words or with --prompts, not both")
        self._source = {"-": "the standard input"}.get(source or "", source)
        self._num_texts = 0
        digest = hashlib.sha256()
        with ExitStack() as stack:
            self._spool = stack.enter_context(tempfile.TemporaryFile())
            for number, text in _numbered(texts) if source is None else self._lines(source):
                self._spool.write(json.dumps([number, text]).encode() + b"\n")
                digest.update(json.dumps(text).encode())
                self._num_texts += 1
            if not self._num_texts:
                raise UsageError(
                    'there is no text to draw; give one, for instance: cogview generate "a cat"'
                    if source is None
                    else f"{self._source} has no text to draw: give one on each line"
                )
            self.fingerprint = digest.hexdigest()[:16]
            self._stack = stack.pop_all()

    def __len__(self) -> int:
        return self._num_texts

    def __enter__(self) -> "Prompts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        for _, text in self._read():
            yield text

    def check(self, tokenizer: TextTokenizer, max_text_pieces: int) -> None:
        """Refuse texts that the model cannot read, and warn once of all that are too long.

        Raises:
            UsageError: the model cannot read a text.
        """
        num_clipped, longest = 0, 0
        for number, text in self._read():
            num_pieces = len(tokenizer.encode(text))
            if not num_pieces:
                raise UsageError(
                    f"{self._where(number)}, {text[:40]!r}, holds nothing that this model reads: give what to draw"
                )
            num_clipped += num_pieces > max_text_pieces
            longest = max(longest, num_pieces)
        if num_clipped:
            warnings.warn(
                f"{num_clipped} of {len(self)} texts have more than the {max_text_pieces} pieces that this model reads "
                f"(up to {longest}); the rest of them is left out",
                stacklevel=2,
            )

    def tell_unknown(self, reading: Callable[[list[str]], object]) -> None:
        """Report the model's unknown words, some thousand texts at a time.

        Args:
            reading: warns of, or refuses, a list of texts.
        """
        texts = iter(self)
        while part := list(islice(texts, _TEXTS_AT_ONCE)):
            reading(part)

    def _where(self, number: int) -> str:
        return f"text {number} of {len(self)}" if self._source is None else f"line {number} of {self._source}"

    def _read(self) -> Iterator[tuple[int, str]]:
        """Yield each text with its number or its line's."""
        place = 0
        while True:
            # Others may be reading too.
            self._spool.seek(place)
            line = self._spool.readline()
            if not line:
                return
            place = self._spool.tell()
            number, text = json.loads(line)
            yield number, text

    def _lines(self, source: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file that are not empty, with their numbers."""
        empty: list[int] = []
        num_empty = 0
        try:
            with ExitStack() as stack:
                data = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
                # Newlines of any system end a line; of one that is too long, no more is read than shows that.
                file = io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape")
                stack.callback(file.detach)
                for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES + 2), ""), start=1):
                    text = self._text_of(line.removesuffix("\n"), number)
                    if text:
                        yield number, text
                    else:
                        num_empty += 1
                        empty += [number][: _MAX_LISTED - len(empty)]
        except OSError as error:
            raise CogViewError(
                f"{self._source} cannot be read ({error.strerror}): give a file with a text on each line"
            ) from error
        if num_empty:
            listed = ", ".join(map(str, empty)) + (", ..." if num_empty > len(empty) else "")
            lines = "empty lines" if num_empty > 1 else "empty line"
            source = printable(str(self._source))
            print(f"cogview: passing over {num_empty:,} {lines} of {source}: {listed}", file=sys.stderr)

    def _text_of(self, line: str, number: int) -> str:
        """Return the text of a line without the spaces around it.

        Raises:
            CogViewError: it is too long, or no UTF-8.
        """
        problem = ""
        if len(line.encode(errors="surrogateescape")) > _MAX_LINE_BYTES:
            problem = f"has more than {_MAX_LINE_BYTES:,} bytes: give one text on each line"
        elif "\0" in line:
            problem = "holds NUL characters, which no text does: save the file as UTF-8"
        elif as_text(line) != line:
            problem = "is not UTF-8: save the file as UTF-8, one text on each line"
        if problem:
            raise CogViewError(f"line {number} of {self._source} {problem}")
        return line.strip()


def _numbered(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield words of the command line with their numbers.

    Raises:
        UsageError: one is empty.
    """
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UsageError(f"text {number} of {len(texts)} is empty; say what to draw")
        yield number, as_text(text)


def as_text(argument: str) -> str:
    """Return an argument as text: if it is not UTF-8 it has half surrogates, which no file of ours could hold."""
    return argument.encode(errors="replace").decode()
