"""Sampling, beam search and CapLoss with a captioning transformer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Runner
from cogview.decoding.request import BeamRequest, Context, Request, SequenceResult, WrittenText
from cogview.errors import CogViewError, UsageError
from cogview.generation.caption_loss import caption_losses
from cogview.numbers import whole_number
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.right_text import RightTextTemplate
from cogview.sequence.template import Codes, Pieces


class CaptionModel:
    """Writes texts for pictures, and scores texts against pictures.

    Only pieces and the end token are written. A text has at least one piece and ends at the latest when the template is
    full. On CPU the texts of a seed do not depend on the batch, as in `Engine`.

    Args:
        runner: of a captioning transformer.
        template: picture first, then text.

    Raises:
        CogViewError: the transformer's attention is sparse, and not for a text after the picture.
    """

    def __init__(self, runner: Runner, template: CaptionTemplate) -> None:
        pattern = runner.variant.config.attention_pattern
        if pattern != ("grid" if isinstance(template, RightTextTemplate) else "dense"):
            raise CogViewError(
                f"a transformer with {pattern} attention cannot caption so: its pattern is that of a text before a "
                "picture; finetune one with dense attention"
            )
        self.runner = runner
        self.template = template

    def losses(
        self, pairs: Sequence[tuple[Pieces, Codes]], *, counts_end: bool = False
    ) -> Float64[np.ndarray, "n"]:
        """Compute CapLoss of each (pieces, codes); see `caption_losses`."""
        return caption_losses(self.runner, self.template, pairs, counts_end=counts_end)

    def sample(
        self,
        pictures: Sequence[Codes],
        seeds: Sequence[int],
        config: SamplingConfig,
        max_pieces: int | None = None,
        allowed: Bool[np.ndarray, "v"] | None = None,
    ) -> list[list[WrittenText]]:
        """Sample a text for each seed and picture; with temperature 0 the greedy text.

        Args:
            pictures: codes of each picture.
            seeds: not negative.
            config: temperature, top-k and top-p; there is no guidance.
            max_pieces: maximum of a text; by default what the template has room for.
            allowed: pieces that may be written; all by default. Probabilities stay those of the model.

        Raises:
            UsageError: `max_pieces` is out of range.
            CogViewError: the transformer's logits are not finite.
        """
        max_pieces = self._max_pieces(max_pieces)
        legal, end = self.template.legal_tokens, self._end
        # A text that has no room left is ended.
        given = np.append(np.full(max_pieces, -1), end)
        results = self.runner.engine.run(
            [
                Request(
                    context=self._context(codes, max_pieces + 1),
                    legal=legal,
                    seed=seed,
                    sampling=config,
                    given=given,
                    variant=self.runner.variant,
                    end=end,
                    allowed=self._allowed(allowed),
                    is_scored=True,
                )
                for codes in pictures
                for seed in seeds
            ]
        )
        texts = iter([_written(result) for result in results if isinstance(result, SequenceResult)])
        return [[next(texts) for _ in seeds] for _ in pictures]

    def beam_search(
        self,
        pictures: Sequence[Codes],
        num_beams: int,
        max_pieces: int | None = None,
        length_penalty: float = 1.0,
        allowed: Bool[np.ndarray, "v"] | None = None,
    ) -> list[list[WrittenText]]:
        """Return the `num_beams` best texts of each picture, best first.

        In each step every beam may end, and the best `num_beams` continuations go on. Finished texts are ranked by
        `WrittenText.score`, until no running beam can overtake them.

        Args:
            pictures: codes of each picture.
            num_beams: beam width.
            max_pieces: maximum of a text; by default what the template has room for.
            length_penalty: 0 or more; 0 prefers short texts, 1 ranks by the mean of log p.
            allowed: pieces that may be written; all by default. Probabilities stay those of the model.

        Raises:
            UsageError: a number is out of range.
            CogViewError: the transformer's logits are not finite.
        """
        max_pieces = self._max_pieces(max_pieces)
        if num_beams < 1:
            raise UsageError(f"num_beams must be at least 1, got {num_beams}")
        if not 0 <= length_penalty < float("inf"):
            raise UsageError(f"length_penalty must be 0 or more, got {length_penalty}")
        results = self.runner.engine.run(
            [
                BeamRequest(
                    context=self._context(codes, max_pieces),
                    legal=self.template.legal_tokens,
                    end=self._end,
                    num_beams=num_beams,
                    length_penalty=length_penalty,
                    allowed=self._allowed(allowed),
                    variant=self.runner.variant,
                )
                for codes in pictures
            ]
        )
        return [texts for texts in results if isinstance(texts, list)]

    @property
    def _end(self) -> int:
        """END, among the legal tokens."""
        return self.template.end_token - self.template.legal_tokens.start

    def _allowed(self, pieces: Bool[np.ndarray, "n"] | None) -> Bool[np.ndarray, "v"] | None:
        """Return which legal tokens may be written, given which pieces; None if all."""
        allowed = self.template.is_written
        if pieces is not None:
            allowed[: len(pieces)] &= pieces
            allowed[self._end] = True
        return None if allowed.all() else allowed

    def _max_pieces(self, max_pieces: int | None) -> int:
        room = self.template.max_text_pieces
        if max_pieces is not None and not 1 <= whole_number("max_pieces", max_pieces) <= room:
            raise UsageError(
                f"max_pieces must be between 1 and {room}, what the model has room for, got {max_pieces}"
            )
        return max_pieces or room

    def _context(self, codes: Codes, num_tokens: int) -> Context:
        prefix = self.template.prefix(codes)
        positions = np.append(self.template.text_positions, 0)  # END is never read, so it has no position
        return Context(
            tokens=prefix.tokens, positions=prefix.positions, next_positions=positions[:num_tokens]
        )


def _written(drawn: SequenceResult) -> WrittenText:
    """Convert sampled tokens, the last of which is the end token, to a text."""
    assert drawn.nats is not None, "texts are scored"
    return WrittenText(
        pieces=tuple(drawn.tokens[:-1].tolist()),
        pieces_nats=float(drawn.nats[:-1].sum()),
        end_nats=float(drawn.nats[-1]),
    )
