"""Preparation of batches in workers, and their encoding into token shards."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cogview.data.content import digest_of
from cogview.data.decoding import decode_image, read_bytes
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.shard_records import ShardRecord
from cogview.data.shards import write_shard
from cogview.data.shares import Batch, Share
from cogview.data.token_report import ShardStatistics
from cogview.data.token_work import CHANGED, TokenWork
from cogview.image.picture_reading import CHANGES, resize_and_crop
from cogview.image.pixels import as_float
from cogview.text.config import CaptionCase
from cogview.text.known_words import count_words
from cogview.text.tokenizer import TextTokenizer


@runtime_checkable
class ImageEncoder(Protocol):
    """Protocol of the image tokenizer."""

    fingerprint: str
    dtype: torch.dtype

    @property
    def num_codes(self) -> int:
        """Return the size of the codebook."""
        ...

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        ...

    def encode(self, images: Float[Tensor, "b c y x"]) -> Int64[Tensor, "b r s"]:
        """Return the codes of images in [-1, 1]."""
        ...


def encode_pixels(
    image_tokenizer: ImageEncoder, pixels: UInt8[np.ndarray, "b y x c"]
) -> Int64[np.ndarray, "b r s"]:
    """Return the codes of pictures; moves bytes to the device, a quarter of the size of floats.

    Args:
        image_tokenizer: the encoder.
        pixels: 8-bit RGB.
    """
    images = torch.from_numpy(pixels).to(image_tokenizer.device).permute(0, 3, 1, 2)
    return image_tokenizer.encode(as_float(images)).cpu().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Batch with decoded pictures and tokenized captions.

    Args:
        pixels: usable pictures.
        captions: for each of them the pieces of each of its captions.
        num_empty_captions: captions left out because they are empty.
        words: number of occurrences of each word in the captions.
        left_out: unusable entries.
        changed: usable pictures that were not plain 8-bit RGB.
        digest: digest of the batch's entries and all bytes of their files.
    """

    pixels: UInt8[np.ndarray, "b y x c"]
    captions: list[list[list[int]]]
    num_empty_captions: int
    words: Counter[str]
    left_out: list[Problem]
    changed: list[Problem]
    digest: bytes


def prepare(
    batch: Batch, size_pixels: int, text_tokenizer: TextTokenizer, text_case: CaptionCase = "as_written"
) -> Prepared:
    """Decode a batch's pictures and tokenize its captions; if its shard exists, compute only the digest.

    Args:
        batch: the batch.
        size_pixels: side of the square that each picture is resized and cropped to.
        text_tokenizer: tokenizer of the captions.
        text_case: how the captions are read.
    """
    squares: list[UInt8[np.ndarray, "y x c"]] = []
    captions: list[list[list[int]]] = []
    left_out: list[Problem] = []
    changed: list[Problem] = []
    num_empty, words = 0, Counter[str]()
    digest = hashlib.sha256()
    for image in batch.entries:
        data = read_bytes(image)
        digest.update(digest_of(image, data))
        if batch.made is not None:
            continue
        decoded = decode_image(image, data)
        if isinstance(decoded, Problem):
            left_out.append(decoded)
            continue
        assert isinstance(image, CaptionedImage)  # decoding a problem returns a problem
        read = [text.lower() for text in image.texts] if text_case == "lower" else image.texts
        texts = [pieces for text in read if (pieces := text_tokenizer.encode(text))]
        num_empty += len(read) - len(texts)
        if not texts:
            reason = "has no caption that isn't empty"
            left_out.append(Problem(where=image.name, kind="no caption", reason=reason))
            continue
        squares.append(np.asarray(resize_and_crop(decoded.rgb, size_pixels)))
        captions.append(texts)
        words.update(count_words(read, text_tokenizer))
        changed += (
            Problem(where=image.name, kind=change, reason=CHANGES[change]) for change in decoded.changes
        )
    return Prepared(
        pixels=np.stack(squares) if squares else np.zeros((0, size_pixels, size_pixels, 3), np.uint8),
        captions=captions,
        num_empty_captions=num_empty,
        words=words,
        left_out=left_out,
        changed=changed,
        digest=digest.digest(),
    )


def digest_of_batch(batch: Batch) -> bytes:
    """Return the digest of a batch, as `prepare` computes it."""
    digest = hashlib.sha256()
    for entry in batch.entries:
        digest.update(digest_of(entry))
    return digest.digest()


class ShardMaker:
    """Encoder of batches into shards; writes a shard with the last of its batches.

    Args:
        work: folder of the shards.
        image_tokenizer: the encoder.
        share: names the files.
    """

    def __init__(self, work: TokenWork, image_tokenizer: ImageEncoder, share: Share) -> None:
        self._work, self._image_tokenizer, self._share = work, image_tokenizer, share
        self._has_failed = False
        self._begin()

    def _begin(self) -> None:
        self._codes: list[Int64[np.ndarray, "b r s"]] = []
        self._captions: list[list[list[int]]] = []
        self._content = hashlib.sha256()
        self._tally = ShardStatistics(codes_used=np.zeros(self._image_tokenizer.num_codes, dtype=np.bool_))

    def take(self, batch: Batch, prepared: Prepared) -> int:
        """Encode a batch, write its shard if complete, and return the number of new entries.

        Raises:
            UsageError: the shard exists already, with other content.
        """
        assert not self._has_failed  # or a shard could lack a batch
        self._has_failed = True
        self._content.update(prepared.digest)
        if batch.made is None:
            self._encode(batch, prepared)
        if batch.ends_shard:
            if batch.made is None:
                self._write(batch)
            elif not batch.made.is_of(self._content.hexdigest(), batch.ends_part):
                raise self._work.refusal(CHANGED)
            self._begin()
        self._has_failed = False
        return batch.num_counted if batch.made is None else 0

    def _encode(self, batch: Batch, prepared: Prepared) -> None:
        self._count(batch, prepared)
        if len(prepared.pixels):
            self._codes.append(encode_pixels(self._image_tokenizer, prepared.pixels))
            self._captions += prepared.captions

    def _count(self, batch: Batch, prepared: Prepared) -> None:
        tally = self._tally
        tally.num_entries += batch.num_counted
        tally.num_pairs += len(prepared.captions)
        tally.caption_lengths.update(len(pieces) for texts in prepared.captions for pieces in texts)
        tally.num_empty_captions += prepared.num_empty_captions
        tally.words.update(prepared.words)
        tally.left_out += prepared.left_out
        tally.changed += prepared.changed

    def _write(self, batch: Batch) -> None:
        shard, num_bytes, grid = None, 0, None
        if self._codes:
            codes = np.concatenate(self._codes)
            self._tally.codes_used[codes] = True
            grid = (codes.shape[1], codes.shape[2])
            path = self._work.tokens / self._share.file_name(batch.number)
            shard = write_shard(path, codes.reshape(len(codes), -1).astype(np.uint16), self._captions)
            num_bytes = path.stat().st_size
        record = ShardRecord(
            ends_part=batch.ends_part,
            content=self._content.hexdigest(),
            shard=shard,
            num_bytes=num_bytes,
            grid=grid,
            tally=self._tally,
        )
        self._work.keep(batch.number, record)
