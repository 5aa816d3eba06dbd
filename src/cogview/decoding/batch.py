"""Batch of one pass: its tokens, and sampling from its logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from cogview.decoding.beam_search import BeamSearch
from cogview.decoding.forward import Part
from cogview.decoding.gumbel import draw_by_gumbel
from cogview.decoding.inversion import sample
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Event, Failed, Finished, Progressed
from cogview.decoding.running_sequence import Run, RunningSequence
from cogview.decoding.weights import Variant, Weights
from cogview.errors import CogViewError

PrefixKey = tuple[int, bytes, bytes]
"""Variant, tokens and positions of a context: rows with equal keys share the prefix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Request that is running.

    Args:
        number: of the request.
        work: state of the request.
        variant: to run with.
        prefix_keys: of its first rows.
    """

    number: int
    work: RunningSequence | BeamSearch
    variant: Variant
    prefix_keys: Sequence[PrefixKey]

    def free(self) -> None:
        """Give all pages back."""
        for row in self.work.rows:
            row.free()


@dataclass(frozen=True, kw_only=True, eq=False)
class JobShare:
    """Share of a job in a pass.

    Args:
        job: that runs.
        runs: tokens of each row.
        places: to compute logits for, the same for each row.
        states: for each row, slice of the pass's states.
    """

    job: Job
    runs: Sequence[Run]
    places: Int64[np.ndarray, "a"]
    states: Sequence[slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Tokens sampled at the places of a request.

    Args:
        tokens: relative to the first legal token.
        confidence: probability of each.
        is_finite: whether all logits are finite.
    """

    tokens: Int64[np.ndarray, "a"]
    confidence: Float64[np.ndarray, "a"]
    is_finite: bool


class Batch:
    """Tokens of one pass, grouped by variant.

    Args:
        planned: each job with the tokens of its rows.
        weights: of the base.

    Attributes:
        runs: of all rows, in order.
        tokens: of all rows, [n].
        positions: of all rows, [n].
        parts: tokens of each variant.
        wanted: indices of the tokens whose states are needed.
        jobs: share of each job.
    """

    def __init__(self, planned: Sequence[tuple[Job, Sequence[Run]]], weights: Weights) -> None:
        base = weights.base
        planned = sorted(planned, key=lambda each: (each[0].variant is not base, id(each[0].variant)))
        self.runs = [run for _, runs in planned for run in runs]
        starts = np.cumsum([0, *(len(run.tokens) for run in self.runs)]).tolist()
        self.tokens = np.concatenate([run.tokens for run in self.runs])
        self.positions = np.concatenate([run.positions for run in self.runs])
        self.parts: list[Part] = []
        self.jobs: list[JobShare] = []
        wanted: list[Int64[np.ndarray, "_"]] = []
        num_runs = num_wanted = 0
        for job, runs in planned:
            start, places = starts[num_runs], job.work.logit_places
            states = []
            for which in range(len(runs)):
                wanted.append(starts[num_runs] + job.work.states_of(places, which))
                states.append(slice(num_wanted, num_wanted + len(places)))
                num_wanted += len(places)
                num_runs += 1
            self.jobs.append(JobShare(job=job, runs=runs, places=places, states=states))
            if self.parts and self.parts[-1].variant is job.variant:
                start = self.parts.pop().start
            self.parts.append(Part(variant=job.variant, start=start, stop=starts[num_runs]))
        self.wanted = np.concatenate(wanted)

    def take(self, sampled: Sequence[Sampled], proposer: Proposer) -> list[Event]:
        """Give each request, in the order of `jobs`, the tokens sampled elsewhere; return the events."""
        events: list[Event] = []
        for share, each in zip(self.jobs, sampled, strict=True):
            events += _take_over(share, each, np.ones(len(share.places), dtype=np.bool_), None, proposer)
        return events

    def draw(self, states: Float[Tensor, "w d"], proposer: Proposer) -> list[Event]:
        """Sample from the states of the pass, and return the events."""
        events: list[Event] = []
        groups: dict[tuple[int, range, bool], list[JobShare]] = {}
        for share in self.jobs:
            job = share.job
            is_search = isinstance(job.work, BeamSearch)
            groups.setdefault((id(job.variant), job.work.request.legal, is_search), []).append(share)
        for (_, legal, is_search), members in groups.items():
            rows = [each for share in members for each in share.states]
            if not is_search:  # unconditional ones last
                rows = [share.states[0] for share in members]
                rows += [each for share in members for each in share.states[1:]]
            which = np.concatenate([np.arange(each.start, each.stop) for each in rows])
            group_states = states[torch.from_numpy(which).to(states.device)]
            logits = members[0].job.variant.head(legal)(group_states)
            events += _search(members, logits) if is_search else _take(members, logits, proposer)
        return events


def _search(members: Sequence[JobShare], logits: Float[Tensor, "w v"]) -> list[Event]:
    events: list[Event] = []
    start = 0
    for share in members:
        own = logits[start : start + len(share.runs)]
        start += len(share.runs)
        search, number = share.job.work, share.job.number
        assert isinstance(search, BeamSearch), "all of one kind"
        if not bool(torch.isfinite(own).all()):
            events.append(Failed(number=number, error=_not_finite()))
            continue
        search.take(own)
        if search.is_done:
            events.append(Finished(number=number, result=search.result))
    return events


def _take(members: Sequence[JobShare], logits: Float[Tensor, "w v"], proposer: Proposer) -> list[Event]:
    """Sample for all requests with the same head in one call."""
    events: list[Event] = []
    works = [_sequence(share) for share in members]
    places = [share.places for share in members]
    logits = _guided(logits, works, places)
    bounds = np.cumsum([0, *(len(each) for each in places)]).tolist()
    is_finite = torch.isfinite(logits.sum(dim=1, dtype=torch.float32)).cpu().numpy()
    choices = _choices(logits, works, places, bounds, is_finite)
    is_drawn = [work.is_drawn(own) for work, own in zip(works, places, strict=True)]
    tokens, confidence = _drawn_tokens(works, places, is_drawn, choices)
    for index, (share, own_drawn) in enumerate(zip(members, is_drawn, strict=True)):
        some = slice(bounds[index], bounds[index + 1])
        sampled = Sampled(
            tokens=tokens[some], confidence=confidence[some], is_finite=bool(is_finite[some].all())
        )
        events += _take_over(share, sampled, own_drawn, logits[some], proposer)
    return events


def _take_over(
    share: JobShare,
    sampled: Sampled,
    is_drawn: Bool[np.ndarray, "a"],
    logits: Float[Tensor, "a v"] | None,
    proposer: Proposer,
) -> list[Event]:
    """Give a request its tokens, and return its events.

    Args:
        share: of the job.
        sampled: at the places of the share.
        is_drawn: places at which a token was to be sampled.
        logits: of these places; only for scoring.
        proposer: learns how many guesses were right.
    """
    work, number, places = _sequence(share), share.job.number, share.places
    if not sampled.is_finite:
        return [Failed(number=number, error=_not_finite())]
    events: list[Event] = []
    work.take(places[is_drawn], sampled.tokens[is_drawn], sampled.confidence[is_drawn], proposer)
    if work.request.is_scored:
        assert logits is not None, "scoring needs logits"
        work.score(places, logits)
    first, new_tokens = work.new_tokens()
    if len(new_tokens):
        events.append(Progressed(number=number, first=first, tokens=new_tokens))
    if work.is_done:
        events.append(Finished(number=number, result=work.result))
    return events


def _sequence(share: JobShare) -> RunningSequence:
    assert isinstance(share.job.work, RunningSequence), "all of one kind"
    return share.job.work


def _guided(
    logits: Float[Tensor, "w v"], works: Sequence[RunningSequence], places: Sequence[Int64[np.ndarray, "_"]]
) -> Float[Tensor, "a v"]:
    """Apply guidance to the logits of each place.

    Args:
        logits: of all places, followed by the unconditional ones of requests with guidance.
        works: in order.
        places: of each request.
    """
    num = sum(len(each) for each in places)
    conditional, unconditional = logits[:num], logits[num:]
    if not len(unconditional):
        return conditional
    is_guided = np.repeat([len(work.rows) == 2 for work in works], [len(each) for each in places])
    strengths = np.repeat([work.request.sampling.guidance for work in works], [len(each) for each in places])
    # In fp32: a large guidance would amplify rounding.
    where = None if is_guided.all() else torch.from_numpy(np.flatnonzero(is_guided)).to(logits.device)
    guided = (conditional if where is None else conditional[where]).float() - unconditional.float()
    guided *= torch.from_numpy(strengths[is_guided].astype(np.float32)).to(logits.device)[:, None]
    guided += unconditional.float()
    return guided if where is None else conditional.float().index_copy(0, where, guided)


def _choices(
    logits: Float[Tensor, "a v"],
    works: Sequence[RunningSequence],
    places: Sequence[Int64[np.ndarray, "_"]],
    bounds: Sequence[int],
    is_finite: Bool[np.ndarray, "a"],
) -> Float[Tensor, "a v"]:
    """Mask tokens that may not be sampled, and replace rows that are not finite by zeros."""
    choices = logits
    if any(work.request.allowed is not None or work.request.end is not None for work in works):
        choices = logits.float().clone()
        for index, (work, own_places) in enumerate(zip(works, places, strict=True)):
            some = choices[bounds[index] : bounds[index + 1]]
            if work.request.allowed is not None:
                some[:, torch.from_numpy(~work.request.allowed).to(logits.device)] = -torch.inf
            if work.request.end is not None and len(own_places) and own_places[0] == 0:
                some[0, work.request.end] = -torch.inf
    if not is_finite.all():
        # So that only the requests of these logits fail.
        choices = torch.where(torch.from_numpy(is_finite).to(logits.device)[:, None], choices, 0.0)
    return choices


def _drawn_tokens(
    works: Sequence[RunningSequence],
    places: Sequence[Int64[np.ndarray, "_"]],
    is_drawn: Sequence[Bool[np.ndarray, "_"]],
    logits: Float[Tensor, "a v"],
) -> tuple[Int64[np.ndarray, "a"], np.ndarray]:
    """Sample at each place, and return tokens and their probability; 0 where nothing is sampled."""
    device = logits.device
    tokens, confidence = np.zeros(len(logits), dtype=np.int64), np.zeros(len(logits))
    owner = np.repeat(np.arange(len(works)), [len(each) for each in places])
    all_places, all_drawn = np.concatenate(places), np.concatenate(is_drawn)
    configs = [work.request.sampling for work in works]
    is_inverted = np.array([work.uniforms is not None for work in works])
    rows = np.flatnonzero(all_drawn & ~is_inverted[owner])
    if len(rows):
        draw = draw_by_gumbel(
            logits if len(rows) == len(logits) else logits[torch.from_numpy(rows).to(device)],
            [configs[index] for index in owner[rows]],
            torch.tensor([work.key for work in works])[owner[rows]].to(device),
            torch.from_numpy(all_places[rows]).to(device),
        )
        tokens[rows], confidence[rows] = draw.tokens.cpu().numpy(), draw.confidence.cpu().numpy()
    for config in dict.fromkeys(
        each for each, inverted in zip(configs, is_inverted, strict=True) if inverted
    ):
        is_of = np.array([each == config for each in configs]) & is_inverted
        rows = np.flatnonzero(all_drawn & is_of[owner])
        if len(rows):
            uniforms = [
                works[index].uniforms[place]
                for index, place in zip(owner[rows], all_places[rows], strict=True)
            ]
            some = logits[torch.from_numpy(rows).to(device)]
            sampled = sample(some, config, torch.stack(uniforms).to(device))
            tokens[rows] = sampled.cpu().numpy()
            shares = torch.softmax(some.float(), dim=1).gather(1, sampled[:, None])
            confidence[rows] = shares[:, 0].cpu().numpy()
    return tokens, confidence


def _not_finite() -> CogViewError:
    return CogViewError(
        "the transformer's logits are infinite or NaN: its weights are damaged, or too large for this dtype; load it "
        "as float32, or copy or export the model again"
    )
