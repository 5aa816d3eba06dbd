"""What can be asked of the engine, and what it tells of it."""

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
    """What stands before the tokens that are drawn, and where these stand.

    Args:
        tokens: ids of the vocabulary, at least one.
        positions: of each.
        next_positions: of each token that is drawn or given after them.
    """

    tokens: Int64[np.ndarray, "p"]
    positions: Int64[np.ndarray, "p"]
    next_positions: Int64[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A sequence to go on with: a picture's codes after a text, a text after a picture, or tokens to be scored.

    Args:
        context: what it goes on from.
        legal: the tokens of the vocabulary that may follow; tokens that are drawn are counted from the first of them.
        seed: draws the same tokens alone or in any company.
        sampling: guidance, temperature, top-k, top-p and sampler.
        unconditional: the same context without a text, which guidance compares with; only needed for guidance.
        given: tokens that stand already, and -1 where one is to be drawn; all are drawn if None. Whatever is given, a
            token is drawn with the random numbers of its place.
        num_columns: of the picture whose codes are drawn row by row, from which codes are guessed; 0 for a text.
        variant: whose weights; the engine's base if None.
        end: the token that ends the sequence, if one does; never the first that is drawn.
        allowed: which legal tokens may be drawn; all if None. `nats` are those of the whole distribution.
        is_scored: whether -log p of each token is told.
        guess_table: of what the model has learnt, for better guesses.

    Raises:
        UsageError: a negative seed, nothing to draw, tokens outside the legal ones, or parts that do not fit.
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
            raise UsageError(
                "guidance compares with a context without a text; give each request its unconditional one"
            )
        others = [] if self.unconditional is None else [len(self.unconditional.next_positions)]
        others += [] if self.given is None else [len(self.given)]
        if any(each != self.num_tokens for each in others):
            raise UsageError(
                f"a request of {self.num_tokens} tokens has {', '.join(map(str, others))} of something else"
            )

    @property
    def cost(self) -> int:
        """Return how many of the engine's `max_batch` it takes up."""
        return 1

    @property
    def num_tokens(self) -> int:
        """Return how many tokens follow the context at most."""
        return len(self.context.next_positions)

    @property
    def contexts(self) -> list[Context]:
        """Return what takes a row of the pool each: the context, and the unconditional one if it is compared with."""
        if self.sampling.guidance == 1 or self.unconditional is None:
            return [self.context]
        return [self.context, self.unconditional]


@dataclass(frozen=True, kw_only=True, eq=False)
class BeamRequest:
    """A search for the most probable texts after a context.

    In each step every beam may end, and the best `num_beams` of all their continuations go on. The texts that
    ended are ranked by `score`, until none that goes on can overtake them.

    Args:
        context: what the texts go on from; `next_positions` are those of the pieces.
        legal: the tokens that may follow, the last of which ends a text.
        num_beams: texts that go on at the same time.
        length_penalty: 0 prefers short texts, 1 ranks by the mean of log p.
        allowed: which legal tokens may be written; all if None.
        variant: whose weights; the engine's base if None.

    Raises:
        UsageError: no beams, no context, or no legal tokens.
    """

    context: Context
    legal: range
    num_beams: int
    length_penalty: float = 1.0
    allowed: Bool[np.ndarray, "v"] | None = None
    variant: Variant | None = None

    def __post_init__(self) -> None:
        _check_legal(self.legal, self.allowed)
        if whole_number("num_beams", self.num_beams) < 1:
            raise UsageError(f"num_beams must be at least 1, got {self.num_beams}")
        if not len(self.context.tokens) or not len(self.context.next_positions):
            raise UsageError("a search needs a context, and at least one token to write after it")

    @property
    def cost(self) -> int:
        """Return how many of the engine's `max_batch` it takes up."""
        return self.num_beams

    @property
    def contexts(self) -> list[Context]:
        """Return what takes a row of the pool."""
        return [self.context]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A sequence that is finished.

    Args:
        tokens: counted from the first legal one; the end, if there is one, among them.
        nats: -log p of each, before temperature, top-k and top-p; None if it was not asked for.
        num_passes: of the transformer that it took part in.
    """

    tokens: Int64[np.ndarray, "n"]
    nats: Float64[np.ndarray, "n"] | None = None
    num_passes: int = 0


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """A text that was written for a picture.

    Args:
        pieces: numbered as the text tokenizer does; at least one.
        pieces_nats: -log p of the pieces.
        end_nats: -log p of the text's end after them.
    """

    pieces: tuple[int, ...]
    pieces_nats: float
    end_nats: float

    @property
    def caption_loss(self) -> float:
        """CapLoss of the picture and the text, in nats per piece."""
        return self.pieces_nats / len(self.pieces)

    def score(self, length_penalty: float = 1.0) -> float:
        """Return log p of pieces and end, divided by their number to the power of `length_penalty`."""
        return -(self.pieces_nats + self.end_nats) / (len(self.pieces) + 1) ** length_penalty


def _check_legal(legal: range, allowed: Bool[np.ndarray, "v"] | None) -> None:
    """Refuse tokens that nothing can be drawn from."""
    if not len(legal) or legal.step != 1 or legal.start < 0:
        raise UsageError(
            f"legal tokens must be a range of at least one, from 0 on and without gaps, got {legal}"
        )
    if allowed is None:
        return
    if len(allowed) != len(legal) or not allowed.any():
        raise UsageError(
            f"allowed must say of each of {len(legal)} legal tokens whether it may be drawn, and allow one at least, "
            f"got {len(allowed)}, {int(allowed.sum())} of them allowed"
        )


AnyRequest = Request | BeamRequest
Result = Drawn | list[WrittenText]


@dataclass(frozen=True, kw_only=True, eq=False)
class Progressed:
    """More tokens of a request are final.

    Args:
        number: of the request.
        first: the place of the first of them.
        tokens: counted from the first legal one.
    """

    number: int
    first: int
    tokens: Int64[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A request is done.

    Args:
        number: of the request.
        result: a `Drawn`, or the texts of a search, best first.
    """

    number: int
    result: Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Failed:
    """A request could not be carried out.

    Args:
        number: of the request.
        error: why.
    """

    number: int
    error: Exception


Event = Progressed | Finished | Failed
