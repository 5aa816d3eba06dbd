"""From a data set of pictures and captions to token shards.

A shard is made of so many entries, pictures and problems, of one part of the data set, and nothing else decides what is
in it: so any process can make any shard at any time, and what was done before a kill counts.

Three things go on at once: worker processes decode, the calling thread reads and hands on, another thread encodes and
writes. That one does not begin a shard before the last is on disk, so that a kill costs one and not two.
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cogview.data.decoding import map_in_order, num_bytes_held
from cogview.data.pairs import PairSource
from cogview.data.ranks import Ranks
from cogview.data.shard_maker import ImageEncoder, Prepared, ShardMaker, digest_of_batch, prepare
from cogview.data.shard_records import Request, ShardDigest, ShardNumber
from cogview.data.shards import TokenKind, read_manifest, refuse_large_codebook, write_manifest
from cogview.data.shares import Batch, Share
from cogview.data.sources import open_pairs
from cogview.data.token_report import PROBLEMS, TokenizeReport, sum_up
from cogview.data.token_work import TokenWork, token_work
from cogview.errors import CogViewError, UsageError
from cogview.text.tokenizer import TextTokenizer

PAIRS_PER_SHARD = 10_000
BATCHES_AHEAD = 2  # decoded, and waiting for the encoder


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
    with token_work(out, source, request, state) as work:
        if work is None:
            manifest = read_manifest(out)
            _refuse_changed(out, manifest, pairs, ranks, request, num_workers, progress)
            return TokenizeReport.from_json(manifest["report"])
        share = Share(pairs, work.made(), ranks, request)
        maker = ShardMaker(work, image_tokenizer, share)
        preparing = partial(prepare, size_pixels=size_pixels, text_tokenizer=text_tokenizer)
        num_done, num_expected = share.num_done, max(1, pairs.expected() // ranks.num_ranks)
        with (
            closing(map_in_order(preparing, share.batches(), num_workers, _num_bytes)) as prepared,
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


def _refuse_changed(
    out: Path,
    manifest: Mapping[str, Any],
    pairs: PairSource,
    ranks: Ranks,
    request: Request,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Read the data set again, this process's share of it, and compare it with that of which tokens were made.

    Raises:
        UsageError: it is another, or the manifest does not tell.
    """
    try:
        contents = {ShardNumber.parse(number): str(told) for number, told in manifest["content"].items()}
    except (KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{out} already exists, and does not tell of which bytes it was made, as tokens of earlier versions don't: "
            "delete it or choose another."
        ) from error
    last = {number.part: number for number in sorted(contents)}
    made = {
        number: ShardDigest(content=content, ends_part=last[number.part] == number)
        for number, content in contents.items()
    }
    share, digest = Share(pairs, made, ranks, request), hashlib.sha256()
    num_done, num_expected = 0, max(1, pairs.expected() // ranks.num_ranks)
    read = map_in_order(digest_of_batch, share.batches(), num_workers, _num_bytes)
    with closing(read) as digests:
        for batch, of_batch in digests:
            digest.update(of_batch)
            if batch.ends_shard or batch.made is None:
                if batch.made is None or not batch.made.is_of(digest.hexdigest(), batch.ends_part):
                    raise UsageError(
                        f"{out} already exists and was made when the data set had other pictures or captions: "
                        "delete it or choose another."
                    )
                digest = hashlib.sha256()
            num_done += batch.num_counted
            if progress is not None:
                progress(num_done, max(num_done, num_expected))


def _num_bytes(batch: Batch) -> int:
    return num_bytes_held(batch.entries)


def _one_thread(
    function: Callable[[Batch, Prepared], int], batches: Iterator[tuple[Batch, Prepared]]
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


def _finish(
    work: TokenWork,
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
    content = {str(number): record.content for number, record in work.records()}
    shards = [shard for shard, _ in made]
    write_manifest(work.tokens, kind, shards, report.to_json(), request=asdict(request), content=content)
    work.finish(work.tokens)
    return report
