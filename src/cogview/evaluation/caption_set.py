"""The captions that a model is measured with, and the real pictures that they were written for."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cogview.data.coco import Coco, TranslationIds
from cogview.data.decoding import decode_image, map_in_order
from cogview.data.pairs import CaptionedImage, Problem
from cogview.data.sources import open_pairs
from cogview.errors import CogViewError, UsageError
from cogview.image.picture_reading import resize_and_crop
from cogview.text.tokenizer import is_blank, valid_text


@dataclass(frozen=True, kw_only=True)
class AskedPicture:
    """A caption to draw, and the real picture that it was written for.

    Args:
        picture: the real one, with all its captions.
        text: what is drawn.
        original: what a translation was made of; the text itself elsewhere.
    """

    picture: CaptionedImage
    text: str
    original: str


class CaptionSet:
    """Captions with their pictures, one caption of each.

    Args:
        images: the folder of pictures.
        captions: an annotation file of MS COCO (`.json`), or lines as those of `metadata.jsonl`; by default what the
            folder itself has, as `open_pairs` reads it.
        split: take the pictures that name this split or none; all by default.
        translations: captions to take in place of MS COCO's, as `Coco` reads them.
        translation_ids: whose ids these are.
        num_captions: take so many of the pictures, at random; all by default.
        seed: of that choice, of the order, and of the caption that is taken of each picture.

    Attributes:
        asked: what to draw.
        problems: what was left out.

    Raises:
        CogViewError: something cannot be read, or there is nothing.
        UsageError: the arguments contradict each other, or ask for more than there is.
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
        taken = draw.permutation(len(usable))[:num_captions]
        self.asked: list[AskedPicture] = []
        for index in taken:
            picture, texts = usable[int(index)]
            text = texts[int(draw.integers(len(texts)))]
            # An argument or a file may hold half surrogates, which no file of ours could.
            text = valid_text(text)
            original = originals.get((picture.name, text), text)
            self.asked.append(AskedPicture(picture=picture, text=text, original=original))

    @property
    def fingerprint(self) -> str:
        """What `fingerprint_of` says of what is asked."""
        return fingerprint_of(self.asked)


def fingerprint_of(asked: Sequence[AskedPicture]) -> str:
    """Return 16 hexadecimal digits of the names of the pictures and their captions, in order."""
    said = json.dumps([[each.picture.name, each.text] for each in asked])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


class RealPictures:
    """The real pictures as squares of one size, read one by one and not kept.

    Args:
        pictures: those to read.
        size_pixels: side of the squares.
        num_workers: processes that decode; 0 does it in this one.

    Attributes:
        num_resized: how many of those read so far had another size.
        problems: those that cannot be read.
    """

    def __init__(self, pictures: Sequence[CaptionedImage], size_pixels: int, num_workers: int = 0) -> None:
        self._pictures, self._size_pixels, self._num_workers = pictures, size_pixels, num_workers
        self.num_resized = 0
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield those that can be read.

        Raises:
            CogViewError: none can.
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
