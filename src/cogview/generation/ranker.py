"""Ranking: how well texts fit pictures, and which candidates are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.engine import Runner
from cogview.decoding.request import Drawn, Request
from cogview.errors import UsageError
from cogview.generation.caption_loss import loss_request
from cogview.generation.caption_model import CaptionModel
from cogview.generation.inpainting import DrawnPlaces, fit_loss
from cogview.generation.model import LoadedModel
from cogview.generation.pictures import Picture, codes_of
from cogview.generation.text_to_image import text_context
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, Pieces, TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class RankedImage:
    """A picture's place among others.

    Args:
        index: which of the pictures it is, from 0.
        caption_loss: CapLoss of the picture and the text, in nats per piece.
    """

    index: int
    caption_loss: float


class Ranker:
    """Says how badly texts fit pictures, and which picture fits a text best.

    Args:
        model: with an adapter, or a whole transformer, for captioning.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

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
        model = self._model
        chosen = model.caption_model(captioner)
        texts = [texts] if isinstance(texts, str) else list(texts)
        read = model.reading(texts, model.adapter_for("captioning", captioner), strict)
        pieces = _scored_pieces(model.text_tokenizer, [read[text] for text in texts], chosen.template)
        codes = codes_of(model, images, chosen.template, strict)
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


class CaptionRanking:
    """Ranking by CapLoss: how badly a text fits a picture, in nats per piece.

    What a candidate was drawn for counts, so that no way of balancing words is preferred to another.

    Args:
        captions: of the adapter that captions.
    """

    def __init__(self, captions: CaptionModel) -> None:
        self.runner = captions.runner
        self._template = captions.template

    def request(self, pieces: Pieces, codes: Codes) -> Request:
        """Return what scores a text after a picture."""
        return loss_request(self.runner, self._template, (pieces, codes))

    def loss(self, scored: Drawn, seed: int) -> float:
        """Return CapLoss."""
        return float(_nats(scored).mean())


class FitRanking:
    """Ranking by fit: how badly given codes fit what was drawn before them, in nats per given code.

    Args:
        runner: of the transformer that drew.
        template: of its sequences.
        places: which codes were drawn.
    """

    def __init__(self, runner: Runner, template: TextToImageTemplate, places: DrawnPlaces) -> None:
        self.runner = runner
        self._template = template
        self._places = places

    def request(self, pieces: Pieces, codes: Codes) -> Request:
        """Return what scores a picture after a text."""
        return Request(
            context=text_context(self._template, pieces),
            legal=self._template.vocabulary.image_codes,
            given=codes.ravel().astype(np.int64),
            variant=self.runner.variant,
            is_scored=True,
        )

    def loss(self, scored: Drawn, seed: int) -> float:
        """Return the mean over the given codes behind the first that was drawn."""
        return fit_loss(_nats(scored), self._places.of(seed))


Ranking = CaptionRanking | FitRanking
"""What candidates are ranked by: a request that scores one, and the loss that comes of it."""


def _nats(scored: Drawn) -> Float64[np.ndarray, "n"]:
    assert scored.nats is not None, "it was asked to be scored"
    return scored.nats


def best_of(codes: Sequence[Codes], losses: Sequence[float], keep: int | None) -> list[int]:
    """Return which candidates to keep, the best first.

    A picture that was drawn several times is there to be chosen once: its repetitions come after all others.

    Args:
        codes: of the candidates.
        losses: of each.
        keep: how many; all if None.
    """
    order = np.argsort(losses, kind="stable").tolist()
    same = [each.tobytes() for each in codes]
    first = {same[number]: number for number in reversed(order)}
    order.sort(key=lambda number: first[same[number]] != number)
    return order[:keep]


def _scored_pieces(
    tokenizer: TextTokenizer, texts: Sequence[str], template: CaptionTemplate
) -> list[Int64[np.ndarray, "_"]]:
    """Return the pieces of texts that can be scored as they are.

    Raises:
        UsageError: there is none, or one of them cannot.
    """
    if not texts:
        raise UsageError("there is no text; give at least one")
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
