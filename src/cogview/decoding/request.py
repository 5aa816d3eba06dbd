"""Requests to the engine, their results and events."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64

from cogview.decoding.config import SamplingConfig
from cogview.decoding.guess_table import GuessTable
from cogview.decoding.weights import Variant
from cogview.errors import UsageError
from cogview.numbers import whole_number


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Tokens before those to sample.

    Args:
        tokens: ids of the vocabulary, at least one.
        positions: of each token.
        next_positions: of each token to sample or given after the context.
    """

    tokens: Int64[np.ndarray, "p"]
    positions: Int64[np.ndarray, "p"]
    next_positions: Int64[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Sequence to continue or score: codes after a text, a text after a picture.

    Args:
        context: tokens before.
        legal: range of token ids that may follow; sampled tokens are relative to its start.
        seed: draws the same tokens in any batch.
        sampling: guidance, temperature, top-k, top-p and sampler.
        unconditional: the same context without a text; needed for guidance.
        given: given tokens, with -1 where one is to be sampled; all are sampled if None. A place has the same random
            numbers whatever is given.
        num_columns: of the picture, for guesses of codes row by row; 0 for a text.
        variant: to run with; the engine's base if None.
        end: token that ends the sequence, if any; never sampled first.
        allowed: legal tokens that may be sampled; all if None. `nats` are those of the whole distribution.
        is_scored: whether to return -log p of each token.
        guess_table: of the model, for better guesses.

    Raises:
        UsageError: a negative seed, nothing to sample, tokens outside the legal ones, or parts that do not fit.
    """

    context: Context
    legal: range
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    unconditional: Context | None = None
    given: Int64[np.ndarray, "n"] | None = None
    num_columns: int = 0
    variant: Variant | None = None
    end: int | None = None
    allowed: Bool[np.ndarray, "v"] | None = None
    is_scored: bool = False
    guess_table: GuessTable | None = None

    def __post_init__(self) -> None:
        if whole_number("a seed", self.seed) < 0:
            raise UsageError(f"seeds must not be negative, got {self.seed}")
        _check_legal(self.legal, self.allowed)
        if self.num_columns < 0:
            raise UsageError(f"num_columns must not be negative, got {self.num_columns}")
        if self.end is not None and not 0 <= self.end < len(self.legal):
            raise UsageError(f"the end must be one of {len(self.legal)} legal tokens, got {self.end}")
        given = np.empty(0) if self.given is None else self.given
        if len(given) and not -1 <= given.min() <= given.max() < len(self.legal):
            raise UsageError(
                f"given tokens must lie in 0..{len(self.legal) - 1}, or be -1, got {given.min()}..{given.max()}"
            )
        if not len(self.context.tokens) or not self.num_tokens:
            raise UsageError("a request needs a context, and at least one token to draw or to score after it")
        if self.sampling.guidance != 1 and self.unconditional is None:
            raise UsageError("guidance needs an unconditional context: give the request one")
        lengths = [] if self.unconditional is None else [len(self.unconditional.next_positions)]
        lengths += [] if self.given is None else [len(self.given)]
        if any(length != self.num_tokens for length in lengths):
            raise UsageError(
                f"a request of {self.num_tokens} tokens has {', '.join(map(str, lengths))} unconditional or given ones"
            )

    @property
    def cost(self) -> int:
        """Share of `max_batch` that the request takes."""
        return 1

    @property
    def num_tokens(self) -> int:
        """Maximum number of tokens after the context."""
        return len(self.context.next_positions)

    @property
    def contexts(self) -> list[Context]:
        """Contexts that need a row each: the conditional and, with guidance, the unconditional one."""
        if self.sampling.guidance == 1 or self.unconditional is None:
            return [self.context]
        return [self.context, self.unconditional]


@dataclass(frozen=True, kw_only=True, eq=False)
class BeamRequest:
    """Beam search for the most probable texts after a context.

    In each step every beam may end, and the best `num_beams` continuations go on. Finished texts are ranked by `score`,
    until no running beam can overtake them.

    Args:
        context: tokens before; `next_positions` are those of the pieces.
        legal: range of token ids that may follow.
        end: legal token that ends a text; the last by default.
        num_beams: beam width.
        length_penalty: 0 prefers short texts, 1 ranks by the mean of log p.
        allowed: which legal tokens may be written; all if None.
        variant: to run with; the engine's base if None.

    Raises:
        UsageError: no beams, no context, no legal tokens, or an end that is none of them.
    """

    context: Context
    legal: range
    end: int = -1
    num_beams: int
    length_penalty: float = 1.0
    allowed: Bool[np.ndarray, "v"] | None = None
    variant: Variant | None = None

    def __post_init__(self) -> None:
        _check_legal(self.legal, self.allowed)
        if whole_number("num_beams", self.num_beams) < 1:
            raise UsageError(f"num_beams must be at least 1, got {self.num_beams}")
        if not -len(self.legal) <= self.end < len(self.legal):
            raise UsageError(f"the end must be one of {len(self.legal)} legal tokens, got {self.end}")
        if not len(self.context.tokens) or not len(self.context.next_positions):
            raise UsageError("a search needs a context, and at least one token to write after it")

    @property
    def cost(self) -> int:
        """Share of `max_batch` that the request takes."""
        return self.num_beams

    @property
    def contexts(self) -> list[Context]:
        """Contexts that need a row each."""
        return [self.context]


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceResult:
    """Finished sequence.

    Args:
        tokens: relative to the first legal token, including the end token if there is one.
        nats: -log p of each token, before temperature, top-k and top-p; None if not scored.
        num_passes: passes of the transformer.
    """

    tokens: Int64[np.ndarray, "n"]
    nats: Float64[np.ndarray, "n"] | None = None
    num_passes: int = 0


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """Text written for a picture.

    Args:
        pieces: at least one.
        pieces_nats: -log p of the pieces.
        end_nats: -log p of the end token.
    """

    pieces: tuple[int, ...]
    pieces_nats: float
    end_nats: float

    @property
    def caption_loss(self) -> float:
        """CapLoss of picture and text, in nats per piece."""
        return self.pieces_nats / len(self.pieces)

    def score(self, length_penalty: float = 1.0) -> float:
        """Return log p of pieces and end token, divided by their number to the power of `length_penalty`."""
        return -(self.pieces_nats + self.end_nats) / (len(self.pieces) + 1) ** length_penalty


def _check_legal(legal: range, allowed: Bool[np.ndarray, "v"] | None) -> None:
    """Validate the legal and allowed tokens."""
    if not len(legal) or legal.step != 1 or legal.start < 0:
        raise UsageError(
            f"legal tokens must be a range of at least one, from 0 on and without gaps, got {legal}"
        )
    if allowed is None:
        return
    if len(allowed) != len(legal) or not allowed.any():
        raise UsageError(
            f"allowed must be a mask of {len(legal)} legal tokens with at least one allowed, "
            f"got {len(allowed)}, {int(allowed.sum())} of them allowed"
        )


AnyRequest = Request | BeamRequest
Result = SequenceResult | list[WrittenText]


@dataclass(frozen=True, kw_only=True, eq=False)
class Progressed:
    """Tokens of a request became final.

    Args:
        number: of the request.
        first: place of the first token.
        tokens: relative to the first legal token.
    """

    number: int
    first: int
    tokens: Int64[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A request is done.

    Args:
        number: of the request.
        result: the sequence, or the texts of a beam search, best first.
    """

    number: int
    result: Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Failed:
    """A request failed.

    Args:
        number: of the request.
        error: why.
    """

    number: int
    error: Exception


Event = Progressed | Finished | Failed
