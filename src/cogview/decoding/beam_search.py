"""State of a running beam search: its beams are rows of the pool that fork."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cogview.decoding.pool import PagePool, Row
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import BeamRequest, WrittenText
from cogview.decoding.running_sequence import Run
from cogview.decoding.weights import Variant


class BeamSearch:
    """Beams of a search.

    Args:
        request: to run.
        variant: to run with.
        pool: for its rows.
    """

    def __init__(self, request: BeamRequest, variant: Variant, pool: PagePool) -> None:
        self.request = request
        self.variant = variant
        self.contexts = [request.context]
        self._pool = pool
        self._max_tokens = len(request.context.tokens) + len(request.context.next_positions)
        self.rows = [Row(pool, self._max_tokens)]
        self._totals = np.zeros(1)
        self._pieces: list[tuple[int, ...]] = [()]
        self._finished: list[WrittenText] = []
        self.is_done = False

    @property
    def num_known(self) -> int:
        """Number of tokens that the next pass computes, over all rows."""
        return sum(len(run.tokens) for run in self.plan())

    @property
    def result(self) -> list[WrittenText]:
        """The best texts, best first."""
        return self._finished

    def propose(self, proposer: Proposer) -> Float64[np.ndarray, "w"]:
        """Return no guesses: beams are not decoded speculatively."""
        return np.empty(0)

    @property
    def logit_places(self) -> Int64[np.ndarray, "a"]:
        """Places that need logits from the planned pass: the next of each row."""
        return np.array([len(self._pieces[0])])

    def states_of(self, places: Int64[np.ndarray, "a"], which: int) -> Int64[np.ndarray, "a"]:
        """Return the indices, in a row's run, of the states of places: the last."""
        return np.array([len(self.plan()[which].tokens) - 1])

    def plan(self, num_guesses: int = 0) -> list[Run]:
        """Return the tokens to run of each row: the context, or each beam's last piece."""
        context, step = self.request.context, len(self._pieces[0])
        if not step:
            start = self.rows[0].length
            return [Run(row=self.rows[0], tokens=context.tokens[start:], positions=context.positions[start:])]
        return [
            Run(
                row=row,
                tokens=np.array([pieces[-1] + self.request.legal.start]),
                positions=context.next_positions[step - 1 : step],
            )
            for row, pieces in zip(self.rows, self._pieces, strict=True)
        ]

    def take(self, logits: Float[Tensor, "w v"]) -> None:
        """End beams, and continue the best, given the logits of all beams."""
        request = self.request
        step, max_pieces = len(self._pieces[0]), len(request.context.next_positions)
        for row, run in zip(self.rows, self.plan(), strict=True):
            row.length += len(run.tokens)
        log_p = torch.log_softmax(logits.double(), dim=-1).cpu()
        if step:
            texts = [
                WrittenText(pieces=pieces, pieces_nats=-float(total), end_nats=-float(log_end))
                for pieces, total, log_end in zip(
                    self._pieces, self._totals, log_p[:, request.end], strict=True
                )
            ]
            self._finished = sorted(
                [*self._finished, *texts], key=lambda text: -text.score(request.length_penalty)
            )
            self._finished = self._finished[: request.num_beams]
        if step == max_pieces:
            self.is_done = True
            return
        continuations = log_p
        if request.allowed is not None:
            continuations = continuations.masked_fill(torch.from_numpy(~request.allowed), -torch.inf)
        continuations[:, request.end] = -torch.inf
        sums = (torch.from_numpy(self._totals)[:, None] + continuations).flatten()
        totals, choice = sums.topk(min(request.num_beams, len(sums)))
        is_possible = totals > -torch.inf
        totals, choice = totals[is_possible], choice[is_possible]
        # A total only falls, so the longest text is the best that a beam can hope for.
        hope = float(totals.max()) / (max_pieces + 1) ** request.length_penalty if len(totals) else -np.inf
        worst = self._finished[-1].score(request.length_penalty) if self._finished else -np.inf
        if not len(totals) or (len(self._finished) == request.num_beams and worst >= hope):
            self.is_done = True
            return
        num = continuations.shape[1]
        self._fork((choice // num).tolist())
        self._totals = totals.numpy()
        self._pieces = [
            (*self._pieces[parent], piece)
            for parent, piece in zip((choice // num).tolist(), (choice % num).tolist(), strict=True)
        ]

    def _fork(self, parents: list[int]) -> None:
        """Continue each beam from its parent's row: the first child takes it over, others share its prefix."""
        rows: list[Row] = []
        used: set[int] = set()
        for parent in parents:
            row = self.rows[parent]
            if parent in used:
                row = Row(self._pool, self._max_tokens)
                row.share_prefix(self.rows[parent], self.rows[parent].length)
            used.add(parent)
            rows.append(row)
        for number, row in enumerate(self.rows):
            if number not in used:
                row.free()
        self.rows = rows
