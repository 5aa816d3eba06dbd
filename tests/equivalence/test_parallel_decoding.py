"""Whatever guesses are checked at once, and beside whatever else, a request gives what it gives one by one alone."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogview.decoding.config import SamplingConfig
from cogview.decoding.engine import Engine, Runner
from cogview.decoding.memory import peak_resident_bytes
from cogview.decoding.pool import PagePool
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import (
    AnyRequest,
    BeamRequest,
    Context,
    Failed,
    Finished,
    Progressed,
    Request,
    Result,
    SequenceResult,
)
from cogview.errors import CogViewError
from cogview.generation.text_to_image import text_context
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig, ThreeRegionConfig, TransformerConfig
from cogview.transformer.model import Transformer

VOCABULARY = Vocabulary(num_image_codes=48, num_text_pieces=40)
TEMPLATE = TextToImageTemplate(
    vocabulary=VOCABULARY, grid_rows=5, grid_columns=4, max_text_pieces=6, image_positions="fixed"
)
WIDE = dataclasses.replace(TEMPLATE, grid_rows=2, grid_columns=7, max_text_pieces=4)
CAPTIONS = CaptionTemplate.of(TEMPLATE)
UPSCALED = SuperResolutionTemplate.of(dataclasses.replace(TEMPLATE, grid_rows=2, grid_columns=2))
REGIONS = ThreeRegionConfig(
    block_tokens=2,
    key_window_blocks=2,
    num_text_and_pivot_tokens=14,
    image_start_token=VOCABULARY.separator("BOI1"),
    num_image_tokens=TEMPLATE.num_codes_per_image,
)
CONFIG = TransformerConfig(
    num_layers=2,
    hidden_size=64,
    num_heads=2,
    vocabulary_size=VOCABULARY.size,
    num_positions=max(each.num_positions for each in (TEMPLATE, CAPTIONS, UPSCALED)),
)
SAMPLINGS = [
    SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance, sampler=sampler)
    for sampler in ("gumbel", "inversion")
    for temperature, top_k, top_p, guidance in (
        (1.0, None, 0.8, 1.5),
        (1.0, None, 1.0, 1.0),
        (0.7, 10, 0.9, 1.0),
        (1.3, 5, 1.0, 0.0),
        (0.0, None, 1.0, 2.0),
    )
]


@torch.no_grad()
def transformer_of(config: TransformerConfig = CONFIG) -> Transformer:
    """Return one whose pictures have runs of one code, so that some guesses hold and others do not."""
    torch.manual_seed(0)
    transformer = Transformer(config).eval()
    for name, parameter in transformer.named_parameters():
        parameter.mul_(1 if "norm" in name else 4)
    return transformer


@torch.no_grad()
def adapted_of(transformer: Transformer) -> AdaptedTransformer:
    adapter = AdapterConfig(rank=3, trains_norms=True, token_rows=(7, VOCABULARY.separator("BOI1")))
    adapted = AdaptedTransformer(transformer, adapter)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return adapted


def runner_of(
    config: TransformerConfig = CONFIG, dtype: torch.dtype = torch.float32, max_batch: int = 16
) -> Runner:
    return Runner.of(
        transformer_of(config), dtype=dtype, max_batch=max_batch, proposer=Proposer(is_eager=True)
    )


RUNNER = runner_of()
ADAPTED = RUNNER.adapted(adapted_of(transformer_of()))


def drawn_request(
    runner: Runner,
    pieces: list[int],
    seed: int,
    sampling: SamplingConfig,
    given: np.ndarray | None = None,
    template: TextToImageTemplate = TEMPLATE,
) -> Request:
    return Request(
        context=text_context(template, pieces),
        unconditional=text_context(template, []),
        legal=VOCABULARY.image_codes,
        seed=seed,
        sampling=sampling,
        given=given,
        num_columns=template.grid_columns,
        variant=runner.variant,
    )


def written_request(runner: Runner, codes: np.ndarray, seed: int, sampling: SamplingConfig) -> Request:
    prefix = CAPTIONS.prefix(codes)
    end = len(CAPTIONS.legal_tokens) - 1
    allowed = np.ones(end + 1, dtype=np.bool_)
    allowed[:3] = False
    return Request(
        context=Context(
            tokens=prefix.tokens,
            positions=prefix.positions,
            next_positions=np.append(CAPTIONS.text_positions, 0),
        ),
        legal=CAPTIONS.legal_tokens,
        seed=seed,
        sampling=dataclasses.replace(sampling, guidance=1.0),
        given=np.append(np.full(6, -1), end),
        end=end,
        allowed=allowed,
        is_scored=True,
        variant=runner.variant,
    )


def scored_request(runner: Runner, codes: np.ndarray, pieces: np.ndarray) -> Request:
    request = written_request(runner, codes, 0, SAMPLINGS[0])
    context = dataclasses.replace(
        request.context, next_positions=request.context.next_positions[: len(pieces)]
    )
    return dataclasses.replace(request, context=context, given=pieces, end=None, allowed=None)


def searched_request(runner: Runner, codes: np.ndarray, num_beams: int) -> BeamRequest:
    prefix = CAPTIONS.prefix(codes)
    return BeamRequest(
        context=Context(
            tokens=prefix.tokens, positions=prefix.positions, next_positions=CAPTIONS.text_positions
        ),
        legal=CAPTIONS.legal_tokens,
        num_beams=num_beams,
        variant=runner.variant,
    )


def upscaled_request(runner: Runner, codes: np.ndarray, seed: int, sampling: SamplingConfig) -> Request:
    prefix = UPSCALED.prefix([1, 2], codes)
    context = Context(
        tokens=prefix.tokens, positions=prefix.positions, next_positions=UPSCALED.high_code_positions()
    )
    return Request(
        context=context,
        unconditional=context,
        legal=VOCABULARY.image_codes,
        seed=seed,
        sampling=sampling,
        num_columns=4,
        variant=runner.variant,
    )


KINDS = ("drawn", "wide", "given", "written", "scored", "searched", "upscaled")
ANY = st.tuples(
    st.sampled_from(KINDS),
    st.booleans(),
    st.integers(0, len(SAMPLINGS) - 1),
    st.integers(0, 3),
    st.lists(st.integers(0, 39), max_size=5),
    st.lists(st.booleans(), min_size=20, max_size=20),
)


def any_request(
    kind: str, is_adapted: bool, sampling_number: int, seed: int, pieces: list[int], is_given: list[bool]
) -> AnyRequest:
    """Return a request of any kind."""
    runner, sampling = ADAPTED if is_adapted else RUNNER, SAMPLINGS[sampling_number]
    codes = np.random.default_rng(len(pieces)).integers(48, size=20)
    match kind:
        case "given":
            given = np.where(np.array(is_given), codes, -1)
            return drawn_request(runner, pieces, seed, sampling, given)
        case "wide":
            return drawn_request(runner, pieces[:4], seed, sampling, template=WIDE)
        case "written":
            return written_request(runner, codes, seed, sampling)
        case "scored":
            return scored_request(runner, codes, np.array([*pieces, 40]))
        case "searched":
            return searched_request(runner, codes, seed + 1)
        case "upscaled":
            return upscaled_request(runner, codes[:4], seed, sampling)
    return drawn_request(runner, pieces, seed, sampling)


def one_by_one(request: AnyRequest, engine: Engine = RUNNER.engine) -> Result:
    """Return what a request gives alone, a token a pass."""
    (result,) = Engine(engine.weights, proposer=Proposer(1)).run([request])
    return result


def assert_same(found: Result, wanted: Result) -> None:
    assert type(found) is type(wanted)
    if isinstance(found, SequenceResult) and isinstance(wanted, SequenceResult):
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        if wanted.nats is None:
            assert found.nats is None
        else:
            np.testing.assert_array_equal(found.nats, wanted.nats)
    else:
        assert found == wanted


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_any_schedule_gives_each_request_what_it_gives_alone(data: st.DataObject) -> None:
    """Requests of all kinds come at any step, and some are aborted."""
    drawn = data.draw(st.lists(ANY, min_size=1, max_size=9))
    requests = [any_request(*each) for each in drawn]
    comes_at = [data.draw(st.integers(0, 6)) for _ in requests]
    aborted_at = {
        index: data.draw(st.integers(0, 8))
        for index in range(len(requests))
        if data.draw(st.integers(0, 4)) == 0
    }
    proposer = Proposer(data.draw(st.sampled_from([1, 2, 5, 64])), is_eager=data.draw(st.booleans()))
    engine = Engine(
        RUNNER.engine.weights, max_batch=data.draw(st.sampled_from([1, 3, 16])), proposer=proposer
    )
    number_of: dict[int, int] = {}
    results: dict[int, Result] = {}
    codes: dict[int, list[int]] = {}
    stopped: set[int] = set()
    for step in range(10_000):
        for index, request in enumerate(requests):
            if comes_at[index] == step:
                number_of[engine.add(request)] = index
        for index, at in aborted_at.items():
            if at == step:
                for number in [number for number, each in number_of.items() if each == index]:
                    engine.abort(number)
                    stopped.add(index)
        for event in engine.step():
            index = number_of[event.number]
            assert index not in stopped
            assert not isinstance(event, Failed)
            if isinstance(event, Progressed):
                assert event.first == len(codes.setdefault(index, []))
                codes[index] += event.tokens.tolist()
            if isinstance(event, Finished):
                results[index] = event.result
        if engine.is_idle and step > 8:
            break
    assert set(results) | stopped == set(range(len(requests)))
    for index, result in results.items():
        assert_same(result, one_by_one(requests[index]))
        if isinstance(result, SequenceResult):
            assert result.tokens.tolist() == codes[index]
    assert engine._scheduler.num_held_pages == 0


@pytest.fixture
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("pattern", "dtype", "num_threads"),
    [
        ("dense", torch.float32, 1),
        ("dense", torch.float32, 2),
        ("three_region", torch.float32, 2),
        ("dense", torch.bfloat16, 2),
        ("three_region", torch.bfloat16, 1),
        ("dense", torch.float16, 1),
        ("three_region", torch.float16, 2),
    ],
    ids=str,
    indirect=["num_threads"],
)
@pytest.mark.slow
def test_windows_draw_what_one_by_one_draws(pattern: str, dtype: torch.dtype, num_threads: int) -> None:
    """In every dtype, by every sampler, guided or not; and one thread draws what two do."""
    config = CONFIG
    if pattern == "three_region":
        config = dataclasses.replace(CONFIG, attention_pattern="three_region", three_region=REGIONS)
    runner = runner_of(config, dtype)
    texts = (([3, 1], 0), ([], 2))  # in turn: what one case draws of the first, the next draws of the second
    requests = [
        drawn_request(runner, *texts[(number + num_threads) % 2], sampling)
        for number, sampling in enumerate(SAMPLINGS)
    ]
    found = runner.engine.run(requests)
    torch.set_num_threads(3 - num_threads)
    wanted = [one_by_one(request, runner.engine) for request in requests]
    for each, alone in zip(found, wanted, strict=True):
        assert_same(each, alone)
    passes = [each.num_passes for each in found if isinstance(each, SequenceResult)]
    assert min(passes) < 0.7 * TEMPLATE.num_codes_per_image
    assert len({tuple(each.tokens) for each in found if isinstance(each, SequenceResult)}) > len(requests) / 2


def test_given_codes_cost_no_pass_of_their_own() -> None:
    sampling = SAMPLINGS[1]
    whole = one_by_one(drawn_request(RUNNER, [5], 3, sampling))
    assert isinstance(whole, SequenceResult)
    given_all = drawn_request(RUNNER, [5], 3, sampling, whole.tokens)
    upper = drawn_request(RUNNER, [5], 3, sampling, np.where(np.arange(20) < 12, whole.tokens, -1))
    hole = drawn_request(RUNNER, [5], 3, sampling, np.where(np.arange(20) == 4, -1, whole.tokens))
    engine = Engine(RUNNER.engine.weights, proposer=Proposer(1))
    for request, num_passes in ((given_all, 1), (upper, 8), (hole, 1)):
        engine.num_passes = 0
        (result,) = engine.run([request])
        assert_same(result, whole)
        assert engine.num_passes == num_passes


@pytest.mark.slow
def test_many_steps_leak_nothing() -> None:
    """In a process of its own, in which shapes are not checked at each call."""
    code = "import test_parallel_decoding; test_parallel_decoding.take_many_steps(1_200)"
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])},
        check=True,
    )


def take_many_steps(num_steps: int) -> None:
    """Take steps with requests of all kinds that come and are aborted at random, and look for what is left."""
    rng = np.random.default_rng(0)
    engine = Engine(RUNNER.engine.weights, max_batch=5)
    live: list[int] = []
    most_pages = most_bytes = 0
    for step in range(num_steps):
        if rng.random() < 0.5 and len(live) < 12:
            kind = KINDS[rng.integers(len(KINDS))]
            pieces, is_given = rng.integers(40, size=3).tolist(), (rng.random(20) < 0.5).tolist()
            request = any_request(kind, step % 3 == 0, step % len(SAMPLINGS), step % 4, pieces, is_given)
            live.append(engine.add(request))
        if live and rng.random() < 0.1:
            engine.abort(live.pop(rng.integers(len(live))))
        for event in engine.step():
            if not isinstance(event, Progressed):
                live.remove(event.number)
        if step == num_steps // 3:
            most_pages, most_bytes = engine._scheduler.pool.num_pages, peak_resident_bytes()
    while not engine.is_idle:
        engine.step()
    assert engine._scheduler.num_held_pages == 0
    assert engine._scheduler.pool.num_pages < 2 * most_pages, (engine._scheduler.pool.num_pages, most_pages)
    assert not engine._listeners
    assert not engine._aborted
    assert not +engine._scheduler._prefix_uses
    assert not engine._scheduler._cached_prefixes
    assert peak_resident_bytes() < most_bytes + 2**23, (peak_resident_bytes(), most_bytes)


@pytest.mark.slow
def test_one_request_that_fails_leaves_the_others_alone() -> None:
    """Weights of an adapter that are no numbers."""
    broken = adapted_of(transformer_of())
    with torch.no_grad():
        broken.final_norm.weight.fill_(torch.nan)
    runner = RUNNER.adapted(broken)
    requests = [
        drawn_request(RUNNER, [5], 3, SAMPLINGS[0]),
        drawn_request(runner, [5], 3, SAMPLINGS[0]),
        searched_request(runner, np.arange(20), 2),
        searched_request(RUNNER, np.arange(20), 2),
    ]
    engine = Engine(RUNNER.engine.weights)
    numbers = [engine.add(request) for request in requests]
    told = {}
    while not engine.is_idle:
        told.update({event.number: event for event in engine.step() if not isinstance(event, Progressed)})
    for number, request, is_broken in zip(numbers, requests, (False, True, True, False), strict=True):
        event = told[number]
        if is_broken:
            assert isinstance(event, Failed)
            assert "infinite or NaN" in str(event.error)
        else:
            assert isinstance(event, Finished)
            assert_same(event.result, one_by_one(request))
    with pytest.raises(CogViewError, match="infinite or NaN"):
        engine.run(requests)
    assert engine.is_idle or not engine.step()
    assert engine.is_idle


def test_a_pass_that_fails_leaves_the_engine_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(RUNNER.engine.weights)
    request = drawn_request(RUNNER, [5], 3, SAMPLINGS[0])
    engine.add(request)
    engine.step()

    def out_of_memory(self: PagePool, num: int) -> list[int]:
        raise MemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(PagePool, "allocate", out_of_memory)
        engine.add(drawn_request(RUNNER, [6], 3, SAMPLINGS[0]))
        events = engine.step()
    assert [type(event) for event in events] == [Failed, Failed]
    assert engine.is_idle
    assert_same(engine.run([request])[0], one_by_one(request))


@pytest.mark.slow
def test_threads_share_an_engine_and_each_gets_its_own() -> None:
    engine = Engine(RUNNER.engine.weights, max_batch=4)
    requests = [drawn_request(RUNNER, [number], number, SAMPLINGS[number % 3]) for number in range(12)]
    results: dict[int, Result] = {}

    def work(first: int) -> None:
        for number, result in enumerate(engine.run(requests[first : first + 3]), first):
            results[number] = result

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 12, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, request in enumerate(requests):
        assert_same(results[number], one_by_one(request))
    assert engine.is_idle
