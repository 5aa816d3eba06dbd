"""Captions to evaluate a model with, and their real pictures."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cogview.data.coco import Coco, TranslationIds
from cogview.data.decoding import decode_image
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError, UsageError
from cogview.image.picture_reading import resize_and_crop
from cogview.text.tokenizer import is_blank, valid_text
from cogview.workers import map_in_order


@dataclass(frozen=True, kw_only=True)
class AskedPicture:
    """Caption to draw, and its real picture.

    Args:
        picture: the real picture, with all its captions.
        text: the caption to draw.
        original: the caption before translation; `text` without one.
    """

    picture: CaptionedImage
    text: str
    original: str


class CaptionSet:
    """Random choice of pictures with one caption each.

    Args:
        images: folder of the pictures.
        captions: annotation file of MS COCO (`.json`), or a file like `metadata.jsonl`; by default the captions in the
            folder, as `open_pairs` reads them.
        split: only pictures that name this split or none; all by default.
        translations: captions that replace MS COCO's, as `Coco` reads them.
        translation_ids: whether their ids are of captions or of pictures.
        num_captions: number of pictures to choose; all by default.
        seed: seed of the pictures, their order and captions.

    Attributes:
        asked: the chosen captions and pictures.
        problems: pictures left out.

    Raises:
        CogViewError: a file cannot be read, or there are no captions.
        UsageError: the arguments contradict each other, or `num_captions` is out of range.
    """

    def __init__(
        self,
        images: Path,
        captions: Path | None = None,
        *,
        split: str | None = None,
        translations: Path | None = None,
        translation_ids: TranslationIds = "captions",
        num_captions: int | None = None,
        seed: int = 0,
    ) -> None:
        is_coco = captions is not None and captions.suffix == ".json"
        if translations is not None and not is_coco:
            raise UsageError(
                "--translations belong to an annotation file of MS COCO: give its .json as --captions"
            )
        if split is not None and is_coco:
            raise UsageError("an annotation file of MS COCO is one split: leave --split out")
        if not images.is_dir():
            raise CogViewError(f"{images} is no folder: give the one that holds the pictures")
        originals: dict[tuple[str, str], str] = {}
        if is_coco:
            assert captions is not None
            coco = Coco(captions, images, translations, translation_ids)
            entries, originals = coco.entries, coco.originals
        else:
            entries = list(open_pairs(images, split, metadata=captions))
        self.problems = [entry for entry in entries if isinstance(entry, Problem)]
        usable: list[tuple[CaptionedImage, list[str]]] = []
        for entry in entries:
            if isinstance(entry, CaptionedImage):
                texts = [text for text in entry.texts if not is_blank(text)]
                if texts:
                    usable.append((entry, texts))
                else:
                    self.problems.append(
                        Problem(where=entry.name, kind="no caption", reason="its captions are empty")
                    )
        if not usable:
            raise CogViewError(f"no picture of {captions or images} has a caption that is not empty")
        if num_captions is not None and not 1 <= num_captions <= len(usable):
            raise UsageError(
                f"num_captions must be between 1 and {len(usable):,}, the pictures with captions, got {num_captions}"
            )
        draw = np.random.default_rng(seed)
        chosen = draw.permutation(len(usable))[:num_captions]
        self.asked: list[AskedPicture] = []
        for index in chosen:
            picture, texts = usable[int(index)]
            # Lone surrogates could not be written to files.
            text = valid_text(texts[int(draw.integers(len(texts)))])
            original = originals.get((picture.name, text), text)
            self.asked.append(AskedPicture(picture=picture, text=text, original=original))

    @property
    def fingerprint(self) -> str:
        """`fingerprint_of` the chosen captions."""
        return fingerprint_of(self.asked)


def fingerprint_of(asked: Sequence[AskedPicture]) -> str:
    """Return 16 hexadecimal digits of the names of the pictures and their captions, in order."""
    names_and_texts = json.dumps([[each.picture.name, each.text] for each in asked])
    return hashlib.sha256(names_and_texts.encode()).hexdigest()[:16]


class RealPictures:
    """Iterable of real pictures as squares of one size.

    Args:
        pictures: the pictures.
        size_pixels: side of the squares.
        num_workers: worker processes that decode; 0 for this process.

    Attributes:
        num_resized: number of pictures so far that had another size.
        problems: pictures so far that cannot be read.
    """

    def __init__(self, pictures: Sequence[CaptionedImage], size_pixels: int, num_workers: int = 0) -> None:
        self._pictures, self._size_pixels, self._num_workers = pictures, size_pixels, num_workers
        self.num_resized = 0
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield the readable pictures.

        Raises:
            CogViewError: none can be read.
        """
        self.num_resized, self.problems = 0, []
        size = (self._size_pixels, self._size_pixels)
        for _, decoded in map_in_order(decode_image, self._pictures, self._num_workers):
            if isinstance(decoded, Problem):
                self.problems.append(decoded)
                continue
            rgb = decoded.rgb
            self.num_resized += rgb.size != size
            yield rgb if rgb.size == size else resize_and_crop(rgb, self._size_pixels)
        if len(self.problems) == len(self._pictures):
            raise CogViewError(
                f"none of the {len(self._pictures):,} pictures that the captions name can be read, the first: "
                f"{self.problems[0]}: captions and pictures do not belong together"
            )
