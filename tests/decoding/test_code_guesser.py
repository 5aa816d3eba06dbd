"""Guesses come from neighbours and from memory, and windows are as wide as pays."""

import numpy as np
import pytest

from cogview.decoding.code_guesser import _MAX_CONTEXTS, CodeGuesser, GuessKind, sampled_kinds
from cogview.decoding.proposer import Proposer

ROW = [5, 5, 5, 7]


@pytest.mark.parametrize(
    ("codes", "code", "kind"),
    [
        ([5], 5, GuessKind.LEFT),
        ([*ROW], 5, GuessKind.EDGE),  # a row begins as the one above
        ([*ROW, 5], 5, GuessKind.AGREEING),
        ([*ROW, 5, 5, 8], 7, GuessKind.EDGE),
        ([*ROW, 5, 5, 5], 7, GuessKind.EDGE),  # an upright edge goes on
        ([5, 5, 5, 5, 8], 8, GuessKind.EDGE),  # a level one does
    ],
)
def test_edges_go_on_as_they_do_above_or_to_the_left(codes: list[int], code: int, kind: GuessKind) -> None:
    assert CodeGuesser().guess([*codes, -1], len(codes), 4) == (code, kind)


def test_what_followed_the_same_neighbours_is_remembered_by_majority() -> None:
    memory = CodeGuesser()
    picture = [1, 2, 3, 4, 9]
    for code, wanted in ((9, (9, GuessKind.REMEMBERED_ONCE)), (9, (9, GuessKind.REMEMBERED)), (8, (9, None))):
        memory.learn([*picture[:4], code], 0, 5, 4)
        guess, kind = memory.guess([*picture[:4], -1], 4, 4)
        assert guess == wanted[0]
        assert wanted[1] in (kind, None)
    for _ in range(3):
        memory.learn([*picture[:4], 8], 4, 5, 4)
    assert memory.guess([*picture[:4], -1], 4, 4)[0] == 8


def test_memory_is_bounded() -> None:
    memory = CodeGuesser()
    codes = np.random.default_rng(0).integers(0, 2**20, size=_MAX_CONTEXTS + 10).tolist()
    memory.learn(codes, 0, len(codes), 16)
    assert len(memory._next_codes) < 20


def test_earlier_draws_are_told_apart_by_confidence_and_by_having_been_drawn_before() -> None:
    kinds = sampled_kinds(np.array([0.1, 0.6, 0.99, 0.1, 0.99]), np.array([0, 0, 0, 1, 1]))
    assert kinds.tolist() == [
        GuessKind.DRAWN_UNSURE,
        GuessKind.DRAWN_LIKELY,
        GuessKind.DRAWN_SURE,
        GuessKind.AGAIN_UNSURE,
        GuessKind.AGAIN_SURE,
    ]


def test_guesses_that_hold_are_believed_and_others_are_not() -> None:
    proposer = Proposer()
    kinds = np.array([GuessKind.EDGE] * 3 + [GuessKind.LEFT] * 2)
    before = proposer.acceptance_rates
    for _ in range(100):
        proposer.learn_guesses(kinds, 3)
    assert proposer.acceptance_rates[GuessKind.EDGE] > 0.95
    assert proposer.acceptance_rates[GuessKind.LEFT] < 0.1
    unseen = GuessKind.AGAIN_SURE
    assert proposer.acceptance_rates[unseen] == before[unseen]


def test_windows_are_wider_where_guesses_are_surer_and_passes_cost_more_by_themselves() -> None:
    proposer = Proposer()
    for tokens in (10, 20, 40, 80) * 5:
        proposer.learn_pass(tokens, 1e-3 * (30 + tokens))
    assert proposer.fixed_tokens == pytest.approx(30, rel=0.01)
    sure, unsure = 0.99 ** np.arange(1, 64), 0.5 ** np.arange(1, 64)
    wide, narrow = proposer.windows([sure, unsure], [2, 2], 4)
    assert wide > 3 * narrow
    dear = Proposer()
    for tokens in (10, 20, 40, 80) * 5:
        dear.learn_pass(tokens, 1e-3 * (200 + tokens))
    assert dear.windows([unsure], [2], 2)[0] > proposer.windows([unsure], [2], 2)[0]
    alone = proposer.windows([unsure], [1], 1)[0]
    beside_many = proposer.windows([unsure] * 100, [1] * 100, 100)[0]
    assert beside_many < alone
    assert proposer.windows([np.empty(0)], [1], 1) == [0]
    assert proposer.windows([], [], 0) == []
    assert Proposer(is_eager=True).windows([unsure], [1], 1) == [63]


def test_guesses_that_are_not_worth_checking_are_not_made_the_next_time() -> None:
    proposer = Proposer()
    for tokens in (10, 20, 40, 80) * 5:
        proposer.learn_pass(tokens, 1e-3 * (30 + tokens))
    reaches = [0.9 ** np.arange(1, 64)] * 16
    first = proposer.windows(reaches, [2] * 16, 32)
    least = proposer.min_reach
    assert 0.02 < least < 0.9 ** max(first)
    made = [reach[reach >= least] for reach in reaches]
    assert len(made[0]) < 63
    assert proposer.windows(made, [2] * 16, 32) == first
    proposer.windows([0.99 ** np.arange(1, 64)], [1], 1)  # all are worth it
    assert proposer.min_reach < 0.99**63
    assert Proposer(is_eager=True).min_reach == 0
