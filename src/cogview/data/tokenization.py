"""From a folder of pictures and captions to token shards."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cogview.data.check import MAX_LISTED, Spread
from cogview.data.decoding import decode_square, map_in_chunks
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.shards import TokenShardWriter
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_folder
from cogview.text.tokenizer import TextTokenizer


@runtime_checkable
class ImageEncoder(Protocol):
    """What is needed of an image tokenizer."""

    fingerprint: str

    @property
    def num_codes(self) -> int:
        """Return the size of the codebook."""
        ...

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        ...

    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Return the codes of images in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenizeReport:
    """What was met while a data set was tokenized.

    Args:
        num_pairs: pictures in the shards.
        num_captions: captions in the shards.
        caption_pieces: spread of the captions' lengths in pieces.
        num_long_captions: captions of more than `max_text_pieces`; training clips them.
        max_text_pieces: what counted as too long.
        num_empty_captions: captions that were left out because they are empty.
        num_codes_used: different codes that occur.
        num_problems: pictures that were left out because they cannot be read or have no caption.
        problems: the first of them.
    """

    num_pairs: int
    num_captions: int
    caption_pieces: Spread | None
    num_long_captions: int
    max_text_pieces: int
    num_empty_captions: int
    num_codes_used: int
    num_problems: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def losses(self) -> str:
        """Return in a phrase what is lost of the data set; empty if nothing is."""
        lost = (
            (self.num_problems, "pictures left out"),
            (self.num_empty_captions, "empty captions left out"),
            (self.num_long_captions, f"captions of more than {self.max_text_pieces} pieces, to be clipped"),
        )
        return "; ".join(f"{what}: {number:,}" for number, what in lost if number)

    def to_text(self) -> str:
        """Return the report for people, several lines."""
        lines = [
            f"{self.num_pairs:,} pictures with {self.num_captions:,} captions, {self.num_codes_used:,} codes used",
            f"captions: {self.caption_pieces} pieces",
            self.losses() or "nothing was left out",
            *(f"  {problem}" for problem in self.problems),
        ]
        if (unlisted := self.num_problems - len(self.problems)) > 0:
            lines.append(f"  and {unlisted:,} more")
        return "\n".join(lines)


def tokenize_folder(
    source: Path,
    out: Path,
    image_tokenizer: ImageEncoder,
    text_tokenizer: TextTokenizer,
    *,
    size_pixels: int,
    split: str | None = None,
    max_text_pieces: int = 60,
    batch_size: int = 64,
    num_workers: int = 0,
    pairs_per_shard: int = 50_000,
    progress: Callable[[int, int], None] | None = None,
) -> TokenizeReport:
    """Write a data set as token shards, whole or not at all.

    A picture that cannot be used is left out, counted and listed; it never stops the others.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.
        out: the folder to make; it must not exist, or be empty.
        image_tokenizer: makes the codes.
        text_tokenizer: makes the pieces.
        size_pixels: side of the square that each picture is resized and cropped to.
        split: take only the pictures that name this split or none.
        max_text_pieces: count longer captions; they are stored whole.
        batch_size: pictures encoded at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        pairs_per_shard: pictures in one file.
        progress: called with (pictures done, pictures in all).

    Raises:
        CogViewError: there is nothing there, or nothing that can be used.
        UsageError: `out` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and isn't an empty folder: delete it or choose another.")
    pairs = open_pairs(source, split)
    tally = _Tally(text_tokenizer, max_text_pieces)
    writer: TokenShardWriter | None = None
    used = np.zeros(image_tokenizer.num_codes, dtype=np.bool_)
    decode = partial(decode_square, size_pixels=size_pixels)
    with atomic_folder(out) as folder:
        num_done = 0
        for chunk in map_in_chunks(decode, pairs, num_workers, batch_size):
            batch = list(tally.usable(chunk))
            if batch:
                codes = _encode(image_tokenizer, np.stack([pixels for pixels, _ in batch]))
                used[codes] = True
                writer = writer or TokenShardWriter(
                    folder,
                    image_tokenizer=image_tokenizer.fingerprint,
                    text_tokenizer=text_tokenizer.fingerprint,
                    grid=(codes.shape[1], codes.shape[2]),
                    num_codes=image_tokenizer.num_codes,
                    num_pieces=text_tokenizer.num_pieces,
                    pairs_per_shard=pairs_per_shard,
                )
                for picture, (_, captions) in zip(codes, batch, strict=True):
                    writer.add(picture.reshape(-1), captions)
            num_done += len(chunk)
            if progress is not None:
                progress(num_done, max(num_done, len(pairs)))
        report = tally.report(int(used.sum()))
        if writer is None:
            why = (
                f"; the first of {report.num_problems:,} problems: {report.problems[0]}"
                if report.problems
                else ""
            )
            raise CogViewError(
                f"{source} has no pictures that can be used{why}. See `cogview data check {source}`."
            )
        writer.finish(report.to_json())
    if losses := report.losses():
        warnings.warn(f"{source}: {losses}", stacklevel=2)
    return report


def _encode(
    image_tokenizer: ImageEncoder, pixels: UInt8[np.ndarray, "b y x c"]
) -> Int64[np.ndarray, "b r s"]:
    """Return the codes of pictures; they travel to the device as bytes, a quarter of what floats take."""
    images = torch.from_numpy(pixels).to(image_tokenizer.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return image_tokenizer.encode(images).cpu().numpy()


class _Tally:
    """Turns captions into pieces and counts what is met."""

    def __init__(self, text_tokenizer: TextTokenizer, max_text_pieces: int) -> None:
        self._text_tokenizer = text_tokenizer
        self._max_text_pieces = max_text_pieces
        self._lengths: list[int] = []
        self._num_pairs = self._num_empty = 0
        self._problems: list[Problem] = []

    def usable(
        self, chunk: list[tuple[CaptionedImage | Problem, UInt8[np.ndarray, "y x c"] | Problem]]
    ) -> Iterator[tuple[UInt8[np.ndarray, "y x c"], list[list[int]]]]:
        """Yield the pixels and the captions' pieces of those pictures that can be used."""
        for image, pixels in chunk:
            if isinstance(pixels, Problem):
                self._problems.append(pixels)
                continue
            assert isinstance(image, CaptionedImage)  # else decoding would have kept the problem
            captions = [pieces for text in image.texts if (pieces := self._text_tokenizer.encode(text))]
            self._num_empty += len(image.texts) - len(captions)
            if not captions:
                self._problems.append(
                    Problem(where=image.name, kind="no caption", reason="has no caption that isn't empty")
                )
                continue
            self._num_pairs += 1
            self._lengths += map(len, captions)
            yield pixels, captions

    def report(self, num_codes_used: int) -> TokenizeReport:
        """Return what was counted."""
        return TokenizeReport(
            num_pairs=self._num_pairs,
            num_captions=len(self._lengths),
            caption_pieces=Spread.of(self._lengths),
            num_long_captions=sum(length > self._max_text_pieces for length in self._lengths),
            max_text_pieces=self._max_text_pieces,
            num_empty_captions=self._num_empty,
            num_codes_used=num_codes_used,
            num_problems=len(self._problems),
            problems=tuple(self._problems[:MAX_LISTED]),
        )
