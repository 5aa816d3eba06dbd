"""From a data set of pictures and captions to token shards.

A shard is made of so many entries, pictures and problems, of one part of the data set, and nothing else decides what is
in it: so any process can make any shard at any time, and what was done before a kill counts.

Three things go on at once: worker processes decode, the calling thread reads and hands on, another thread encodes and
writes. That one does not begin a shard before the last is on disk, so that a kill costs one and not two.
"""

import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cogview.data.decoding import decode_image, map_in_order
from cogview.data.pairs import CaptionedImage, PairSource, Problem
from cogview.data.ranks import Ranks
from cogview.data.shards import TokenKind, read_manifest, refuse_large_codebook, write_manifest, write_shard
from cogview.data.sources import open_pairs
from cogview.data.token_report import PROBLEMS, Tally, TokenizeReport, sum_up
from cogview.data.unfinished import Request, ShardNumber, ShardRecord, UnfinishedTokens, work_on
from cogview.errors import CogViewError, UsageError
from cogview.image.pixels import CHANGES, as_float, resize_and_crop
from cogview.text.known_words import count_words
from cogview.text.tokenizer import TextTokenizer

PAIRS_PER_SHARD = 10_000
BATCHES_AHEAD = 2  # decoded, and waiting for the encoder


@runtime_checkable
class ImageEncoder(Protocol):
    """What is needed of an image tokenizer."""

    fingerprint: str
    dtype: torch.dtype

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
    pairs_per_shard: int = PAIRS_PER_SHARD,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
    complete: Callable[[Path], None] | None = None,
) -> TokenizeReport | None:
    """Write a data set as token shards, whole or not at all.

    A picture that cannot be used is left out, counted and listed; it never stops the others. What is done is kept
    beside `out` until all is, so that the same call after a kill goes on with it and ends with the same bytes.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.
        out: the folder to make; it must not exist, or be empty. Tokens that the same call made already are left alone.
        image_tokenizer: makes the codes.
        text_tokenizer: makes the pieces.
        size_pixels: side of the square that each picture is resized and cropped to.
        split: take only the pictures that name this split or none.
        max_text_pieces: count longer captions; they are stored whole.
        batch_size: pictures encoded at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        pairs_per_shard: pictures and problems of the data set in one file; a kill costs each rank one at most.
        ranks: this process and the others that make the same folder; None makes it alone.
        progress: called with (entries of the data set done, about how many there are), of this process's share.
        complete: called with the folder before it appears, to write more into it.

    Returns:
        The report, or None if other ranks are still at work: the last to finish writes the manifest and has the report.

    Raises:
        CogViewError: there is nothing there, or nothing that can be used.
        UsageError: `out` holds something else, or was begun with other options or another data set.
    """
    if min(batch_size, pairs_per_shard, max_text_pieces) < 1:
        numbers = f"{batch_size}, {pairs_per_shard}, {max_text_pieces}"
        raise UsageError(f"batch_size, pairs_per_shard and max_text_pieces must be 1 or more, got {numbers}")
    refuse_large_codebook(image_tokenizer.num_codes)
    ranks, pairs = ranks or Ranks(), open_pairs(source, split)
    state = pairs.state()
    request = Request(
        source=state.fingerprint,
        split=split,
        size_pixels=size_pixels,
        max_text_pieces=max_text_pieces,
        batch_size=batch_size,
        pairs_per_shard=pairs_per_shard,
        device=image_tokenizer.device.type,
        precision=str(image_tokenizer.dtype).removeprefix("torch."),
        image_tokenizer=image_tokenizer.fingerprint,
        text_tokenizer=text_tokenizer.fingerprint,
    )
    with work_on(out, source, request, state) as work:
        if work is None:
            return TokenizeReport.from_json(read_manifest(out)["report"])
        share = _Share(pairs, work, ranks, request)
        maker = _ShardMaker(work, image_tokenizer, share)
        prepare = partial(_prepare, size_pixels=size_pixels, text_tokenizer=text_tokenizer)
        num_done, num_expected = share.num_done, max(1, pairs.expected() // ranks.num_ranks)
        with (
            closing(map_in_order(prepare, share.batches(), num_workers)) as prepared,
            closing(_one_thread(maker.take, prepared)) as taken,
        ):
            for num_entries in taken:
                num_done += num_entries
                if progress is not None:
                    progress(num_done, max(num_done, num_expected))
        if not work.is_left_to_this_process(pairs.num_parts):
            return None
        report = _finish(work, source, request, image_tokenizer, text_tokenizer, complete)
    if losses := report.losses():
        warnings.warn(f"{source}: {losses}", stacklevel=2)
    return report


def encode_pixels(
    image_tokenizer: ImageEncoder, pixels: UInt8[np.ndarray, "b y x c"]
) -> Int64[np.ndarray, "b r s"]:
    """Return the codes of pictures; they travel to the device as bytes, a quarter of what floats take.

    Args:
        image_tokenizer: makes the codes.
        pixels: 8-bit RGB.
    """
    images = torch.from_numpy(pixels).to(image_tokenizer.device).permute(0, 3, 1, 2)
    return image_tokenizer.encode(as_float(images)).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Entries of the data set that are encoded together.

    Args:
        number: the shard that they are of.
        entries: they.
        ends_shard: no more follow in the shard.
        ends_part: no more follow in the part of the data set.
    """

    number: ShardNumber
    entries: list[CaptionedImage | Problem]
    ends_shard: bool
    ends_part: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """What is left of a batch once its pictures are decoded and its captions cut into pieces.

    Args:
        pixels: of the pictures that can be used.
        captions: for each of them the pieces of each of its captions.
        num_empty_captions: captions that were left out because they are empty.
        words: how often each occurs in the captions.
        left_out: what cannot be used.
        changed: what can be used and was more than 8-bit RGB.
    """

    pixels: UInt8[np.ndarray, "b y x c"]
    captions: list[list[list[int]]]
    num_empty_captions: int
    words: Counter[str]
    left_out: list[Problem]
    changed: list[Problem]


class _Share:
    """The shards that are left for this process to make.

    With as many parts as ranks, or more, each part is made by one rank: the others need not read it. Else the shards
    of each part are dealt out, and every rank reads all parts.
    """

    def __init__(self, pairs: PairSource, work: UnfinishedTokens, ranks: Ranks, request: Request) -> None:
        self._pairs, self._work, self._ranks, self._request = pairs, work, ranks, request

    @property
    def num_done(self) -> int:
        """Return how many entries were in those shards of the share that were done when the work began."""
        return sum(num for number, num in self._work.num_entries.items() if self._takes(number))

    def file_name(self, number: ShardNumber) -> str:
        """Return what the file of a shard is called."""
        return f"tokens-{number if self._pairs.num_parts > 1 else f'{number.place:05d}'}.safetensors"

    def batches(self) -> Iterator[_Batch]:
        """Yield the entries of the shards that are left, shard by shard."""
        for part in range(self._pairs.num_parts):
            if part not in self._work.parts_done and (not self._by_part or self._ranks.takes(part)):
                yield from self._batches_of_part(part)

    def _batches_of_part(self, part: int) -> Iterator[_Batch]:
        entries = _LookingAhead(self._pairs.part(part))
        for number in (ShardNumber(part, place) for place in count()):
            is_left = self._takes(number) and number not in self._work.num_entries
            num_left = self._request.pairs_per_shard
            while num_left:
                # What is passed over is not gathered: the pictures of a shard would fill the memory.
                batch = entries.take(min(self._request.batch_size, num_left))
                num_left = num_left - len(batch) if entries.has_more else 0
                if is_left:
                    yield _Batch(
                        number=number, entries=batch, ends_shard=not num_left, ends_part=not entries.has_more
                    )
            if not entries.has_more:
                return

    @property
    def _by_part(self) -> bool:
        return self._pairs.num_parts >= self._ranks.num_ranks

    def _takes(self, number: ShardNumber) -> bool:
        return self._ranks.takes(number.part if self._by_part else number.part + number.place)


class _LookingAhead:
    """Things of an iterator, some at a time, and whether there are more."""

    def __init__(self, things: Iterator[CaptionedImage | Problem]) -> None:
        self._things = things
        self._ahead = list(islice(things, 1))

    @property
    def has_more(self) -> bool:
        return bool(self._ahead)

    def take(self, most: int) -> list[CaptionedImage | Problem]:
        """Return the next, fewer than asked for only at the end."""
        taken = [*self._ahead, *islice(self._things, most)]  # one more than is wanted
        self._ahead = taken[most:]
        return taken[:most]


def _prepare(batch: _Batch, size_pixels: int, text_tokenizer: TextTokenizer) -> _Prepared:
    """Decode the pictures of a batch and cut its captions into pieces."""
    squares: list[UInt8[np.ndarray, "y x c"]] = []
    captions: list[list[list[int]]] = []
    left_out, changed = list[Problem](), list[Problem]()
    num_empty, words = 0, Counter[str]()
    for image in batch.entries:
        decoded = image if isinstance(image, Problem) else decode_image(image)
        if isinstance(decoded, Problem):
            left_out.append(decoded)
            continue
        assert isinstance(image, CaptionedImage)  # a problem has been dealt with
        texts = [pieces for text in image.texts if (pieces := text_tokenizer.encode(text))]
        num_empty += len(image.texts) - len(texts)
        if not texts:
            reason = "has no caption that isn't empty"
            left_out.append(Problem(where=image.name, kind="no caption", reason=reason))
            continue
        read, _ = decoded
        squares.append(np.asarray(resize_and_crop(read.rgb, size_pixels)))
        captions.append(texts)
        words.update(count_words(image.texts, text_tokenizer))
        changed += (Problem(where=image.name, kind=change, reason=CHANGES[change]) for change in read.changes)
    return _Prepared(
        pixels=np.stack(squares) if squares else np.zeros((0, size_pixels, size_pixels, 3), np.uint8),
        captions=captions,
        num_empty_captions=num_empty,
        words=words,
        left_out=left_out,
        changed=changed,
    )


def _one_thread(
    function: Callable[[_Batch, _Prepared], int], batches: Iterator[tuple[_Batch, _Prepared]]
) -> Generator[int, None, None]:
    """Yield a function's results, which are worked out in another thread while the next batches are being made."""
    pending: deque[Future[int]] = deque()
    thread = ThreadPoolExecutor(1)
    try:
        for batch, prepared in batches:
            pending.append(thread.submit(function, batch, prepared))
            if len(pending) > BATCHES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


class _ShardMaker:
    """Turns batches into shards: encodes them, and writes a shard with the last of its batches."""

    def __init__(self, work: UnfinishedTokens, image_tokenizer: ImageEncoder, share: _Share) -> None:
        self._work, self._image_tokenizer, self._share = work, image_tokenizer, share
        self._has_failed = False
        self._begin()

    def _begin(self) -> None:
        self._codes: list[Int64[np.ndarray, "b r s"]] = []
        self._captions: list[list[list[int]]] = []
        self._tally = Tally(codes_used=np.zeros(self._image_tokenizer.num_codes, dtype=np.bool_))

    def take(self, batch: _Batch, prepared: _Prepared) -> int:
        """Encode a batch, and write its shard if it is complete; return how many entries it had."""
        assert not self._has_failed  # a shard that lacks a batch must not be written
        self._has_failed = True
        self._count(batch, prepared)
        if len(prepared.pixels):
            self._codes.append(encode_pixels(self._image_tokenizer, prepared.pixels))
            self._captions += prepared.captions
        if batch.ends_shard:
            self._write(batch)
            self._begin()
        self._has_failed = False
        return len(batch.entries)

    def _count(self, batch: _Batch, prepared: _Prepared) -> None:
        tally = self._tally
        tally.num_entries += len(batch.entries)
        tally.num_pairs += len(prepared.captions)
        tally.caption_lengths.update(len(pieces) for texts in prepared.captions for pieces in texts)
        tally.num_empty_captions += prepared.num_empty_captions
        tally.words.update(prepared.words)
        tally.left_out += prepared.left_out
        tally.changed += prepared.changed

    def _write(self, batch: _Batch) -> None:
        shard, num_bytes, grid = None, 0, None
        if self._codes:
            codes = np.concatenate(self._codes)
            self._tally.codes_used[codes] = True
            grid = (codes.shape[1], codes.shape[2])
            path = self._work.tokens / self._share.file_name(batch.number)
            shard = write_shard(path, codes.reshape(len(codes), -1).astype(np.uint16), self._captions)
            num_bytes = path.stat().st_size
        record = ShardRecord(
            ends_part=batch.ends_part, shard=shard, num_bytes=num_bytes, grid=grid, tally=self._tally
        )
        self._work.keep(batch.number, record)


def _finish(
    work: UnfinishedTokens,
    source: Path,
    request: Request,
    image_tokenizer: ImageEncoder,
    text_tokenizer: TextTokenizer,
    complete: Callable[[Path], None] | None,
) -> TokenizeReport:
    """Let the folder appear, now that all shards are there, and return the report."""
    work.remove_strays()
    tallies = (record.tally for _, record in work.records())
    report = sum_up(tallies, request.max_text_pieces, work.tokens / PROBLEMS)
    made = [(record.shard, record.grid) for _, record in work.records() if record.shard and record.grid]
    if not made:
        work.discard()
        some = report.problems
        why = f"; the first of {report.num_problems:,} problems: {some[0].first[0]}" if some else ""
        raise CogViewError(
            f"{source} has no pictures that can be used{why}. See `cogview data check {source}`."
        )
    kind = TokenKind(
        image_tokenizer=request.image_tokenizer,
        text_tokenizer=request.text_tokenizer,
        grid=made[0][1],
        num_codes=image_tokenizer.num_codes,
        num_pieces=text_tokenizer.num_pieces,
    )
    if complete is not None:
        complete(work.tokens)
    write_manifest(work.tokens, kind, [shard for shard, _ in made], report.to_json(), request=asdict(request))
    work.deliver()
    return report
