"""Requests that make no sense are refused before anything is worked on, and leave others alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cogview.decoding.engine import Runner
from cogview.decoding.request import BeamRequest, Context, Request
from cogview.errors import UsageError
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

CONTEXT = Context(tokens=np.array([30, 31]), positions=np.arange(2), next_positions=np.arange(2, 6))
REQUEST = Request(context=CONTEXT, legal=range(20))
BEAMS = BeamRequest(context=CONTEXT, legal=range(20), num_beams=2)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: replace(REQUEST, legal=range(5, 5)), "legal tokens .*at least one"),
        (lambda: replace(REQUEST, legal=range(-5, 20)), "legal tokens"),
        (lambda: replace(REQUEST, legal=range(0, 20, 2)), "without gaps"),
        (lambda: replace(BEAMS, legal=range(5, 5)), "legal tokens"),
        (
            lambda: replace(REQUEST, given=np.full(4, 20)),
            r"given tokens.* 0..19.* -1.* 20..20",
        ),
        (lambda: replace(REQUEST, given=np.full(4, -2)), "given tokens must lie in"),
        (lambda: replace(REQUEST, given=np.full(3, 3)), "a request of 4 tokens has 3"),
        (lambda: replace(REQUEST, allowed=np.zeros(20, dtype=bool)), "got 20, 0 of them allowed"),
        (lambda: replace(REQUEST, allowed=np.ones(7, dtype=bool)), "got 7, 7 of them allowed"),
        (lambda: replace(BEAMS, allowed=np.ones(7, dtype=bool)), "got 7, 7 of them allowed"),
        (lambda: replace(REQUEST, end=20), "end .* 20 legal tokens.* 20"),
        (lambda: replace(REQUEST, end=-1), "end .* -1"),
        (lambda: replace(REQUEST, num_columns=-1), "num_columns.* -1"),
        (lambda: replace(BEAMS, num_beams=0), "num_beams.* 1.* 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as told:
        make()
    assert "\n" not in str(told.value)


def test_legal_tokens_are_of_the_vocabulary() -> None:
    torch.manual_seed(0)
    shape = TransformerConfig(num_layers=1, hidden_size=16, num_heads=2, vocabulary_size=40, num_positions=8)
    engine = Runner.of(Transformer(shape).eval()).engine
    for request in (replace(REQUEST, legal=range(30, 41)), replace(BEAMS, legal=range(10**9))):
        with pytest.raises(UsageError, match=r"legal tokens .*vocabulary of 40"):
            engine.add(request)
    assert engine.is_idle
    assert len(engine.run([REQUEST])) == 1
