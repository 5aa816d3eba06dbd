"""Tokenization of a data set of pictures and captions into token shards.

A shard depends only on its entries of the data set, so that any process can make any shard, and a killed run resumes.

Worker processes decode, the calling thread reads and distributes, and another thread encodes and writes. It starts a
shard only when the last is on disk, so that a kill costs at most one.
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from cogview.data.decoding import num_bytes_held
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
from cogview.text.config import CaptionCase
from cogview.text.tokenizer import TextTokenizer
from cogview.workers import map_in_order

PAIRS_PER_SHARD = 10_000
BATCHES_AHEAD = 2  # decoded batches that wait for the encoder


def tokenize_folder(
    source: Path,
    out: Path,
    image_tokenizer: ImageEncoder,
    text_tokenizer: TextTokenizer,
    *,
    size_pixels: int,
    text_case: CaptionCase = "as_written",
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

    Unusable pictures are left out, counted and listed. Unfinished work is kept beside `out`; the same call after a kill
    resumes it and ends with the same bytes.

    Args:
        source: an image folder, a folder of WebDataset tars, or one tar.
        out: folder of the result; must be empty or not exist, unless it is the result of the same call.
        image_tokenizer: encodes pictures.
        text_tokenizer: tokenizes captions.
        size_pixels: side of the square that each picture is resized and cropped to.
        text_case: how captions are read.
        split: only pictures that name this split or none.
        max_text_pieces: longer captions are counted, but stored whole.
        batch_size: pictures encoded at once.
        num_workers: worker processes that decode; 0 for this process.
        pairs_per_shard: pictures and problems of the data set per file; a kill costs each rank at most one.
        ranks: rank among the processes that make the same folder; None for this process alone.
        progress: called with (entries done, estimated entries in all) of this process's share.
        complete: called with the folder before it appears, to add files.

    Returns:
        The report, or None if other ranks are still at work; the last to finish writes the manifest.

    Raises:
        CogViewError: the source is missing, or has no usable pictures.
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
        text_case=text_case,
    )
    with token_work(out, source, request, state) as work:
        if work is None:
            manifest = read_manifest(out)
            _refuse_changed(out, manifest, pairs, ranks, request, num_workers, progress)
            return TokenizeReport.from_json(manifest["report"])
        share = Share(pairs, work.made(), ranks, request)
        maker = ShardMaker(work, image_tokenizer, share)
        preparing = partial(
            prepare, size_pixels=size_pixels, text_tokenizer=text_tokenizer, text_case=text_case
        )
        num_done, num_expected = share.num_done, max(1, pairs.expected() // ranks.num_ranks)
        with (
            closing(map_in_order(preparing, share.batches(), num_workers, _num_bytes)) as prepared,
            closing(_one_thread(maker.take, prepared)) as counts,
        ):
            for num_entries in counts:
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
    """Compare this process's share of the data set with the digests in the manifest.

    Raises:
        UsageError: they differ, or the manifest has none.
    """
    try:
        contents = {ShardNumber.parse(number): str(digest) for number, digest in manifest["content"].items()}
    except (KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{out} already exists, but its manifest has no digests of the data set, as in earlier versions: "
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
        for batch, batch_digest in digests:
            digest.update(batch_digest)
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
    """Yield a function's results, computed in another thread while the next batches are prepared."""
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
    """Write the manifest, move the folder to its place, and return the report."""
    work.remove_strays()
    tallies = (record.tally for _, record in work.records())
    report = sum_up(tallies, request.max_text_pieces, work.tokens / PROBLEMS)
    made = [(record.shard, record.grid) for _, record in work.records() if record.shard and record.grid]
    if not made:
        work.discard()
        groups = report.problems
        why = f"; the first of {report.num_problems:,} problems: {groups[0].first[0]}" if groups else ""
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
    write_manifest(work.tokens, kind, shards, report.to_json(), request=request.to_json(), content=content)
    work.finish(work.tokens)
    return report
