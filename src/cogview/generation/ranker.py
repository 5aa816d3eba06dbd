"""Ranking of pictures by how well they fit a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from cogview.decoding.engine import Runner
from cogview.decoding.request import Request, SequenceResult
from cogview.errors import UsageError
from cogview.generation.caption_loss import loss_request
from cogview.generation.caption_model import CaptionModel
from cogview.generation.inpainting import InpaintingMask, fit_loss
from cogview.generation.model import LoadedModel
from cogview.generation.pictures import Picture, codes_of
from cogview.generation.text_to_image import text_context
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, Pieces, TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class RankedImage:
    """Picture in a ranking.

    Args:
        index: of the picture in the caller's list.
        caption_loss: CapLoss of the picture and the text, in nats per piece.
    """

    index: int
    caption_loss: float


class Ranker:
    """Scores texts against pictures, and ranks pictures.

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
        """Compute CapLoss of pictures and texts, in nats per piece: the lower, the better the fit.

        Args:
            images: as many as texts, or one for all texts.
            texts: as many as pictures, or one for all pictures.
            captioner: name of the adapter, if there are several.
            strict: refuse unknown words, and pictures that the image tokenizer reconstructs badly, instead of warning.

        Raises:
            UsageError: a text is empty, too long or not representable in pieces; the numbers of pictures and texts
                differ; or something is refused.
            UnusableImage: a picture file cannot be read.
        """
        model = self._model
        caption_model = model.caption_model(captioner)
        texts = [texts] if isinstance(texts, str) else list(texts)
        spellings = model.known_spellings(texts, model.adapter_for("captioning", captioner), strict)
        pieces = _scored_pieces(
            model.text_tokenizer, [spellings[text] for text in texts], caption_model.template
        )
        codes = codes_of(model, images, caption_model.template, strict)
        num = max(len(codes), len(pieces))
        if {len(codes), len(pieces)} - {1, num}:
            raise UsageError(
                f"there are {len(codes)} pictures and {len(pieces)} texts: give equally many, or one of either"
            )
        pairs = zip(pieces * (num // len(pieces)), codes * (num // len(codes)), strict=True)
        losses: list[float] = caption_model.losses(list(pairs)).tolist()
        return losses

    def rank(
        self, text: str, images: Sequence[Picture], captioner: str | None = None, strict: bool = False
    ) -> list[RankedImage]:
        """Return pictures ordered by how well they fit a text, best first.

        Args:
            text: to compare with.
            images: pictures, paths or codes.
            captioner: name of the adapter, if there are several.
            strict: as for `caption_loss`.

        Raises:
            UsageError: as `caption_loss` does.
            UnusableImage: a picture file cannot be read.

        Paper: section 3.2, self-reranking.
        """
        losses = self.caption_loss(images, text, captioner, strict)
        return [
            RankedImage(index=index, caption_loss=losses[index])
            for index in sorted(range(len(losses)), key=losses.__getitem__)
        ]


class CaptionRanking:
    """Ranking by CapLoss, in nats per piece.

    The text that was drawn counts, so that no way of balancing words is preferred.

    Args:
        captions: of the captioner.
    """

    def __init__(self, captions: CaptionModel) -> None:
        self.runner = captions.runner
        self._template = captions.template

    def request(self, pieces: Pieces, codes: Codes) -> Request:
        """Return the request that scores a text after a picture."""
        return loss_request(self.runner, self._template, (pieces, codes))

    def loss(self, scored: SequenceResult, seed: int) -> float:
        """Return CapLoss."""
        return float(_nats(scored).mean())


class FitRanking:
    """Ranking by fit: loss of the given codes after the drawn ones, in nats per code.

    Args:
        runner: of the transformer that drew.
        template: token order.
        mask: which codes were drawn.
    """

    def __init__(self, runner: Runner, template: TextToImageTemplate, mask: InpaintingMask) -> None:
        self.runner = runner
        self._template = template
        self._mask = mask

    def request(self, pieces: Pieces, codes: Codes) -> Request:
        """Return the request that scores a picture after a text."""
        return Request(
            context=text_context(self._template, pieces),
            legal=self._template.vocabulary.image_codes,
            given=codes.ravel().astype(np.int64),
            variant=self.runner.variant,
            is_scored=True,
        )

    def loss(self, scored: SequenceResult, seed: int) -> float:
        """Return the mean over the given codes after the first drawn one."""
        return fit_loss(_nats(scored), self._mask.of(seed))


Ranking = CaptionRanking | FitRanking
"""How candidates are ranked: a request that scores one, and the loss from its result."""


def _nats(scored: SequenceResult) -> Float64[np.ndarray, "n"]:
    assert scored.nats is not None, "it was asked to be scored"
    return scored.nats


def best_of(codes: Sequence[Codes], losses: Sequence[float], keep: int | None) -> list[int]:
    """Return the indices of the best candidates, best first.

    A picture drawn several times is kept once: its duplicates come after all others.

    Args:
        codes: of each candidate.
        losses: of each candidate.
        keep: number of candidates to keep; all if None.
    """
    order = np.argsort(losses, kind="stable").tolist()
    digests = [each.tobytes() for each in codes]
    best = {digests[index]: index for index in reversed(order)}
    order.sort(key=lambda index: best[digests[index]] != index)
    return order[:keep]


def _scored_pieces(
    tokenizer: TextTokenizer, texts: Sequence[str], template: CaptionTemplate
) -> list[Int64[np.ndarray, "_"]]:
    """Tokenize texts to score, without clipping.

    Raises:
        UsageError: there is no text, or one cannot be scored as it is.
    """
    if not texts:
        raise UsageError("no text given; give at least one")
    all_pieces = []
    for number, text in enumerate(texts, start=1):
        pieces = np.asarray(tokenizer.encode(text), dtype=np.int64)
        problem = ""
        if not len(pieces):
            problem = "is empty, or holds nothing that this model reads: say what the picture shows"
        elif len(pieces) > template.max_text_pieces:
            problem = (
                f"has {len(pieces)} pieces, more than the {template.max_text_pieces} that this model reads: "
                "shorten it"
            )
        elif (pieces == tokenizer.unknown_piece).any():
            problem = "has characters that the text tokenizer does not know: write it with others"
        if problem:
            raise UsageError(f"text {number} of {len(texts)}, {text[:40]!r}, {problem}")
        all_pieces.append(pieces)
    return all_pieces
