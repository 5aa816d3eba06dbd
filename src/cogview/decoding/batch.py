"""What one pass runs for all requests together, and how its logits become tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from cogview.decoding.drawing import Drawing, Run
from cogview.decoding.forward import Part
from cogview.decoding.gumbel import draw_by_gumbel
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Event, Failed, Finished, Progressed
from cogview.decoding.sampling import sample
from cogview.decoding.searching import Searching
from cogview.decoding.weights import Variant, Weights
from cogview.errors import CogViewError

Beginning = tuple[int, bytes, bytes]
"""Variant, tokens and positions of a context: rows of which these are the same begin alike."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A request that is being worked on.

    Args:
        number: of the request.
        work: what is known of it.
        variant: whose weights.
        beginnings: what tells which others begin alike, of its first rows.
    """

    number: int
    work: Drawing | Searching
    variant: Variant
    beginnings: Sequence[Beginning]

    def free(self) -> None:
        """Give all pages back."""
        for row in self.work.rows:
            row.free()


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """A job's share of a pass.

    Args:
        job: whose.
        runs: of its rows.
        places: that it asks for, of each row.
        states: which of the pass's states are those of each row.
    """

    job: Job
    runs: Sequence[Run]
    places: Int64[np.ndarray, "a"]
    states: Sequence[slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """What was drawn at the places that a request asked for.

    Args:
        tokens: counted from the first legal one.
        confidence: the probability of each.
        is_finite: whether the logits of all these places are numbers.
    """

    tokens: Int64[np.ndarray, "a"]
    confidence: Float64[np.ndarray, "a"]
    is_finite: bool


class Batch:
    """What a pass runs, the rows of a variant together.

    Args:
        planned: the runs of each job's rows.
        weights: of the base.

    Attributes:
        runs: of all rows, in the order in which their tokens stand.
        tokens: of all runs, [n].
        positions: of each, [n].
        parts: of the variants.
        wanted: whose states are asked for.
        jobs: each with its share.
    """

    def __init__(self, planned: Sequence[tuple[Job, Sequence[Run]]], weights: Weights) -> None:
        base = weights.base
        planned = sorted(planned, key=lambda each: (each[0].variant is not base, id(each[0].variant)))
        self.runs = [run for _, runs in planned for run in runs]
        starts = np.cumsum([0, *(len(run.tokens) for run in self.runs)]).tolist()
        self.tokens = np.concatenate([run.tokens for run in self.runs])
        self.positions = np.concatenate([run.positions for run in self.runs])
        self.parts: list[Part] = []
        self.jobs: list[Planned] = []
        wanted: list[Int64[np.ndarray, "_"]] = []
        num_runs = num_wanted = 0
        for job, runs in planned:
            start, places = starts[num_runs], job.work.asked
            states = []
            for which in range(len(runs)):
                wanted.append(starts[num_runs] + job.work.states_of(places, which))
                states.append(slice(num_wanted, num_wanted + len(places)))
                num_wanted += len(places)
                num_runs += 1
            self.jobs.append(Planned(job=job, runs=runs, places=places, states=states))
            if self.parts and self.parts[-1].variant is job.variant:
                start = self.parts.pop().start
            self.parts.append(Part(variant=job.variant, start=start, stop=starts[num_runs]))
        self.wanted = np.concatenate(wanted)

    def take(self, chosen: Sequence[Chosen], proposer: Proposer) -> list[Event]:
        """Let every request, in the order of `jobs`, take over what was drawn elsewhere at its places."""
        events: list[Event] = []
        for planned, each in zip(self.jobs, chosen, strict=True):
            events += _take_over(planned, each, np.ones(len(planned.places), dtype=np.bool_), None, proposer)
        return events

    def draw(self, states: Float[Tensor, "w d"], proposer: Proposer) -> list[Event]:
        """Draw what the states of the pass allow, and let every request take over what is its own."""
        events: list[Event] = []
        groups: dict[tuple[int, range, bool], list[Planned]] = {}
        for planned in self.jobs:
            job = planned.job
            is_search = isinstance(job.work, Searching)
            groups.setdefault((id(job.variant), job.work.request.legal, is_search), []).append(planned)
        for (_, legal, is_search), members in groups.items():
            rows = [each for planned in members for each in planned.states]
            if not is_search:  # the unconditional ones behind all others
                rows = [planned.states[0] for planned in members]
                rows += [each for planned in members for each in planned.states[1:]]
            which = np.concatenate([np.arange(each.start, each.stop) for each in rows])
            some = states[torch.from_numpy(which).to(states.device)]
            logits = members[0].job.variant.head(legal)(some)
            events += _search(members, logits) if is_search else _take(members, logits, proposer)
        return events


def _search(members: Sequence[Planned], logits: Float[Tensor, "w v"]) -> list[Event]:
    """Give each search the logits of its beams."""
    events: list[Event] = []
    start = 0
    for planned in members:
        own = logits[start : start + len(planned.runs)]
        start += len(planned.runs)
        search, number = planned.job.work, planned.job.number
        assert isinstance(search, Searching), "searches go together"
        if not bool(torch.isfinite(own).all()):
            events.append(Failed(number=number, error=_not_finite()))
            continue
        search.take(own)
        if search.is_done:
            events.append(Finished(number=number, result=search.result))
    return events


def _take(members: Sequence[Planned], logits: Float[Tensor, "w v"], proposer: Proposer) -> list[Event]:
    """Draw for all requests of one head in one call, and give each its own."""
    events: list[Event] = []
    works = [_drawing(planned) for planned in members]
    places = [planned.places for planned in members]
    logits = _guided(logits, works, places)
    bounds = np.cumsum([0, *(len(asked) for asked in places)]).tolist()
    is_finite = torch.isfinite(logits.sum(dim=1, dtype=torch.float32)).cpu().numpy()
    choices = _choices(logits, works, places, bounds, is_finite)
    is_drawn = [work.is_drawn(asked) for work, asked in zip(works, places, strict=True)]
    tokens, confidence = _drawn_tokens(works, places, is_drawn, choices)
    for index, (planned, drawn) in enumerate(zip(members, is_drawn, strict=True)):
        some = slice(bounds[index], bounds[index + 1])
        chosen = Chosen(
            tokens=tokens[some], confidence=confidence[some], is_finite=bool(is_finite[some].all())
        )
        events += _take_over(planned, chosen, drawn, logits[some], proposer)
    return events


def _take_over(
    planned: Planned,
    chosen: Chosen,
    is_drawn: Bool[np.ndarray, "a"],
    logits: Float[Tensor, "a v"] | None,
    proposer: Proposer,
) -> list[Event]:
    """Let a request take over what was drawn for it, and return what it tells.

    Args:
        planned: whose.
        chosen: at the places that it asked for.
        is_drawn: at which of them something was to be drawn.
        logits: of these places; only needed to score them.
        proposer: learns how many guesses held.
    """
    work, number, asked = _drawing(planned), planned.job.number, planned.places
    if not chosen.is_finite:
        return [Failed(number=number, error=_not_finite())]
    events: list[Event] = []
    work.take(asked[is_drawn], chosen.tokens[is_drawn], chosen.confidence[is_drawn], proposer)
    if work.request.is_scored:
        assert logits is not None, "what is scored has logits"
        work.score(asked, logits)
    first, made = work.told()
    if len(made):
        events.append(Progressed(number=number, first=first, tokens=made))
    if work.is_done:
        events.append(Finished(number=number, result=work.result))
    return events


def _drawing(planned: Planned) -> Drawing:
    assert isinstance(planned.job.work, Drawing), "drawings go together"
    return planned.job.work


def _guided(
    logits: Float[Tensor, "w v"], works: Sequence[Drawing], places: Sequence[Int64[np.ndarray, "_"]]
) -> Float[Tensor, "a v"]:
    """Return the logits of each asked place, those with guidance moved away from the unconditional ones.

    Args:
        logits: of all places, and behind them the unconditional ones of those with guidance.
        works: in their order.
        places: of each.
    """
    num = sum(len(asked) for asked in places)
    own, other = logits[:num], logits[num:]
    if not len(other):
        return own
    is_guided = np.repeat([len(work.rows) == 2 for work in works], [len(asked) for asked in places])
    strengths = np.repeat(
        [work.request.sampling.guidance for work in works], [len(asked) for asked in places]
    )
    # What is far apart must not be rounded.
    where = None if is_guided.all() else torch.from_numpy(np.flatnonzero(is_guided)).to(logits.device)
    guided = (own if where is None else own[where]).float() - other.float()
    guided *= torch.from_numpy(strengths[is_guided].astype(np.float32)).to(logits.device)[:, None]
    guided += other.float()
    return guided if where is None else own.float().index_copy(0, where, guided)


def _choices(
    logits: Float[Tensor, "a v"],
    works: Sequence[Drawing],
    places: Sequence[Int64[np.ndarray, "_"]],
    bounds: Sequence[int],
    is_finite: Bool[np.ndarray, "a"],
) -> Float[Tensor, "a v"]:
    """Return logits without what may not be drawn, and zeros where they are no numbers."""
    choices = logits
    if any(work.request.allowed is not None or work.request.end is not None for work in works):
        choices = logits.float().clone()
        for index, (work, asked) in enumerate(zip(works, places, strict=True)):
            some = choices[bounds[index] : bounds[index + 1]]
            if work.request.allowed is not None:
                some[:, torch.from_numpy(~work.request.allowed).to(logits.device)] = -torch.inf
            if work.request.end is not None and len(asked) and asked[0] == 0:
                some[0, work.request.end] = -torch.inf
    if not is_finite.all():
        # Only the requests that these logits are of fail.
        choices = torch.where(torch.from_numpy(is_finite).to(logits.device)[:, None], choices, 0.0)
    return choices


def _drawn_tokens(
    works: Sequence[Drawing],
    places: Sequence[Int64[np.ndarray, "_"]],
    is_drawn: Sequence[Bool[np.ndarray, "_"]],
    logits: Float[Tensor, "a v"],
) -> tuple[Int64[np.ndarray, "a"], np.ndarray]:
    """Return what is drawn at each asked place and with which probability; 0 where nothing is."""
    device = logits.device
    tokens, confidence = np.zeros(len(logits), dtype=np.int64), np.zeros(len(logits))
    owner = np.repeat(np.arange(len(works)), [len(asked) for asked in places])
    every, drawn = np.concatenate(places), np.concatenate(is_drawn)
    configs = [work.request.sampling for work in works]
    is_inverted = np.array([work.uniforms is not None for work in works])
    rows = np.flatnonzero(drawn & ~is_inverted[owner])
    if len(rows):
        draw = draw_by_gumbel(
            logits if len(rows) == len(logits) else logits[torch.from_numpy(rows).to(device)],
            [configs[index] for index in owner[rows]],
            torch.tensor([work.key for work in works])[owner[rows]].to(device),
            torch.from_numpy(every[rows]).to(device),
        )
        tokens[rows], confidence[rows] = draw.tokens.cpu().numpy(), draw.confidence.cpu().numpy()
    for config in dict.fromkeys(
        each for each, inverted in zip(configs, is_inverted, strict=True) if inverted
    ):
        is_of = np.array([each == config for each in configs]) & is_inverted
        rows = np.flatnonzero(drawn & is_of[owner])
        if len(rows):
            uniforms = [
                works[index].uniforms[place] for index, place in zip(owner[rows], every[rows], strict=True)
            ]
            some = logits[torch.from_numpy(rows).to(device)]
            chosen = sample(some, config, torch.stack(uniforms).to(device))
            tokens[rows] = chosen.cpu().numpy()
            shares = torch.softmax(some.float(), dim=1).gather(1, chosen[:, None])
            confidence[rows] = shares[:, 0].cpu().numpy()
    return tokens, confidence


def _not_finite() -> CogViewError:
    return CogViewError(
        "the transformer's logits are infinite or NaN: its weights are damaged, or too large for this dtype; load it "
        "as float32, or copy or export the model again"
    )
