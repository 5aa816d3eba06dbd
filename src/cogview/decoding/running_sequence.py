"""State of a running request: final tokens, guessed tokens, and what the next pass computes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cogview.decoding.code_guesser import CodeGuesser, GuessKind, sampled_kinds
from cogview.decoding.gumbel import key_of
from cogview.decoding.inversion import seeded_uniforms
from cogview.decoding.pool import MAX_NEW_CODES, PagePool, Row
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Request, SequenceResult
from cogview.decoding.weights import Variant

_SURE = 0.9
"""Acceptance rate above which a token of the last pass is not compared with other guesses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """New tokens of a row.

    Args:
        row: to append to.
        tokens: ids of the vocabulary.
        positions: of each token.
    """

    row: Row
    tokens: Int64[np.ndarray, "t"]
    positions: Int64[np.ndarray, "t"]


class RunningSequence:
    """Sequence of a request, and with guidance its unconditional twin, decoded speculatively.

    Places count the tokens after the context, from 0. One pass samples a window of places: the first after the final
    tokens, each further one after guesses of those before. Tokens up to and including the first that differs from its
    guess become final; later ones are the next guesses. So the result is that of decoding one by one, whatever the
    window.

    Args:
        request: to run.
        variant: to run with.
        pool: for its rows.
    """

    def __init__(self, request: Request, variant: Variant, pool: PagePool) -> None:
        self.request = request
        self.variant = variant
        num = request.num_tokens
        self.contexts = request.contexts
        self.rows = [
            Row(pool, len(context.tokens) + num - 1, num_text=len(context.tokens))
            for context in self.contexts
        ]
        is_sparse = pool.config.attention_pattern == "three_region"
        self._max_new = MAX_NEW_CODES if is_sparse else request.num_tokens
        self._streams = [
            np.concatenate([context.tokens, np.zeros(num, dtype=np.int64)]) for context in self.contexts
        ]
        self._positions = [
            np.concatenate([context.positions, context.next_positions]) for context in self.contexts
        ]
        self._given = np.full(num, -1) if request.given is None else request.given
        self.key = key_of(request.seed)
        self.uniforms: Float64[Tensor, "n"] | None = None
        if request.sampling.sampler == "inversion" and request.sampling.temperature > 0:
            self.uniforms = seeded_uniforms([request.seed], num)[0]
        self.tokens = np.full(num, -1)
        self.num_final = 0
        self._num_scored = self._num_checked = 0
        self._num_reported = 0
        self._nats: list[Float64[np.ndarray, "_"]] = []
        context = self.contexts[0].tokens.tolist()
        is_other = [token not in request.legal for token in reversed(context)]
        self._num_before = is_other.index(True) if True in is_other else len(context)
        start = len(context) - self._num_before
        self._codes = [token - request.legal.start for token in context[start:]] + [-1] * num
        self._guesses = np.full(num, -1)
        self._kinds = np.full(num, GuessKind.GIVEN, dtype=np.int64)
        self._later = self._guesses.copy()
        self._later_kinds = self._kinds.copy()
        self._window = 1
        self._num_run: list[int] = []
        self._has_ended = False
        self.num_passes = 0
        self._take_given()

    @property
    def is_done(self) -> bool:
        """Whether all tokens are sampled, and scored if requested."""
        return (self._has_ended or self.num_final == len(self.tokens)) and (
            not self.request.is_scored or self._num_scored == self.num_final
        )

    @property
    def result(self) -> SequenceResult:
        """The finished sequence."""
        return SequenceResult(
            tokens=self.tokens[: self.num_final],
            nats=np.concatenate(self._nats) if self.request.is_scored else None,
            num_passes=self.num_passes,
        )

    @property
    def num_known(self) -> int:
        """Number of tokens that a pass without guesses computes, over all rows."""
        return sum(self._stop(which) - row.length for which, row in enumerate(self.rows))

    def _stop(self, which: int) -> int:
        """Return the end of a row's known tokens in the next pass."""
        row, start = self.rows[which], len(self.contexts[which].tokens)
        return min(start + self.num_final, row.max_tokens, start + self._most(which))

    def _most(self, which: int) -> int:
        """Return the end of the places that a row may run in the next pass, guesses included."""
        return max(self.rows[which].length - len(self.contexts[which].tokens), 0) + self._max_new

    def propose(self, proposer: Proposer) -> Float64[np.ndarray, "w"]:
        """Guess the next tokens, and return the probability that each and all before it are right.

        The last place of a window needs no guess, so the last place of all has none.
        """
        first = self.num_final
        stop = min(
            first + proposer.max_window - 1, len(self.tokens) - 1, *map(self._most, range(len(self.rows)))
        )
        is_behind = self._stop(0) < len(self.contexts[0].tokens) + first
        if first >= stop or self._has_ended or self.rows[0].length == 0 or is_behind:
            return np.empty(0)
        columns, guesser, before = self.request.num_columns, self._guesser(proposer), self._num_before
        guesses, kinds = self._later[first:stop].tolist(), self._later_kinds[first:stop].tolist()
        given, codes = self._given[first:stop].tolist(), self._codes
        acceptance_rates = proposer.acceptance_rates
        rates, reach, min_reach = acceptance_rates.tolist(), 1.0, proposer.min_reach
        for index, earlier in enumerate(guesses):
            place = before + first + index
            if reach < min_reach:
                stop = first + index
                break
            if given[index] >= 0:
                guesses[index], kinds[index] = given[index], GuessKind.GIVEN
            elif earlier < 0 or (rates[kinds[index]] < _SURE and columns and place):
                if not columns or not place:
                    stop = first + index
                    break
                guess, kind = guesser.guess(codes, place, columns)
                if guess == earlier:
                    kinds[index] = GuessKind.CONFIRMED
                elif earlier < 0 or rates[kind] > rates[kinds[index]]:
                    guesses[index], kinds[index] = guess, kind
            codes[place] = guesses[index]
            reach *= rates[kinds[index]]
        self._guesses[first:stop], self._kinds[first:stop] = guesses[: stop - first], kinds[: stop - first]
        return np.cumprod(acceptance_rates[self._kinds[first:stop]])

    def _guesser(self, proposer: Proposer) -> CodeGuesser:
        request = self.request
        source = id(self.variant), request.legal, request.num_columns
        return proposer.guesser_of(source, request.guess_table)

    def plan(self, num_guesses: int) -> list[Run]:
        """Return the tokens to run of each row: all known ones that the pool lacks, then guesses.

        Args:
            num_guesses: number of guesses from `propose` to verify.
        """
        first = self.num_final
        self._window = num_guesses + 1
        runs = []
        for which, (row, context, stream, positions) in enumerate(
            zip(self.rows, self.contexts, self._streams, self._positions, strict=True)
        ):
            start = len(context.tokens)
            stop = self._stop(which)
            if stop < min(start + first, row.max_tokens):  # more given tokens than one pass may run
                self._window = 0
            elif num_guesses:
                stop = min(start + first + num_guesses, row.max_tokens)
                stream[start + first : stop] = self._guesses[first : stop - start] + self.request.legal.start
            runs.append(
                Run(row=row, tokens=stream[row.length : stop], positions=positions[row.length : stop])
            )
        self._num_run = [row.length + len(run.tokens) for row, run in zip(self.rows, runs, strict=True)]
        return runs

    @property
    def logit_places(self) -> Int64[np.ndarray, "a"]:
        """Places that need logits from the planned pass, to sample or to score."""
        first, stop = self.num_final, min(self.num_final + self._window, len(self.tokens))
        if self._has_ended or not self._window:
            stop = first
        if self.request.is_scored:
            # If more is given than one pass may run, only places with a state.
            num_run = self._num_run[0] - len(self.contexts[0].tokens) + 1
            return np.arange(self._num_scored, stop if self._window else min(first, num_run))
        places = np.arange(first, stop)
        return places[self._given[places] < 0]

    def states_of(self, places: Int64[np.ndarray, "a"], which: int) -> Int64[np.ndarray, "a"]:
        """Return the indices, in a row's run, of the states that places are sampled from."""
        return places + (len(self.contexts[which].tokens) - 1 - self.rows[which].length)

    def is_drawn(self, places: Int64[np.ndarray, "a"]) -> np.ndarray:
        """Return the places at which a token is to be sampled."""
        return (places >= self.num_final) & (self._given[places] < 0)

    def take(
        self,
        places: Int64[np.ndarray, "d"],
        tokens: Int64[np.ndarray, "d"],
        confidence: Float64[np.ndarray, "d"],
        proposer: Proposer,
    ) -> None:
        """Accept the tokens that a pass sampled.

        Args:
            places: ascending; those of `logit_places` at which a token was sampled.
            tokens: at these places.
            confidence: probability of each.
            proposer: learns how many guesses were right.
        """
        self.num_passes += 1
        self._num_checked = self.num_final
        first, stop = self.num_final, min(self.num_final + self._window, len(self.tokens))
        sampled: Int64[np.ndarray, "n"] = self._given.copy()
        sampled[places] = tokens
        guessed = self._guesses[first : stop - 1].copy()
        num_right = 0
        if not self._has_ended and first < stop and self._window:
            if len(guessed):
                is_right = sampled[first : stop - 1] == guessed
                num_right = len(guessed) if is_right.all() else int(is_right.argmin())
            accepted = sampled[first : first + num_right + 1]
            if self.request.end is not None and (accepted == self.request.end).any():
                accepted = accepted[: int((accepted == self.request.end).argmax()) + 1]
                num_right = min(num_right, len(accepted) - 1)
                self._has_ended = True
            proposer.learn_guesses(self._kinds[first : stop - 1], num_right)
            self._make_final(accepted)
            self._num_checked = self.num_final
            if self.request.num_columns:
                start = self._num_before
                self._guesser(proposer).learn(
                    self._codes, start + first, start + self.num_final, self.request.num_columns
                )
            later = np.arange(self.num_final, stop)
            later = later[self._given[later] < 0] if len(later) else later
            if len(later):
                before = np.append(guessed, -1)[later - first]
                of_later = np.searchsorted(places, later)
                self._later_kinds[later] = sampled_kinds(
                    confidence[of_later], (before == sampled[later]).astype(np.int64)
                )
                self._later[later] = sampled[later]
        for row, context, num_run in zip(self.rows, self.contexts, self._num_run, strict=True):
            row.length = min(len(context.tokens) + first + num_right, num_run)
        self._take_given()

    def new_tokens(self) -> tuple[int, Int64[np.ndarray, "n"]]:
        """Return the final tokens not returned before, given ones included, and the place of the first."""
        first, self._num_reported = self._num_reported, self.num_final
        return first, self.tokens[first : self.num_final].copy()

    def score(self, places: Int64[np.ndarray, "a"], logits: Float[Tensor, "a v"]) -> None:
        """Add the losses of final tokens; call after `take`."""
        is_final = places < self._num_checked  # given ones after a wrong guess run again
        targets = torch.from_numpy(self.tokens[places[is_final]]).to(logits.device)
        log_p = torch.log_softmax(logits[torch.from_numpy(is_final).to(logits.device)].float(), dim=-1)
        self._nats.append(-log_p.gather(1, targets[:, None])[:, 0].double().cpu().numpy())
        self._num_scored += int(is_final.sum())

    def _take_given(self) -> None:
        """Make given tokens final up to the first to be sampled."""
        if self._has_ended or self.request.given is None:
            return
        to_draw = np.flatnonzero(self._given[self.num_final :] < 0)
        stop = self.num_final + int(to_draw[0]) if len(to_draw) else len(self.tokens)
        self._make_final(self._given[self.num_final : stop])

    def _make_final(self, tokens: Int64[np.ndarray, "n"]) -> None:
        first, stop = self.num_final, self.num_final + len(tokens)
        self.tokens[first:stop] = tokens
        self._codes[self._num_before + first : self._num_before + stop] = tokens.tolist()
        for context, stream in zip(self.contexts, self._streams, strict=True):
            start = len(context.tokens)
            stream[start + first : start + stop] = tokens + self.request.legal.start
        self.num_final = stop
