"""What a model says of pictures: captions, how well texts fit, and which picture fits a text best."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from PIL import Image
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.errors import UsageError
from cogview.generation.captioner import Captioner
from cogview.generation.parts import PretrainedModel, TaskModel
from cogview.generation.resident import ResidentModel
from cogview.image.pixels import as_rgb, image_to_array, read_image, resize_and_crop
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, PairTemplate
from cogview.text.word_replacing import Language

Picture: TypeAlias = Image.Image | str | Path | Tensor
"""A picture, the path of one, or its codes, whole numbers [r s]."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A text that was written for a picture.

    Args:
        text: the text.
        caption_loss: CapLoss of picture and text, in nats per piece.
        score: log p of the text and its end, divided by the number of its pieces and 1; beam search ranks by it.
        seed: draws the same text again; None if it was not drawn.
    """

    text: str
    caption_loss: float
    score: float
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class RankedImage:
    """A picture's place among others.

    Args:
        index: which of the pictures it is, from 0.
        caption_loss: CapLoss of the picture and the text, in nats per piece.
    """

    index: int
    caption_loss: float


class CaptioningModel(ResidentModel):
    """A resident model that can write of pictures, if it has an adapter, or a whole transformer, for captioning.

    Args:
        model: the parts.
    """

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__(model)
        self._captioners: WeakKeyDictionary[TaskModel, Captioner] = WeakKeyDictionary()

    @property
    def captioner_names(self) -> list[str]:
        """The names of the adapters that caption."""
        return self.names_for("captioning")

    def captioner(self, name: str | None = None) -> Captioner:
        """Return what captions; made once, it shares what can be shared with the model.

        Args:
            name: of the adapter; only needed if there are several that caption.

        Raises:
            UsageError: there is none of that name, or none at all, or several and none was named.
        """
        chosen = self._captioning(name)
        with self._lock:
            if chosen not in self._captioners:
                self._captioners[chosen] = self._new_captioner(chosen)
            return self._captioners[chosen]

    def _captioning(self, name: str | None) -> TaskModel:
        return self.adapter_for(
            "captioning",
            "captioner",
            name,
            "this model has no captioner, so it cannot caption or rank: train one with cogview train captioning, "
            "and give its run as --captioner, or to add_adapter",
        )

    def caption(
        self,
        images: Picture | Sequence[Picture],
        num_captions: int = 1,
        num_beams: int = 4,
        temperature: float | int = 0.0,
        top_k: int | None = None,
        top_p: float | int = 1.0,
        seed: int = 0,
        max_pieces: int | None = None,
        length_penalty: float | int = 1.0,
        captioner: str | None = None,
        language: str | None = None,
        strict: bool = False,
    ) -> list[list[Caption]]:
        """Write captions of pictures.

        Args:
            images: pictures, their paths or their codes; other sizes are scaled and the middle square is cut out.
            num_captions: of each picture.
            num_beams: with temperature 0 the best texts of a beam search of this width are given, or of the width
                `num_captions`, if that is more; a width of 1 is the greedy text.
            temperature: over 0, texts are drawn, and the beams are without effect.
            top_k: draw from the most probable pieces only; from all if None.
            top_p: draw from the fewest pieces that hold this share of the probability.
            seed: of the first text drawn of each picture; the next has the next.
            max_pieces: of a text; as many as the model has room for by default.
            length_penalty: of the beam search: 0 prefers short texts, 1 ranks by the mean log p of a piece.
            captioner: the name of the adapter, if there are several.
            language: "zh" or "en": pieces with letters of other scripts are not written; as the model likes by default.
            strict: refuse a picture that the image tokenizer hardly keeps, rather than warn of it.

        Returns:
            A list for each picture; captions of a beam search best first, others in the order of their seeds.

        Raises:
            UsageError: an impossible number, no picture, or one that is refused.
            UnusableImage: a file is no picture that can be read.
        """
        if num_captions < 1 or num_beams < 1:
            raise UsageError(
                f"num_captions and num_beams must be at least 1, got {num_captions} and {num_beams}"
            )
        if seed < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        config = SamplingConfig(temperature=float(temperature), top_k=top_k, top_p=float(top_p))
        chosen, tokenizer = self.captioner(captioner), self.text_tokenizer
        allowed = None if language is None else self._pieces_of(language)
        codes = self.codes_of(images, chosen.template, strict)
        width = max(num_beams, num_captions)
        seeds: Sequence[int | None] = range(seed, seed + num_captions)
        if config.temperature or width == 1:
            written = chosen.sample(codes, range(seed, seed + num_captions), config, max_pieces, allowed)
        else:
            written = chosen.beam_search(codes, width, max_pieces, float(length_penalty), allowed)
        if not config.temperature:
            seeds = [None] * num_captions
        return [
            [
                Caption(
                    text=tokenizer.decode(text.pieces),
                    caption_loss=text.caption_loss,
                    score=text.score(),
                    seed=drawn_with,
                )
                for text, drawn_with in zip(texts, seeds, strict=False)
            ]
            for texts in written
        ]

    def caption_loss(
        self,
        images: Picture | Sequence[Picture],
        texts: str | Sequence[str],
        captioner: str | None = None,
        strict: bool = False,
    ) -> list[float]:
        """Return CapLoss of pictures and texts, in nats per piece: the lower, the better a text fits.

        Args:
            images: as many as texts, or a single one for all texts.
            texts: as many as pictures, or a single one for all pictures.
            captioner: the name of the adapter, if there are several.
            strict: refuse unknown words and pictures that the image tokenizer hardly keeps, rather than warn of them.

        Raises:
            UsageError: a text is empty, too long, or one that the text tokenizer cannot represent; the numbers of
                pictures and texts differ; or something is refused.
            UnusableImage: a file is no picture that can be read.
        """
        chosen = self.captioner(captioner)
        texts = [texts] if isinstance(texts, str) else list(texts)
        read = self.reading(texts, self._captioning(captioner), strict)
        pieces = self._pieces([read[text] for text in texts], chosen.template)
        codes = self.codes_of(images, chosen.template, strict)
        num = max(len(codes), len(pieces))
        if {len(codes), len(pieces)} - {1, num}:
            raise UsageError(
                f"there are {len(codes)} pictures and {len(pieces)} texts: give as many, or a single one of either"
            )
        pairs = zip(pieces * (num // len(pieces)), codes * (num // len(codes)), strict=True)
        losses: list[float] = chosen.losses(list(pairs)).tolist()
        return losses

    def rank(
        self, text: str, images: Sequence[Picture], captioner: str | None = None, strict: bool = False
    ) -> list[RankedImage]:
        """Return pictures in the order in which a text fits them, best first.

        Args:
            text: what is looked for.
            images: pictures, their paths or their codes.
            captioner: the name of the adapter, if there are several.
            strict: as for `caption_loss`.

        Raises:
            UsageError: as `caption_loss` does.
            UnusableImage: a file is no picture that can be read.

        Paper: section 3.2, self-reranking.
        """
        losses = self.caption_loss(images, text, captioner, strict)
        return [
            RankedImage(index=index, caption_loss=losses[index])
            for index in sorted(range(len(losses)), key=losses.__getitem__)
        ]

    def best(
        self,
        captioner: Captioner | None,
        texts: Sequence[str],
        codes: Int64[Tensor, "b r s"],
        keep: int | None,
    ) -> Sequence[tuple[int, float | None]]:
        """Return which candidates to keep, the best first, with their losses; all as they are without a captioner.

        Args:
            captioner: what to choose by.
            texts: what each candidate was drawn for; what a captioner has no room for is left out.
            codes: of the candidates.
            keep: how many; all if None.
        """
        if captioner is None:
            return [(number, None) for number in range(len(codes))]
        pieces = {text: np.asarray(self.text_tokenizer.encode(text), dtype=np.int64) for text in set(texts)}
        pairs = [(pieces[text], each.numpy()) for text, each in zip(texts, codes, strict=True)]
        return best_of(codes, captioner.losses(pairs), keep)

    def codes_of(
        self,
        images: Picture | Sequence[Picture],
        template: PairTemplate,
        strict: bool = False,
        way_out: str = "leave strict out",
        below_pixels: int | None = None,
    ) -> list[Codes]:
        """Return the codes of pictures that are given as such, as paths, or as codes already.

        A picture of which the image tokenizer keeps less than of its own held-out ones is warned of.

        Args:
            images: one or more.
            template: of the sequences that the codes go into.
            strict: refuse such a picture instead.
            way_out: how to have it taken all the same, for that error.
            below_pixels: of the shorter side; pictures that are to be enlarged to so many are refused if they have them
                already.

        Raises:
            UsageError: there is none, something is no picture, or one is refused.
            UnusableImage: a file is no picture that can be read.
        """
        given = [images] if isinstance(images, Image.Image | str | Path | Tensor) else list(images)
        if not given:
            raise UsageError("there is no picture; give at least one")
        # One by one: convolutions round differently in batches of another size, and few pictures are held at a time.
        found: list[Codes] = []
        for number, each in enumerate(given, start=1):
            codes, told = self._codes_of(each, number, template, below_pixels)
            if told:
                if strict:
                    raise UsageError(f"{told}; give a picture of the model's world, or {way_out}")
                warnings.warn(f"{told}: what is made of it means little", stacklevel=1)
            found.append(codes)
        return found

    def _codes_of(
        self, picture: Picture, number: int, template: PairTemplate, below_pixels: int | None
    ) -> tuple[Codes, str]:
        """Return the codes of a picture, and what is to be told if the image tokenizer keeps little of it."""
        if isinstance(picture, Tensor):
            if picture.ndim != 2 or picture.is_floating_point():
                raise UsageError(
                    f"picture {number} is a tensor, but not codes, whole numbers [r s]: got {picture.dtype} of "
                    f"{list(picture.shape)}"
                )
            return picture.cpu().numpy(), ""
        if not isinstance(picture, Image.Image | str | Path):
            raise UsageError(
                f"picture {number} must be a PIL image, a path or codes, got {type(picture).__name__}"
            )
        image = as_rgb(picture) if isinstance(picture, Image.Image) else read_image(picture)
        name = picture if isinstance(picture, str | Path) else f"picture {number}"
        if below_pixels is not None and min(image.size) >= below_pixels:
            raise UsageError(
                f"{name} has {min(image.size)} pixels a side, and would be drawn again with {below_pixels}: take a "
                "larger factor, draw it larger in the first place (generate --size), or force it"
            )
        tokenizer = self.image_tokenizer
        square = resize_and_crop(image, template.grid_rows * tokenizer.downsampling_factor)
        pixels = torch.from_numpy(image_to_array(square))[None]
        codes: Int64[Tensor, "b r s"] = tokenizer.encode(pixels)
        told, usual = "", tokenizer.held_out
        if usual is not None and (kept_db := float(tokenizer.kept_db(pixels, codes))) < usual.least_db:
            told = (
                f"{name}: the image tokenizer keeps {kept_db:.1f} dB of it, where of its own held-out pictures it "
                f"keeps {usual.median_db:.1f}"
            )
        return codes[0].cpu().numpy(), told

    def _pieces(self, texts: Sequence[str], template: CaptionTemplate) -> list[Int64[np.ndarray, "_"]]:
        """Return the pieces of texts that can be scored as they are.

        Raises:
            UsageError: there is none, or one of them cannot.
        """
        if not texts:
            raise UsageError("there is no text; give at least one")
        tokenizer = self.text_tokenizer
        found = []
        for number, text in enumerate(texts, start=1):
            pieces = np.asarray(tokenizer.encode(text), dtype=np.int64)
            problem = ""
            if not len(pieces):
                problem = "is empty, or holds nothing that this model reads: say what is to be seen"
            elif len(pieces) > template.max_text_pieces:
                problem = (
                    f"has {len(pieces)} pieces, more than the {template.max_text_pieces} that this model reads: "
                    "shorten it"
                )
            elif (pieces == tokenizer.unknown_piece).any():
                problem = "has characters that the text tokenizer does not know: write it with others"
            if problem:
                raise UsageError(f"text {number} of {len(texts)}, {text[:40]!r}, {problem}")
            found.append(pieces)
        return found

    def _pieces_of(self, language: str) -> Bool[np.ndarray, "n"]:
        """Return which pieces may be written in a language.

        Raises:
            UsageError: the language is unknown, or the text tokenizer has no words of it.
        """
        allowed = {name: self.text_tokenizer.writes(name) for name in get_args(Language)}
        if language not in allowed:
            raise UsageError(f"language must be one of {', '.join(allowed)}, got {language!r}")
        others = [pieces for name, pieces in allowed.items() if name != language]
        if not (allowed[language] & ~np.logical_or.reduce(others)).any():
            raise UsageError(f"this model's text tokenizer has no words of the language {language!r}")
        return allowed[language]

    def _new_captioner(self, chosen: TaskModel) -> Captioner:
        template = chosen.template_of(CaptionTemplate, self.template.vocabulary)
        return Captioner(self.runner_of(chosen), template)


def best_of(
    codes: Int64[Tensor, "b r s"], losses: Float64[np.ndarray, "b"], keep: int | None
) -> list[tuple[int, float]]:
    """Return which candidates to keep, the best first, with their losses.

    A picture that was drawn several times is there to be chosen once: its repetitions come after all others.

    Args:
        codes: of the candidates.
        losses: of each.
        keep: how many; all if None.
    """
    order = np.argsort(losses, kind="stable").tolist()
    same = [each.numpy().tobytes() for each in codes]
    first = {same[number]: number for number in reversed(order)}
    order.sort(key=lambda number: first[same[number]] != number)
    return [(number, float(losses[number])) for number in order[:keep]]
