"""From batches of pictures and captions to shards: what workers prepare, and what is encoded and written of it."""

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
from cogview.text.known_words import count_words
from cogview.text.tokenizer import TextTokenizer


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What is left of a batch once its pictures are decoded and its captions cut into pieces.

    Args:
        pixels: of the pictures that can be used.
        captions: for each of them the pieces of each of its captions.
        num_empty_captions: captions that were left out because they are empty.
        words: how often each occurs in the captions.
        left_out: what cannot be used.
        changed: what can be used and was more than 8-bit RGB.
        digest: of the batch's entries and all bytes of their files.
    """

    pixels: UInt8[np.ndarray, "b y x c"]
    captions: list[list[list[int]]]
    num_empty_captions: int
    words: Counter[str]
    left_out: list[Problem]
    changed: list[Problem]
    digest: bytes


def prepare(batch: Batch, size_pixels: int, text_tokenizer: TextTokenizer) -> Prepared:
    """Decode the pictures of a batch and cut its captions into pieces; of a shard that is made, take the digest alone.

    Args:
        batch: the pictures.
        size_pixels: side of the square that each is resized and cropped to.
        text_tokenizer: makes the pieces.
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
        read = decode_image(image, data)
        if isinstance(read, Problem):
            left_out.append(read)
            continue
        assert isinstance(image, CaptionedImage)  # else it would be read as a problem
        texts = [pieces for text in image.texts if (pieces := text_tokenizer.encode(text))]
        num_empty += len(image.texts) - len(texts)
        if not texts:
            reason = "has no caption that isn't empty"
            left_out.append(Problem(where=image.name, kind="no caption", reason=reason))
            continue
        squares.append(np.asarray(resize_and_crop(read.rgb, size_pixels)))
        captions.append(texts)
        words.update(count_words(image.texts, text_tokenizer))
        changed += (Problem(where=image.name, kind=change, reason=CHANGES[change]) for change in read.changes)
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
    """Return what `prepare` says is the digest of a batch."""
    digest = hashlib.sha256()
    for entry in batch.entries:
        digest.update(digest_of(entry))
    return digest.digest()


class ShardMaker:
    """Turns batches into shards: encodes them, and writes a shard with the last of its batches.

    Args:
        work: keeps the shards.
        image_tokenizer: makes the codes.
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
        """Encode a batch, and write its shard if it is complete; return how many entries were done.

        Raises:
            UsageError: its shard is made already, of other bytes.
        """
        assert not self._has_failed  # a shard that lacks a batch must not be written
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
